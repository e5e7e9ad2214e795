"""Counting mistakes over a test run, for the lines at its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from loopsentry.model import Diagnosis


class Told(TypedDict):
    """What a report carries of one diagnosis; plain values, that a worker can send."""

    id: str
    code: str
    cause: str
    severity: str


def brief(diagnosis: Diagnosis) -> Told:
    """Reduce a diagnosis to what is counted."""
    return Told(
        id=f"{diagnosis.pid}/{diagnosis.id}",
        code=diagnosis.code,
        cause=diagnosis.cause,
        severity=diagnosis.severity,
    )


class Tally:
    """Mistakes by cause: how many, in how many tests, and the first test of each."""

    def __init__(self) -> None:
        self.mistakes: dict[tuple[str, str], set[str]] = {}
        self.tests: dict[tuple[str, str], dict[str, None]] = {}

    def add(self, test: str, told: Iterable[Told]) -> None:
        """Count what one report of a test tells."""
        for entry in told:
            cause = (entry["code"], entry["cause"])
            self.mistakes.setdefault(cause, set()).add(entry["id"])
            self.tests.setdefault(cause, {})[test] = None

    def lines(self) -> list[str]:
        """One line for each cause, in the order of the codes, and where to read on."""
        lines = []
        for cause in sorted(self.mistakes):
            code, name = cause
            mistakes, tests = len(self.mistakes[cause]), list(self.tests[cause])
            lines.append(
                f"{code} {name}: {_several(mistakes, 'mistake')} in"
                f" {_several(len(tests), 'test')}, first {tests[0]}"
            )
        codes = sorted({code for code, _ in self.mistakes})
        return [*lines, f"more: loopsentry explain {codes[0]}"] if codes else lines


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
