"""Reports of an audit: for a reader, for grep, for a program."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from loopsentry import catalog

from .auditor import load_rules
from .findings import CERTAINTIES, Audit, Finding, Link, source_line
from .sarif import as_sarif

SHOWN = 7
#: A piece of a report: what it is, which decides about its colour, and its text.
Line = tuple[str, str]
_PASSWORD = re.compile(r"(://[^:/@\s\"']*):[^@\s\"']+@")


def render(audit: Audit, how: str) -> str:
    """An audit in one of the formats."""
    if how == "json":
        return json.dumps(as_json(audit), indent=2) + "\n"
    if how == "sarif":
        return json.dumps(as_sarif(audit, load_rules()), indent=2) + "\n"
    if how == "github":
        return "".join(f"{line}\n" for line in _github(audit))
    lines = _concise(audit) if how == "concise" else (text for _, text in tell(audit))
    return "".join(f"{line}\n" for line in (*lines, *summarise(audit)))


def as_json(audit: Audit) -> dict[str, Any]:
    """An audit as the published form, `"schema": 1`."""
    return {
        "schema": 1,
        "findings": [{**asdict(each), "key": each.key} for each in audit.findings],
        "skipped": [{"file": file, "reason": reason} for file, reason, _ in audit.skipped],
    }


def _concise(audit: Audit) -> Iterator[str]:
    for each in _new(audit):
        yield f"{each.file}:{each.line}: {each.code} {each.certainty}: {each.message}"


def _github(audit: Audit) -> Iterator[str]:
    """Annotations of a workflow's run: errors for what is proven, else warnings, else notices."""
    levels = {"proven": "error", "likely": "warning", "latent": "notice"}
    for each in _new(audit):
        where = f"file={each.file},line={each.line},title={each.code}"
        yield f"::{levels[each.certainty]} {where}::{each.message}; {each.reason}"


def _new(audit: Audit) -> list[Finding]:
    """The findings that no baseline holds."""
    return [each for each in audit.findings if not each.accepted]


def tell(audit: Audit) -> Iterator[Line]:
    """An audit for a reader: what is wrong, both loops' ways through the source, and the cures."""
    for first, *others in _at_one_place(_sure(audit)):
        yield from _story(audit.root, first)
        if others:
            yield "head", f"  and {len(others)} more at the same place"
        for each in others:
            place = f"{each.file}:{each.line}  {_start_of(each).function}"
            yield "place", f"    {place}  {each.certainty}"
        yield "", ""
    latent = [each for each in _new(audit) if each.certainty == "latent"]
    if latent:
        yield "head", "latent: harmless as long as nothing calls them twice in one process"
        for first, *others in _at_one_place(latent):
            more = f"; and {len(others)} more at the same place" if others else ""
            yield "place", f"  {first.file}:{first.line}: {first.code}: {first.message}{more}"
        yield "", ""


def _sure(audit: Audit) -> list[Finding]:
    """The findings that are more than latent."""
    return [each for each in _new(audit) if each.certainty != "latent"]


def _at_one_place(findings: list[Finding]) -> list[list[Finding]]:
    """Findings, those of one rule at one object together, the surest first."""
    groups: dict[tuple[str, object], list[Finding]] = {}
    for each in findings:
        place = each.object if each.object is not None else (each.file, each.line)
        groups.setdefault((each.code, place), []).append(each)
    return [*groups.values()]


def _start_of(finding: Finding) -> Link:
    """The step at which a finding's loop is started."""
    here = (finding.file, finding.line)
    return next(
        (each for each in finding.chain if (each.file, each.line) == here), finding.chain[0]
    )


def _story(root: Path, finding: Finding) -> Iterator[Line]:
    yield finding.certainty, f"{finding.certainty}[{finding.code}]: {finding.message}"
    yield "head", "  one loop" if finding.other else "  how"
    yield from _way(root, finding.chain)
    if finding.other:
        yield "head", "  the other loop"
        yield from _way(root, finding.other)
    thing = finding.object
    if thing is not None:
        yield "head", f"  where they meet: {thing.kind} `{thing.name}`"
        yield from _way(root, (Link(thing.file, thing.line, "", ""),))
    if finding.reason:
        yield "note", f"  note: {finding.certainty}; {finding.reason}"
    for fix in finding.fixes[:2]:
        yield "help", f"  help: {_titles()[fix]} (loopsentry explain {fix})"


def _way(root: Path, chain: tuple[Link, ...]) -> Iterator[Line]:
    """A chain's steps, each with its line of source; of a long one the middle is counted."""
    hidden = len(chain) - SHOWN
    for index, link in enumerate(chain):
        if hidden > 0 and index == SHOWN // 2:
            yield "place", f"    ... {hidden + 1} more steps"
        if hidden > 0 and SHOWN // 2 <= index <= SHOWN // 2 + hidden:
            continue
        what = "  ".join(part for part in (link.function, link.note) if part)
        yield "place", f"    {link.file}:{link.line}  {what}".rstrip()
        source = _source(root / link.file, link.line)
        if source:
            yield "source", f"      | {source}"


@cache
def _titles() -> dict[str, str]:
    return {fix.id: fix.title for fix in catalog.load_fixes()}


def _source(path: Path, line: int) -> str:
    """A line of source, without what is before its `@` in a URL; "" if it cannot be read."""
    return _PASSWORD.sub(r"\1:***@", source_line(path, line).strip())[:160]


def summarise(audit: Audit) -> Iterator[str]:
    """What was read and found, in numbers."""
    for file, reason, _ in audit.skipped:
        yield f"not read: {file}: {reason}"
    newer = sum(1 for *_, may_be_newer in audit.skipped if may_be_newer)
    if newer:
        version = platform.python_version()
        yield (
            f"warning: {newer} files are no Python {version}; a newer one may read them:"
            " uvx --python 3.14 --from sqlalchemy-loopsentry loopsentry audit"
        )
    counts = dict.fromkeys(CERTAINTIES, 0)
    for finding in _new(audit):
        counts[finding.certainty] += 1
    accepted = len(audit.findings) - len(_new(audit))
    if accepted:
        yield f"{accepted} more are in the baseline"
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    yield (
        f"{told}; {audit.starts} starts of a loop and {audit.resources} shared objects"
        f" in {audit.files} files, {audit.lines} lines"
    )
