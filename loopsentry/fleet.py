"""Report files of many processes as one table: mistakes, where, since when, and their cures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from ._wording import visible
from .model import Place


@dataclass(slots=True)
class Mistake:
    """One mistake, in whatever processes it was met.

    Attributes:
        id: its key, the same in each process that runs the same code.
        code, cause, certainty, severity, context: as in the record.
        here: the line that used the object.
        owner: the line that opened it, "" where that is not known.
        fix: the first cure's title, "" without one.
        first, last: when it was first and last recorded, ISO 8601 in UTC.
        processes: which it was recorded in, by host file and process number.
    """

    id: str
    code: str
    cause: str
    certainty: str
    severity: str
    context: str
    here: str
    owner: str
    fix: str
    first: str
    last: str
    processes: set[tuple[str, int]] = field(default_factory=set)

    def describe(self) -> dict[str, Any]:
        """The mistake for a program to read."""
        names = (name for name in self.__slots__ if name != "processes")
        return {name: getattr(self, name) for name in names} | {"processes": len(self.processes)}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no record.

    Attributes:
        file: which it is in.
        line: its number, from 1.
        why: what is wrong with it.
    """

    file: str
    line: int
    why: str


def merge(files: Iterable[tuple[str, TextIO]]) -> tuple[list[Mistake], list[Unreadable]]:
    """The mistakes of all records, the most often met first, and the lines that are none.

    Args:
        files: each with its name.
    """
    found: dict[str, Mistake] = {}
    unreadable: list[Unreadable] = []
    for name, file in files:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                _add(found, name, _record_in(line))
            except ValueError as exc:
                unreadable.append(Unreadable(name, number, str(exc)))
            except (AttributeError, IndexError, KeyError, TypeError):
                unreadable.append(Unreadable(name, number, _FOREIGN))
    return sorted(found.values(), key=lambda each: (-len(each.processes), each.first)), unreadable


def _record_in(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        raise ValueError("no JSON, perhaps half a record of a full disk") from None
    known = isinstance(record, dict) and isinstance(record.get("code"), str)
    schema = record.get("schema") if known else 1
    if schema != 1:
        raise ValueError(f"schema {schema!r}; this version reads schema 1")
    if not known:
        raise ValueError(_FOREIGN)
    found: Mapping[str, Any] = record
    return found


_FOREIGN = "no record of loopsentry's"


def _add(found: dict[str, Mistake], file: str, record: Mapping[str, Any]) -> None:
    time = str(record.get("time", ""))
    key = str(record.get("id", ""))
    mistake = found.get(key)
    if mistake is None:
        fixes = record.get("fixes") or [{}]
        mistake = Mistake(
            id=key,
            code=str(record["code"]),
            cause=str(record["cause"]),
            certainty=str(record["certainty"]),
            severity=str(record["severity"]),
            context=str(record["context"]),
            here=_place(record.get("used_at")),
            owner=_place((record.get("object") or {}).get("opened_at")),
            fix=str(fixes[0].get("title", "")),
            first=time,
            last=time,
        )
    process = file, int(record.get("pid") or 0)
    found[key] = mistake
    mistake.first = min(mistake.first, time)
    mistake.last = max(mistake.last, time)
    mistake.processes.add(process)


def _place(place: Mapping[str, Any] | None) -> str:
    if not place:
        return ""
    return Place(str(place["file"]), place["line"], str(place["function"])).short


def render(mistakes: list[Mistake], form: str) -> str:
    """The mistakes as JSON or as a Markdown table."""
    if form == "json":
        told = [each.describe() for each in mistakes]
        return json.dumps({"schema": 1, "mistakes": told}, indent=2)
    rows = [["code", "cause", "here", "owner", "processes", "first", "last", "cure"]]
    rows += [list(map(_in_cell, _cells_of(each))) for each in mistakes]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _cells_of(mistake: Mistake) -> Iterator[str]:
    yield mistake.code
    yield f"{mistake.cause}, {mistake.certainty}"
    yield mistake.here
    yield mistake.owner
    yield str(len(mistake.processes))
    yield mistake.first[:19].replace("T", " ")
    yield mistake.last[:19].replace("T", " ")
    yield mistake.fix


def table_of(mistakes: list[Mistake]) -> Any:
    """The mistakes as a table of rich's: a line of its own for each that is known of one."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for each in mistakes:
        code, cause, here, owner, processes, first, last, fix = map(visible, _cells_of(each))
        seen = f"{first} to {last}" if last != first else first
        many = f"{processes} process{'es' * (processes != '1')}"
        rows = [(code, f"{cause}; {many}; {seen}"), ("  here", here), ("  owner", owner)]
        for name, value in (*rows, ("  cure", fix), ("", "")):
            if value or not name:
                table.add_row(name, Text(value))
    return table


def _in_cell(text: str) -> str:
    return visible(text).replace("|", "\\|")
