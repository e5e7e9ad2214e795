"""What a reader sees: source lines, colours on terminals, widths, and pytest's summary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import loopsentry
from loopsentry import story
from loopsentry.cli import cli
from loopsentry.model import Place

if TYPE_CHECKING:
    from pathlib import Path

LOCK = """
import asyncio

registry_lock = asyncio.Lock()


async def take():
    async with registry_lock:
        await asyncio.sleep(0)


async def both():
    result = await asyncio.gather(take(), take())
    return result


asyncio.run(both())
asyncio.run(both())
"""
ESCAPE = re.compile(r"\x1b(?:\[[\d;]*m|\]8;[^\x1b]*\x1b\\)")


def run_on_terminal(folder: Path, *command: str, columns: int = 120) -> str:
    """Run a command whose output is a terminal; return everything that it wrote there."""
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    try:
        leader, follower = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminal can be opened here")
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("NO_COLOR", "CI", "LOOPSENTRY", "PYTEST"))
    }
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**environment, "COLUMNS": str(columns), "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        written = b""
        while True:
            try:
                chunk = os.read(leader, 65_536)
            except OSError:  # Linux: everybody has closed it
                break
            if not chunk:
                break
            written += chunk
        process.wait(30)
    os.close(leader)
    return written.decode().replace("\r\n", "\n")


def test_a_terminal_shows_the_same_words_in_colour(tmp_path: Path) -> None:
    """On a terminal the note is coloured and has links; without those it is the plain one."""
    (tmp_path / "main.py").write_text(LOCK)
    seen = run_on_terminal(tmp_path, "-m", "loopsentry", "run", "main.py", columns=80)
    told = seen[seen.index("\x1b[1;31merror[LS104]") :]
    assert "\x1b[36m  here" in told
    assert "]8;id=" in told
    piped = subprocess.run(
        [sys.executable, "-m", "loopsentry", "run", "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "\x1b" not in piped.stderr
    assert ESCAPE.sub("", told).strip() in piped.stderr


def test_no_color_is_respected(tmp_path: Path) -> None:
    """With NO_COLOR a terminal gets no colour either."""
    (tmp_path / "main.py").write_text(f"import os\n{LOCK}")
    asked = "import os, runpy; os.environ['NO_COLOR'] = '1'"
    program = f"{asked}; import loopsentry; loopsentry.install(); runpy.run_path('main.py')"
    seen = run_on_terminal(tmp_path, "-c", program)
    assert "\nerror[LS104]" in seen
    assert "[1;31merror" not in seen


def test_another_hook_gets_plain_notes(tmp_path: Path) -> None:
    """A hook of somebody else's, which may send the note anywhere, gets it without colours."""
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "sys.excepthook = lambda kind, exc, tb: print(repr(exc.__notes__), flush=True)\n"
        "import loopsentry; loopsentry.install()\n" + LOCK
    )
    seen = run_on_terminal(tmp_path, "main.py")
    assert "error[LS104]" in seen
    assert "\\x1b" not in seen


def test_the_source_line_and_the_expression_are_shown(tmp_path: Path) -> None:
    """Under the place stands its line, and under that a mark where the expression is a part."""
    held = "got = await registry_lock.acquire()\n    registry_lock.release()\n"
    body = "async with registry_lock:\n        await asyncio.sleep(0)\n"
    assert body in LOCK
    (tmp_path / "main.py").write_text(
        LOCK.replace(body, held.replace("\n", "\n    await asyncio.sleep(0)\n", 1))
    )
    ended = subprocess.run(
        [sys.executable, "-m", "loopsentry", "run", "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = ended.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  here "))
    assert lines[at + 1 : at + 3] == [
        "       | got = await registry_lock.acquire()",
        "       |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ]
    assert "            registry_lock = asyncio.Lock()" in lines


def test_a_text_is_repeated_only_where_it_was_shortened() -> None:
    """What stands right above in full is not said again; asyncio's long text is, in short."""
    plain = RuntimeError("Event loop is closed")
    long = RuntimeError("Task <Task 1> got Future <Future 2> attached to a different loop")
    told = [
        [line.text for line in story.tell(loopsentry.diagnose(exc), beside=True)]
        for exc in (plain, long)
    ]
    assert not any("original:" in line for line in told[0])
    assert told[1][-1].startswith("  original: RuntimeError: Task ... got Future ... attached")


def test_columns_are_no_part_of_a_place() -> None:
    """Two uses of one line are one place, whichever expression of it was at work."""
    assert Place("a.py", 1, "f", (0, 4)) == Place("a.py", 1, "f", (9, 12))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_keep_to_the_width(width: int) -> None:
    """What can be broken is broken: only names, paths and snippets may be longer."""
    diagnosis = loopsentry.diagnose(
        RuntimeError("Event loop is closed, " + "and so on and on " * 20)
    )
    lines = story.tell(diagnosis, width=width)
    assert max(len(line.text) for line in lines if line.role != "code") <= width


def test_a_long_source_line_is_cut(tmp_path: Path) -> None:
    """A source line that is too long ends in dots, its mark without."""
    path = tmp_path / "long.py"
    path.write_text(f"x = call({'1, ' * 60})\n")
    shown = story._source(Place(str(path), 1, "<module>", (4, 180)))
    source, mark = (piece.text for line in shown for piece in story._fold(line, 80))
    assert len(source) <= 80
    assert source.endswith("...")
    assert mark == "       |     " + "^" * (77 - len("       |     "))


SUITE = """
import asyncio, pytest

lock = asyncio.Lock()

async def take():
    async with lock:
        await asyncio.sleep(0)

async def both():
    await asyncio.gather(take(), take())

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    asyncio.run(both())
"""


def run_suite(folder: Path, *options: str) -> str:
    """Run the suite under pytest with the plugin; return what pytest wrote."""
    (folder / "test_it.py").write_text(SUITE)
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("LOOPSENTRY", "PYTEST"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**bare, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


def test_one_mistake_in_many_tests_is_told_once(tmp_path: Path) -> None:
    """The first test has the whole story; each other one refers to it in a line."""
    shown = run_suite(tmp_path)
    assert shown.count("  more: loopsentry explain LS104") == 1
    assert (
        shown.count("error[LS104]: the same as in test_it.py::test_it[1]; here test_it.py:7") == 4
    )


def test_the_short_summary_names_the_cause(tmp_path: Path) -> None:
    """The last lines of pytest let one see which mistake it is."""
    summary = run_suite(tmp_path).split("short test summary info")[1]
    assert summary.count(" - LS104 foreign-primitive: RuntimeError: <asyncio.locks.Lock") == 5


def test_reports_of_other_plugins_stay_plain(tmp_path: Path) -> None:
    """Colours and the summary's words are put on for the terminal alone, not into JUnit's file."""
    run_suite(tmp_path, "--color=yes", "--junitxml=out.xml")
    told = (tmp_path / "out.xml").read_text()
    assert "error[LS104]" in told
    assert "[1;31m" not in told
    assert 'message="RuntimeError: ' in told


def test_pytest_shows_sections_in_colour(tmp_path: Path) -> None:
    """Where pytest writes in colour, so do our sections."""
    assert "\x1b[1;31merror[LS104]" in run_suite(tmp_path, "--color=yes")


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        (
            "another operation is in progress",
            'If "attached to a different loop" came before it: the connection was left in the',
        ),
        (
            "another operation is in progress",
            "If one loop: `gather`, a task group or two requests use one session or",
        ),
        ("LS103", "clean-up after the owning event loop ended, or on another one"),
        ("", "LS101 closed-loop connection of a closed event loop used on"),
    ],
)
def test_explanations_without_a_terminal_keep_what_marks_words(topic: str, line: str) -> None:
    """Piped, code stands in backticks and quoted words in quotes; titles and tables stay bare."""
    ended = CliRunner().invoke(cli, ["explain", *([topic] if topic else [])])
    assert ended.exit_code == 0
    assert line in [" ".join(each.split()) for each in ended.stdout.splitlines()]
