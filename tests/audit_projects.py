"""Small projects for the audit, kept as text files under `corpus`.

A project is a text file: its main file, and further ones after `# file: path`. In those under
`found` a comment `# <- LSA101 proven` stands where a finding is reported, `# <- via` on the other
steps of its chain. Each has the package `app`, with the module `app.db` unless it brings its own.
"""

from __future__ import annotations

import re
from pathlib import Path

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


def lay_out(folder: Path, name: str) -> Path:
    """Lay out the corpus' project of a name that has a mistake; give its folder."""
    write(folder, CORPUS / "found" / f"{name}.txt")
    return folder
