"""The section `loopsentry` in a report, in place of the note on the exception."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from loopsentry.model import Diagnosis
from loopsentry.story import refer_to

NAME = "loopsentry"
_SEEN = 100


def add_section(report: pytest.TestReport | pytest.CollectReport, text: str) -> None:
    """Add a section to the representation of the failure.

    It is then part of what every consumer shows: the terminal with any `--show-capture`, JUnit XML,
    and the controller of pytest-xdist (_pytest/reports.py: _report_to_json).
    """
    longrepr: Any = report.longrepr
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(NAME, text)
    else:
        report.sections.append((NAME, text))


def refer(diagnosis: Diagnosis, first: str, width: int) -> str:
    """One line for a mistake that an earlier test has told in full."""
    return "\n".join(line.text for line in refer_to(diagnosis, first, width))


@contextmanager
def in_colour(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> Iterator[None]:
    """Colour the sections of reports, and name their causes, while a terminal shows them.

    What other plugins read before and after stays as it was.
    """
    from loopsentry.renderers.terminal import colour

    undone: list[Callable[[], None]] = []
    for report in reports:
        holder = getattr(report.longrepr, "sections", None) or report.sections
        for at, section in enumerate(holder):
            if section[0] == NAME:
                holder[at] = (NAME, colour(section[1]), *section[2:])
                undone.append(partial(holder.__setitem__, at, section))
    try:
        yield
    finally:
        for undo in undone:
            undo()


@contextmanager
def named(reports: Iterable[Any]) -> Iterator[None]:
    """Put the cause before the message in pytest's short summary, while that is written."""
    renamed: list[tuple[Any, str]] = []
    for report in reports:
        cause = getattr(report, "loopsentry_cause", None)
        crash = getattr(report.longrepr, "reprcrash", None)
        if cause and crash is not None:
            renamed.append((crash, crash.message))
            crash.message = f"{cause}: {crash.message}"
    try:
        yield
    finally:
        for crash, message in renamed:
            crash.message = message


@contextmanager
def without_notes(exc: BaseException | None) -> Iterator[None]:
    """Take loopsentry's notes off an exception and all it came of, while pytest represents it."""
    taken: list[tuple[list[Any], list[Any]]] = []
    for node in tree(exc):
        notes = _notes(node)
        if any(map(_told, notes)):
            taken.append((notes, notes[:]))
            notes[:] = [note for note in notes if not _told(note)]
    try:
        yield
    finally:
        for notes, before in taken:
            notes[:] = before


def diagnosis_on(exc: BaseException) -> Diagnosis | None:
    """The diagnosis that a note of an exception, or of what it came of, carries."""
    for node in tree(exc):
        for note in _notes(node):
            if _told(note):
                diagnosis: Diagnosis = note.diagnosis
                return diagnosis
    return None


def _told(note: Any) -> bool:
    return issubclass(type(note), str) and type(getattr(note, "diagnosis", None)) is Diagnosis


def tree(exc: BaseException | None) -> list[BaseException]:
    """An exception, its causes and contexts and the members of its groups.

    Only what `BaseException` itself keeps is read: a class may override everything else.
    """
    found: list[BaseException] = []
    waiting: list[Any] = [exc]
    while waiting and len(found) < _SEEN:
        node = waiting.pop()
        if node is None or any(node is seen for seen in found):
            continue
        found.append(node)
        waiting += [_field(node, "__cause__"), _field(node, "__context__")]
        if issubclass(type(node), BaseExceptionGroup):
            waiting += BaseExceptionGroup.__dict__["exceptions"].__get__(node, type(node))
    return found


def arguments(exc: BaseException) -> tuple[Any, ...]:
    """An exception's arguments."""
    args = _field(exc, "args")
    return args if isinstance(args, tuple) else ()


def _field(exc: BaseException, name: str) -> Any:
    return BaseException.__dict__[name].__get__(exc, type(exc))


def _notes(exc: BaseException) -> list[Any]:
    notes = _field(exc, "__dict__").get("__notes__")
    return notes if type(notes) is list else []
