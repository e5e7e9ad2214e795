"""Reports of an audit: for a reader, for grep, for a program."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .findings import CERTAINTIES, Audit, Finding, Link

SHOWN = 7


def render(audit: Audit, how: str) -> str:
    """An audit in one of the formats."""
    if how == "json":
        return json.dumps(as_json(audit), indent=2) + "\n"
    if how == "github":
        return "".join(f"{line}\n" for line in _github(audit))
    lines = _concise(audit) if how == "concise" else _text(audit)
    return "".join(f"{line}\n" for line in (*lines, *_summary(audit)))


def as_json(audit: Audit) -> dict[str, Any]:
    """An audit as the published form, `"schema": 1`."""
    return {
        "schema": 1,
        "findings": [
            {**asdict(each), "chain": [asdict(link) for link in each.chain]}
            for each in audit.findings
        ],
        "skipped": [{"file": file, "reason": reason} for file, reason, _ in audit.skipped],
    }


def _concise(audit: Audit) -> Iterator[str]:
    for each in audit.findings:
        yield f"{each.file}:{each.line}: {each.code} {each.certainty}: {each.message}"


def _github(audit: Audit) -> Iterator[str]:
    """Annotations of a workflow's run: errors for what is proven, else warnings, else notices."""
    levels = {"proven": "error", "likely": "warning", "latent": "notice"}
    for each in audit.findings:
        where = f"file={each.file},line={each.line},title={each.code}"
        yield f"::{levels[each.certainty]} {where}::{each.message}; {each.reason}"


def _text(audit: Audit) -> Iterator[str]:
    latent = [each for each in audit.findings if each.certainty == "latent"]
    for each in audit.findings:
        if each.certainty != "latent":
            yield from _story(each)
            yield ""
    if latent:
        yield "latent: harmless as long as nothing calls them twice in one process"
        for each in latent:
            yield f"  {each.file}:{each.line}: {each.code}: {each.message}"
        yield ""


def _story(finding: Finding) -> Iterator[str]:
    yield f"{finding.certainty}[{finding.code}]: {finding.message}"
    for link in _folded(finding.chain):
        yield f"  {link}"
    thing = finding.object
    if thing is not None:
        yield f"  object {thing.file}:{thing.line} {thing.kind} `{thing.name}`"
    if finding.reason:
        yield f"  note: {finding.certainty}; {finding.reason}"
    for fix in finding.fixes[:2]:
        yield f"  help: {fix}: loopsentry explain {fix}"


def _folded(chain: tuple[Link, ...]) -> Iterator[str]:
    """A chain's steps; of a long one the middle is counted."""
    hidden = len(chain) - SHOWN
    for index, link in enumerate(chain):
        if hidden > 0 and index == SHOWN // 2:
            yield f"... {hidden + 1} more steps"
        if hidden > 0 and SHOWN // 2 <= index <= SHOWN // 2 + hidden:
            continue
        note = f"  {link.note}" if link.note else ""
        yield f"{link.file}:{link.line} {link.function}{note}"


def _summary(audit: Audit) -> Iterator[str]:
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
    for finding in audit.findings:
        counts[finding.certainty] += 1
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    yield (
        f"{told}; {audit.starts} starts of a loop and {audit.resources} shared objects"
        f" in {audit.files} files, {audit.lines} lines"
    )
