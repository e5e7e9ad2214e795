"""Every program in the documentation is run, and every output that it shows is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inner import Project

import loopsentry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Result, RunProgram

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts),
]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>python|text)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PART = re.compile(
    r"^<!-- file: (?P<name>[\w.]+) -->\n^```\w+\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
INSTALLS = re.compile(r"\b(install|LoopSentryMiddleware|diagnose)\(")
DEMO = "shown by: loopsentry demo"


@dataclass(frozen=True, slots=True)
class Example:
    """A program of a page, and what the page says that it does.

    Attributes:
        page: the page's path.
        line: where the program begins.
        code: the program.
        fails: the codes of its diagnoses.
        shown: the outputs that the page shows of it.
    """

    page: str
    line: int
    code: str
    fails: set[str]
    shown: tuple[str, ...]

    def __str__(self) -> str:
        """Name the place."""
        return f"{self.page}:{self.line}"


def find_examples(page: Path) -> Iterator[Example]:
    """Read the programs of a page; `<!-- shows -->` marks an output of the program before it."""
    text = page.read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    for position, block in enumerate(blocks):
        if block["language"] != "python" or (block["mark"] or "").startswith("file: "):
            continue
        shown = []
        for later in blocks[position + 1 :]:
            if later["language"] == "python":
                break
            if later["mark"] == "shows":
                shown.append(later["body"])
        yield Example(
            page=page.relative_to(ROOT).as_posix(),
            line=text.count("\n", 0, block.start("body")) + 1,
            code=block["body"],
            fails=set(re.findall(r"LS\d{3}", block["mark"] or "")),
            shown=tuple(shown),
        )


def find_files(page: Path) -> dict[str, str]:
    """Read the files of the test suite that a page shows; `<!-- file: NAME -->` names each."""
    return {part["name"]: part["body"] for part in PART.finditer(page.read_text("utf-8"))}


SUITES = {page.relative_to(ROOT).as_posix(): files for page in PAGES if (files := find_files(page))}
EXAMPLES = [example for page in PAGES for example in find_examples(page)]


def run_example(example: Example, run_program: RunProgram) -> Result:
    """Run a program by itself if it installs loopsentry, else under `loopsentry run`."""
    under = INSTALLS.search(example.code) is None
    env = {"LOOPSENTRY_REPORT": "report.jsonl"}
    if example.page.endswith("hangs.md"):
        env["LOOPSENTRY_WATCH"] = "1"
    return run_program(example.code, under=under, env=env)


def stands_in(shown: str, output: str) -> bool:
    """Whether an output has the shown lines, one below the other.

    `...` in a line stands for anything, and alone in a line for any lines.
    """
    lines = (line.rstrip() for line in shown.splitlines())
    patterns = (
        r"(?:[^\n]*\n)*?"
        if line.strip() == "..."
        else "[^\n]*".join(map(re.escape, line.split("..."))) + r"[ \t]*\n"
        for line in lines
    )
    return re.search("^" + "".join(patterns), output + "\n", re.MULTILINE) is not None


def test_a_shown_output_may_lack_no_line() -> None:
    """An output that has one line more in between, or another order, is not the shown one."""
    assert stands_in("a\nb ... d\n", "x\na\nb c d\ny")
    assert stands_in("a\n...\nd\n", "a\nb\nc\nd")
    assert not stands_in("a\nd\n", "a\nb\nd")
    assert not stands_in("b\na\n", "a\nb")
    assert not stands_in("a\n", "ab")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_program_does_what_its_page_says(example: Example, run_program: RunProgram) -> None:
    """A program is diagnosed with the codes its page names, else with none, and ends well."""
    for name in re.findall(r"^(?:from|import) (\w+)", example.code, re.MULTILINE):
        if util.find_spec(name) is None and name != "app":
            pytest.skip(f"{name} is not installed")
    ended = run_example(example, run_program)
    assert {record["code"] for record in ended.records} == example.fails, ended.output
    assert ended.returncode == 0 or example.fails, ended.output
    for shown in example.shown:
        assert stands_in(shown, ended.output), ended.output


@pytest.mark.parametrize("page", SUITES)
def test_suite_passes_as_its_page_says(page: str, tmp_path: Path, url: str) -> None:
    """The test suite that a page shows passes under pytest with the plugin, undiagnosed."""
    for package in ("fastapi", "httpx", "aiosqlite"):
        if any(package in text for text in SUITES[page].values()):
            pytest.importorskip(package)
    project = Project(tmp_path, url)
    project.write(SUITES[page])
    run = project.run("--strict-markers")
    assert run.returncode == 0, run.output
    assert run.outcomes().keys() <= {"passed", "warning"}, run.output
    assert run.records == []


def test_every_page_of_how_to_and_tutorial_has_a_program() -> None:
    """Guides show whole programs, so the search for them cannot silently find nothing."""
    pages = {example.page for example in EXAMPLES} | set(SUITES)
    guides = [page for page in PAGES if page.parent.name in ("how-to", "tutorial")]
    assert guides
    assert {page.relative_to(ROOT).as_posix() for page in guides} <= pages
    assert "README.md" in pages


def test_every_public_name_is_in_the_reference() -> None:
    """What `loopsentry` exports is described under the Python interface."""
    text = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    described = set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE))
    assert described == set(loopsentry.__all__)


def test_record_fields_are_all_described() -> None:
    """The page on the diagnosis record names exactly the fields that a record has."""
    from datetime import UTC, datetime

    from loopsentry.renderers.json import to_dict

    diagnosis = loopsentry.Diagnosis(
        id="1",
        version="0",
        time=datetime.now(UTC),
        pid=1,
        code="LS000",
        cause="undetermined",
        title="nothing",
        certainty="undetermined",
        severity="error",
        phase="use",
    )
    text = (ROOT / "docs" / "reference" / "record.md").read_text("utf-8")
    table = text.partition("## Fields")[2].partition("### Place")[0]
    names = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    described = [name for cell in names for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(described) == sorted(to_dict(diagnosis))


def test_readme_tells_the_commands_that_are_checked() -> None:
    """The two set-up commands stand alone in the README, and the test command is CI's own."""
    text = (ROOT / "README.md").read_text("utf-8")
    for command in ("pip install -e '.[demo]' && loopsentry demo", TESTS):
        assert f"\n```console\n{command}\n```\n" in text
    script = ROOT / ".ci" / "run"
    if script.exists():  # not in the source distribution
        assert f"\n{TESTS}\n" in script.read_text("utf-8")


TESTS = "pip install -e '.[test]' && pytest"


def test_readme_shows_what_the_demo_prints() -> None:
    """The message in the README is the one that `loopsentry demo` shows."""
    text = (ROOT / "README.md").read_text("utf-8")
    [shown] = [block["body"] for block in BLOCK.finditer(text) if block["mark"] == DEMO]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOOPSENTRY")}
    ended = subprocess.run(
        [sys.executable, "-m", "loopsentry", "demo"],
        env={**environment, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert stands_in(shown, ended.stdout), ended.stdout


def test_changelog_keeps_the_form() -> None:
    """The changelog has an unreleased part, and one for no version beyond the present one."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [loopsentry.__version__])
