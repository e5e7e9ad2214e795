"""The audit's corpus: small projects, each found place by place, or rightly left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_projects import CORPUS, marks_of, write

from loopsentry.audit.auditor import audit
from loopsentry.audit.findings import Finding


def told(folder: Path) -> list[Finding]:
    """The findings of a project that are more than latent."""
    return [each for each in audit([folder]).findings if each.certainty != "latent"]


@pytest.mark.parametrize("case", sorted((CORPUS / "found").iterdir()), ids=lambda path: path.stem)
def test_each_mistake_is_found_where_it_stands(tmp_path: Path, case: Path) -> None:
    """The findings, their certainty and each step of their chains are those that are marked."""
    files = write(tmp_path, case)
    marked = marks_of(files)
    found = told(tmp_path)
    expected = {
        (place, word)
        for place, words in marked.items()
        for word in words.split(", ")
        if word != "via"
    }
    assert expected
    assert {((f.file, f.line), f"{f.code} {f.certainty}") for f in found} == expected
    steps = {(link.file, link.line) for each in found for link in each.chain}
    unmarked = {step for step in steps if step not in marked and step[0] != "app/db.py"}
    assert not unmarked
    assert {place for place, words in marked.items() if words == "via"} <= steps


@pytest.mark.parametrize("case", sorted((CORPUS / "silent").iterdir()), ids=lambda path: path.stem)
def test_each_look_alike_is_left_alone(tmp_path: Path, case: Path) -> None:
    """Nothing that is proven or likely is said of what only looks like a mistake."""
    write(tmp_path, case)
    assert [(each.code, each.line, each.reason) for each in told(tmp_path)] == []
