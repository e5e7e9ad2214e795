"""Inner pytest runs, and the advice that they print: read out of the text, applied to the files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secrecy import assert_kept

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Folders with other versions of pytest-asyncio (`pip install --target FOLDER …`, FOLDER ending in
#: `site-packages`), apart by `os.pathsep`; the installed one is always tried.
FOLDERS = [
    Path(folder)
    for folder in os.environ.get("LOOPSENTRY_TEST_PYTEST_ASYNCIO", "").split(os.pathsep)
    if folder
]

# Two running loops that meet on one asyncpg connection can crash the interpreter.
CRASHES_BORNE = 3


@dataclass(frozen=True, slots=True)
class Run:
    """How an inner run ended.

    Attributes:
        returncode: pytest's exit status.
        output: what it printed.
        records: the diagnoses written to the report file.
    """

    returncode: int
    output: str
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sections(self) -> list[str]:
        """The text of each section `loopsentry` in the reports of failures."""
        found = re.findall(
            r"^-+ loopsentry -+\n(.*?)^  more: [^\n]*$", self.output, re.MULTILINE | re.DOTALL
        )
        return [str(text) for text in found]

    def outcomes(self) -> dict[str, int]:
        """The numbers of pytest's last line: passed, failed, error; warnings may come after it."""
        lines = self.output.splitlines()
        counting = (line for line in lines if re.search(r" in \d[\d.]*s\b", line))
        *_, last = "", *counting
        return {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", last)}


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with tests.

    Attributes:
        folder: where the files are.
        url: the database, as an SQLAlchemy URL.
        packages: a folder with another version of pytest-asyncio, None for the installed one.
    """

    folder: Path
    url: str
    packages: Path | None = None

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by their names."""
        for name, text in files.items():
            (self.folder / name).write_text(text.lstrip("\n"), "utf-8")

    def run(self, *args: str, env: Mapping[str, str] | None = None) -> Run:
        """Run pytest in the folder, in a process of its own."""
        report = self.folder / "records.jsonl"
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LOOPSENTRY", "PYTEST", "COV_"))
        }
        environment |= {
            "DATABASE_URL": self.url,
            "LOOPSENTRY_REPORT": str(report),
            "PYTHONWARNINGS": "ignore",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            **({"PYTHONPATH": str(self.packages)} if self.packages else {}),
            **(env or {}),
        }
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *args]
        for _ in range(CRASHES_BORNE):
            report.unlink(missing_ok=True)
            ended = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=60,
                check=False,
            )
            if ended.returncode >= 0:
                break
        told = report.read_text("utf-8") if report.exists() else ""
        assert_kept(ended.stdout, told, *map(_read, self.folder.glob("*.xml")))
        records = [json.loads(line) for line in told.splitlines()]
        return Run(ended.returncode, ended.stdout, records)


def _read(file: Path) -> str:
    return file.read_text("utf-8")


# the advice --------------------------------------------------------------------------------


def read_advice(section: str) -> list[tuple[str, list[str]]]:
    """Read the first help of a message: where, and which lines, as a reader would.

    Its one place stands in the title after `; in `, several stand above their lines after `# in `.
    """
    helps = re.split(r"^  help: ", section, flags=re.MULTILINE)[1]
    lines = helps.splitlines()
    title, code = lines[0], []
    for line in lines[1:]:
        if line.startswith(" " * 12) or not line.strip():
            code.append(line[12:])
        elif not code:
            title += f" {line.strip()}"
    if not any(line.startswith("# in ") for line in code):
        return [(title.partition("; in ")[2], code)]
    parts: list[tuple[str, list[str]]] = []
    for line in code:
        if line.startswith("# in "):
            parts.append((line.removeprefix("# in "), []))
        else:
            parts[-1][1].append(line)
    return parts


def follow(project: Project, section: str) -> None:
    """Do what the first help of a message says, to the letter."""
    # The last lines of a file first, so that the numbers of those before it stay right.
    parts = sorted(read_advice(section), key=lambda part: -_line_of(part[0]))
    for where, lines in parts:
        name, _, what = where.partition(", ")
        name = name.partition(":")[0]
        path = project.folder / name
        text = path.read_text("utf-8") if path.exists() else ""
        path.write_text(_changed(text, where, what, lines), "utf-8")


def _line_of(where: str) -> int:
    found = re.search(r":(\d+)", where)
    return int(found[1]) if found else 0


def _changed(text: str, where: str, what: str, lines: list[str]) -> str:
    block = "\n".join(lines)
    if what.startswith("["):
        return _with_settings(text, what, lines)
    if number := _line_of(where):
        assert len(lines) == 1, lines
        kept = text.splitlines()
        assert kept[number - 1].lstrip().startswith("@"), kept[number - 1]
        kept[number - 1] = _indent_of(kept[number - 1]) + lines[0]
        return "\n".join(kept) + "\n"
    if what.startswith("class ") and lines[0].startswith("@"):
        return re.sub(rf"^@.*\n(?={what})", f"{block}\n", text, flags=re.MULTILINE)
    if what.startswith("class "):
        method = "".join(f"    {line}\n" for line in lines)
        return re.sub(rf"^({what}.*\n)", rf"\g<1>{method}", text, flags=re.MULTILINE)
    if what == "the module":
        return re.sub(r"^pytestmark = .*$", block, text, flags=re.MULTILINE)
    return f"{text}\n\n{block}\n"


def _indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _with_settings(text: str, header: str, lines: list[str]) -> str:
    if header not in text:
        return f"{text}\n{header}\n" + "\n".join(lines) + "\n"
    for line in lines:
        name = line.partition(" ")[0]
        text = re.sub(rf"^{name}\b.*\n", "", text, flags=re.MULTILINE)
        text = text.replace(f"{header}\n", f"{header}\n{line}\n", 1)
    return text
