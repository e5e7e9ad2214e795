"""The audit's corpus: small projects, each found place by place, or rightly left alone.

A project is a text file: its main file, and further ones after `# file: path`. In those under
`found` a comment `# <- LSA101 proven` stands where a finding is reported, `# <- via` on the other
steps of its chain. Each has the package `app`, with the module `app.db` unless it brings its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loopsentry.audit.auditor import audit
from loopsentry.audit.findings import Finding

CORPUS = Path(__file__).parent / "corpus"
MAIN = "app/main.py"
DB = """\
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
engine = create_async_engine("postgresql+asyncpg://db/shop")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)
"""
MARK = re.compile(r"# <- (.*)$")


def write(folder: Path, case: Path) -> dict[str, str]:
    """Lay out a project; give its files."""
    head, *rest = re.split(r"^# file: (.*)\n", case.read_text("utf-8"), flags=re.MULTILINE)
    files = {"app/__init__.py": "", "app/db.py": DB, MAIN: head}
    files.update(zip(rest[::2], rest[1::2], strict=True))
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    return files


def marks_of(files: dict[str, str]) -> dict[tuple[str, int], str]:
    """What the comments of a project expect, by file and line."""
    return {
        (name, number): found[1]
        for name, source in files.items()
        for number, line in enumerate(source.splitlines(), 1)
        if (found := MARK.search(line))
    }


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
