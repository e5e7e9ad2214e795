"""Two processes side by side, one with loopsentry and one without, timed in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

from .measures import SIZES

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair of processes, one measure: medians over the rounds, in microseconds.

    Attributes:
        without: of the process in which nothing was installed.
        watched: of the process with loopsentry.
        difference: of the differences inside each round.
        ratio: of the ratios inside each round.
    """

    without: float
    watched: float
    difference: float
    ratio: float


class Side:
    """A child process that times what it is told to."""

    def __init__(self, asked: IO[str], answers: IO[str]) -> None:
        self.asked = asked
        self.answers = answers
        self._answer()

    def time(self, measure: str) -> float:
        """Microseconds of one operation, measured now."""
        self.asked.write(measure + "\n")
        self.asked.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self.answers.readline().strip()
        if not line:
            raise SystemExit("a measuring process ended early; its error is above")
        return line


@contextmanager
def side(url: str, *options: str) -> Iterator[Side]:
    """Start one side, and end it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOOPSENTRY")}
    environment["PYTHONHASHSEED"] = "0"
    command = [sys.executable, "-m", "benchmarks.side", "--url", url, *options]
    with subprocess.Popen(  # noqa: S603 - our own module
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both were asked for")
        yield Side(process.stdin, process.stdout)


def measure_pair(url: str, rounds: int, options: list[str]) -> dict[str, Sample]:
    """Time both sides of a new pair, round by round; who comes first changes each round."""
    with ExitStack() as stack:
        without = stack.enter_context(side(url, *options))
        watched = stack.enter_context(side(url, *options, "--tool=loopsentry"))
        return {name: _measure(name, without, watched, rounds) for name in SIZES}


def _measure(name: str, without: Side, watched: Side, rounds: int) -> Sample:
    timed: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            second = watched.time(name)
            timed.append((without.time(name), second))
        else:
            first = without.time(name)
            timed.append((first, watched.time(name)))
    return Sample(
        without=median(a for a, _ in timed),
        watched=median(b for _, b in timed),
        difference=median(b - a for a, b in timed),
        ratio=median(b / a for a, b in timed),
    )
