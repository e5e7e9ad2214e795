"""The recipes of CONTRIBUTING.md, to the letter: one new file each, and nothing else edited."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
RECIPE = re.compile(
    r"^<!-- recipe: (?P<file>[\w./-]+) -->\n^```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
RECIPES = {
    found["file"]: found["text"].replace("~~~", "```")
    for found in RECIPE.finditer((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
}
SHELVES = {"causes", "fixes", "probes", "contexts", "sinks", "hooks"}

#: A library for the recipe's probe.
EXAMPLEDB = """
import asyncio

class Client:
    def __init__(self):
        self._loop = asyncio.get_running_loop()

    async def ask(self):
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("exampledb belongs to another loop")
"""
TWO_RUNS = """
import asyncio, sys
import exampledb, loopsentry

loopsentry.install()

async def make():
    return exampledb.Client()

async def ask(client):
    await client.ask()

client = asyncio.run(make())
try:
    asyncio.run(ask(client))
except RuntimeError as error:
    kept = error
"""
#: What each recipe's file leads to: a program's output, or the reader's command.
EFFECTS = {
    "causes": ("-m", "loopsentry", "explain", "LS599"),
    "fixes": ("-m", "loopsentry", "explain", "lock-per-run"),
    "probes": (
        "-c",
        f"{TWO_RUNS}\nfound = loopsentry.diagnose(kept)\nprint(found.code, found.object.label)",
    ),
    "contexts": (
        "-c",
        "from loopsentry import catalog; print([c.NAME for c in catalog.load_all().contexts])",
    ),
    "sinks": ("-c", f"{TWO_RUNS}\nimport logging\nlogging.exception('', exc_info=kept)"),
    "hooks": ("-c", f"{TWO_RUNS}\nsys.displayhook(kept)\nprint(kept.__notes__[0])"),
}
EXPECTED = {
    "causes": "the connection was ended while nobody used it",
    "fixes": "make the lock in the run that uses it",
    "probes": "LS101 exampledb client",
    "contexts": "'exampleserver'",
    "sinks": "",
    "hooks": "error[LS101]: exampledb client",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests, with the file of each recipe."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("loopsentry", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "corpus", "scenarios")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for file, text in RECIPES.items():
        assert not (folder / "loopsentry" / file).exists()
        (folder / "loopsentry" / file).write_text(text, "utf-8")
    package = folder / "exampledb"  # where an installed library lies
    package.mkdir()
    (package / "__init__.py").write_text(EXAMPLEDB, "utf-8")
    return folder


@pytest.fixture
def run_there(package: Path, dsn: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs Python in the copy."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(package),
            "LOOPSENTRY_TEST_URL": dsn,
            "LOOPSENTRY_COUNT": str(package / "count"),
        }
        environment.pop("PYTEST_ADDOPTS", None)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=package,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_each_shelf_has_its_recipe() -> None:
    """No shelf that is meant to grow is without a recipe."""
    assert {file.partition("/")[0] for file in RECIPES} == SHELVES == EFFECTS.keys()


@pytest.mark.parametrize("shelf", sorted(SHELVES))
def test_a_recipe_does_what_it_says(
    shelf: str, package: Path, run_there: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The new file is found by itself, and has its effect."""
    ended = run_there(*EFFECTS[shelf])
    assert ended.returncode == 0, ended.stderr
    assert EXPECTED[shelf] in " ".join(ended.stdout.split()), ended.stdout + ended.stderr
    if shelf == "sinks":
        assert (package / "count").read_text("utf-8") == "1"


def test_the_laws_hold_with_all_recipes(
    run_there: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """The tests of shelves, fixes and arrows pass with the new files, unedited."""
    files = ("tests/test_shelves.py", "tests/test_arrows.py", "tests/test_fixes.py")
    chosen = "not program or lock-per-run"
    ended = run_there("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", chosen, *files)
    assert ended.returncode == 0, textwrap.indent(ended.stdout[-5000:], "| ")
