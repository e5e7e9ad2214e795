"""`loopsentry doctor` and `loopsentry run COMMAND`, in interpreters of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import loopsentry


def run(*arguments: str, folder: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Run the command; give its status, its output and its errors."""
    ended = subprocess.run(
        [sys.executable, "-m", "loopsentry", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_the_doctor_tells_versions_and_drivers() -> None:
    """Versions of what matters, and the drivers that are watched, are listed; all is well."""
    status, shown, _ = run("doctor")
    assert status == 0
    lines = {line.split()[1]: line for line in shown.splitlines()}
    assert loopsentry.__version__ in lines["loopsentry"]
    for name in ("sqlalchemy", "asyncpg", "starlette"):
        assert metadata.version(name) in lines[name]
    assert "watched" in lines["asyncpg"]
    recorded = "ok" if hasattr(sys, "monitoring") else "missing"
    assert lines["sys.monitoring"].split()[0] == recorded


def test_the_doctor_sees_another_project_of_the_name(tmp_path: Path) -> None:
    """Where the other `loopsentry` is installed too, it says so, what to do, and exits with 1."""
    info = tmp_path / "loopsentry-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loopsentry\nVersion: 9.9\n")
    status, shown, _ = run("doctor", PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "wrong" in shown
    assert "pip uninstall loopsentry" in " ".join(shown.split())


def test_the_doctor_says_that_it_is_switched_off() -> None:
    """`LOOPSENTRY=off` is told, and so are the other variables."""
    _, shown, _ = run("doctor", LOOPSENTRY="off", LOOPSENTRY_VERBOSE="1")
    assert "install() does nothing" in shown
    assert "LOOPSENTRY_VERBOSE" in shown


COMMAND = """
import asyncio
import sys
from loopsentry.installation import current
def main():
    print(sys.argv[1:], current() is not None, __name__)
    return 3
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of installed packages, with a command."""
    (tmp_path / "shop.py").write_text(COMMAND, "utf-8")
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nshop-serve = shop:main\n")
    return tmp_path


def test_an_installed_command_is_run(installed: Path) -> None:
    """`loopsentry run shop-serve --port 1` runs the command, watched, with its exit status."""
    status, shown, _ = run("run", "shop-serve", "--port", "1", PYTHONPATH=str(installed))
    assert (status, shown) == (3, "['--port', '1'] True shop\n")


def test_a_file_comes_before_a_command(installed: Path, tmp_path: Path) -> None:
    """A script of the name in this folder is what is meant."""
    (tmp_path / "shop-serve").write_text("print('the file')", "utf-8")
    status, shown, _ = run("run", "shop-serve", folder=tmp_path, PYTHONPATH=str(installed))
    assert (status, shown) == (0, "the file\n")


def test_what_is_neither_is_told() -> None:
    """A name that is no file and no command is an error that says both."""
    status, _, told = run("run", "no-such-thing")
    assert status == 2
    assert "no such file, and no installed command" in told


def test_help_shows_how_programs_are_given() -> None:
    """`run --help` has the three ways, and `-V` the version."""
    _, shown, _ = run("run", "--help")
    for example in ("loopsentry run seed.py", "loopsentry run -m", "loopsentry run uvicorn"):
        assert example in shown
    assert loopsentry.__version__ in run("-V")[1]
