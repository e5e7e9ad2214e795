"""Findings that a project has accepted, so that only new ones count."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from .findings import Audit


class BaselineError(ValueError):
    """A baseline that cannot be read; the message says what is wrong, and what to do."""


def write_baseline(audit: Audit, path: Path) -> None:
    """Write all findings of an audit as accepted, one line each, to be kept in the repository.

    A finding is known again by its code, the functions on its way and its object, wherever its
    lines move to.
    """
    accepted = [
        {"key": each.key, "code": each.code, "file": each.file, "message": each.message}
        for each in sorted(audit.findings, key=lambda each: (each.file, each.code, each.key))
    ]
    lines = ",\n".join(f"  {json.dumps(each)}" for each in accepted)
    path.write_text(f'{{"schema": 1, "accepted": [\n{lines}\n]}}\n', "utf-8")


def accept(audit: Audit, path: Path) -> Audit:
    """The same audit, whose findings that a baseline holds are marked as accepted.

    Raises:
        BaselineError: if the file cannot be read, or is no baseline.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        known = Counter(str(each["key"]) for each in data["accepted"])
    except OSError as exc:
        raise BaselineError(f"{path} cannot be read ({exc.strerror}); write it first") from None
    except (ValueError, KeyError, TypeError):
        advice = "write it anew with --write-baseline"
        raise BaselineError(f"{path} is no baseline of this audit; {advice}") from None
    marked = []
    for finding in audit.findings:
        accepted = known[finding.key] > 0
        known[finding.key] -= accepted
        marked.append(replace(finding, accepted=accepted))
    return replace(audit, findings=marked)
