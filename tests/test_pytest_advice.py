"""Real test suites that cross event loops: the advice that pytest prints is followed, and cures.

Each suite is run in a pytest of its own. The advice is read out of the printed message, done to
the letter, and the suite is run again. `LOOPSENTRY_TEST_PYTEST_ASYNCIO` names folders with other
versions of pytest-asyncio to do the same with (see `inner.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from inner import FOLDERS, Project, follow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DB = """
import os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

def make_engine():
    return create_async_engine(os.environ["DATABASE_URL"])

async def select(engine, number):
    async with engine.connect() as connection:
        return await connection.scalar(text(f"select {number}"))
"""
HEAD = """
import pytest
import pytest_asyncio
from db import AsyncSession, make_engine, select, text
"""
TWO_TESTS = """
engine = make_engine()

async def test_one():
    assert await select(engine, 1) == 1

async def test_two():
    assert await select(engine, 2) == 2
"""
MARKED = HEAD + "pytestmark = pytest.mark.asyncio\n" + TWO_TESTS
AUTO = "[pytest]\nasyncio_mode = auto\n"


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that fails, and what the message has to name.

    Attributes:
        files: by name, beside `db.py`.
        says: what the message names: who opened the connection, who used it, the loops' scopes.
        since: the first version of pytest-asyncio that can run it.
        until: the last one for which a line of configuration cures it.
    """

    files: Mapping[str, str]
    says: tuple[str, ...]
    since: tuple[int, int] = (0, 23)
    until: tuple[int, int] = (99, 0)


SUITES = {
    "module engine": Suite(
        {"test_it.py": MARKED},
        (
            "here   db.py:10 select(), test_it.py::test_two",
            "owner  opened at db.py:9 select(), test_it.py::test_one",
            "scope function",
        ),
    ),
    "module engine, pyproject.toml": Suite(
        {
            "test_it.py": HEAD + TWO_TESTS,
            "pyproject.toml": '[tool.pytest.ini_options]\nasyncio_mode = "auto"\n',
        },
        ("test_one()",),
    ),
    "session fixture, function tests": Suite(
        {
            "conftest.py": HEAD
            + """
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine():
    engine = make_engine()
    await select(engine, 0)
    yield engine
    await engine.dispose()

@pytest_asyncio.fixture
async def session(engine):
    async with AsyncSession(engine) as session:
        yield session
""",
            "test_it.py": HEAD
            + """
@pytest.mark.asyncio
async def test_add(session):
    assert await session.scalar(text("select 1")) == 1
""",
        },
        ("test_add()", "fixture", "scope session", "scope function"),
        since=(0, 24),
    ),
    "set-up error of a function fixture": Suite(
        {
            "test_it.py": HEAD
            + """
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine():
    engine = make_engine()
    await select(engine, 0)
    yield engine
    await engine.dispose()

@pytest_asyncio.fixture(loop_scope="function")
async def filled(engine):
    return await select(engine, 2)

@pytest.mark.asyncio
async def test_filled(filled):
    assert filled == 2
""",
        },
        ("fixture filled", "fixture engine", "scope module", "scope function"),
        since=(0, 24),
    ),
    "tear-down error of a module fixture": Suite(
        {
            "pytest.ini": AUTO,
            "test_it.py": HEAD
            + """
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    engine = make_engine()
    session = AsyncSession(engine)
    yield session
    await session.close()
    await engine.dispose()

async def test_insert(session):
    assert await session.scalar(text("select 1")) == 1
""",
        },
        ("session(), fixture", "test_insert()", "scope module"),
        since=(0, 24),
    ),
    "tests that ask for scopes of their own": Suite(
        {
            "test_it.py": HEAD
            + """
engine = make_engine()

@pytest.mark.asyncio(loop_scope="function")
async def test_alone():
    assert await select(engine, 1) == 1

@pytest.mark.asyncio(loop_scope="class")
class TestTogether:
    async def test_inside(self):
        assert await select(engine, 2) == 2
""",
        },
        ("test_alone()", "test_inside()", "scope class", "scope function"),
        since=(0, 24),
    ),
    "modules that ask for a scope": Suite(
        {
            "test_first.py": HEAD
            + """
from engines import engine
pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_one():
    assert await select(engine, 1) == 1
""",
            "test_second.py": HEAD
            + """
from engines import engine
pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_two():
    assert await select(engine, 2) == 2
""",
            "engines.py": "from db import make_engine\nengine = make_engine()\n",
        },
        ("test_first.py", "test_second.py", "scope module", "engine `engine`, engines.py"),
        since=(0, 24),
    ),
    "session fixture of 0.23, marked tests": Suite(
        {
            "test_it.py": HEAD
            + """
@pytest_asyncio.fixture(scope="module")
async def engine():
    engine = make_engine()
    await select(engine, 0)
    yield engine
    await engine.dispose()

@pytest.mark.asyncio
async def test_one(engine):
    assert await select(engine, 1) == 1
""",
        },
        ("test_one()", "fixture", "scope module"),
        until=(0, 23),
    ),
}


def version_of(folder: Path | None) -> tuple[int, int]:
    """Tell the version of pytest-asyncio in a folder, or of the installed one."""
    if folder is None:
        text = metadata.version("pytest-asyncio")
    else:
        text = next(folder.glob("pytest_asyncio-*.dist-info")).name.split("-")[1]
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def name_of(folder: Path | None) -> str:
    """Name a parameter after the version."""
    return "pytest-asyncio {}.{}".format(*version_of(folder))


@pytest.mark.slow
@pytest.mark.parametrize("folder", [None, *FOLDERS], ids=name_of)
@pytest.mark.parametrize("name", SUITES)
def test_printed_advice_cures_a_suite_of_pytest_asyncio(
    name: str, folder: Path | None, tmp_path: Path, url: str
) -> None:
    """The message names who opened and who used it, and its first help makes the suite pass."""
    suite, version = SUITES[name], version_of(folder)
    if not suite.since <= version <= suite.until:
        pytest.skip(f"is for pytest-asyncio {suite.since} to {suite.until}")
    project = Project(tmp_path, url, folder)
    project.write({"db.py": DB, **suite.files})
    failing = project.run("-q")
    assert failing.returncode == 1, failing.output
    assert len(failing.sections) == 1, failing.output
    section = " ".join(failing.sections[0].split())
    for words in suite.says:
        assert " ".join(words.split()) in section
    follow(project, failing.sections[0])
    cured = project.run("-q")
    assert cured.returncode == 0, failing.sections[0] + cured.output
    assert cured.records == []


# other plugins, and clients ----------------------------------------------------------------

ANYIO = """
import pytest
from db import make_engine, select

pytestmark = pytest.mark.anyio
"""
OWN_BACKEND = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
APP = """
from db import make_engine, select
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

engine = make_engine()

async def get_agent(request):
    return PlainTextResponse(str(await select(engine, 7)))

app = Starlette(routes=[Route("/agent", get_agent)])
"""
CLIENT = """
import pytest
from shop import app
from starlette.testclient import TestClient
"""
OTHERS = {
    "anyio, with the plugin's backends": (
        {"test_it.py": ANYIO + TWO_TESTS},
        ("anyio's pytest plugin", "test_one()", "test_two()", "scope function"),
    ),
    "anyio, with a backend of its own": (
        {"test_it.py": ANYIO + OWN_BACKEND + TWO_TESTS},
        ("anyio's pytest plugin", "fixture anyio_backend"),
    ),
    "anyio, with a module fixture": (
        {
            "test_it.py": ANYIO
            + '\nengine = make_engine()\n\n@pytest.fixture(scope="module")\n'
            + "async def row(anyio_backend):\n    yield await select(engine, 1)\n\n"
            + "async def test_row(row):\n    assert await select(engine, 2) == 2\n",
            "test_next.py": ANYIO
            + "\nfrom test_it import engine\n\n"
            + "async def test_next():\n    assert await select(engine, 3) == 3\n",
        },
        ("fixture row", "scope module", "scope function"),
    ),
    "unittest": (
        {
            "test_it.py": "import unittest\nfrom db import make_engine, select\n"
            "engine = make_engine()\n\n"
            "class RepositoryTest(unittest.IsolatedAsyncioTestCase):\n"
            "    async def test_one(self):\n"
            "        self.assertEqual(await select(engine, 1), 1)\n\n"
            "    async def test_two(self):\n"
            "        self.assertEqual(await select(engine, 2), 2)\n",
        },
        ("IsolatedAsyncioTestCase in test_one()", "test_two()"),
    ),
    "client without a block": (
        {
            "shop.py": APP,
            "test_it.py": CLIENT
            + "\ndef test_first():\n    client = TestClient(app)\n"
            + '    assert client.get("/agent").text == "7"\n    assert client.get("/agent").text\n',
        },
        ("TestClient in test_first()", "here   db.py"),
    ),
    "client with a block for each test": (
        {
            "shop.py": APP,
            "test_it.py": CLIENT
            + "\ndef test_first():\n    with TestClient(app) as client:\n"
            + '        assert client.get("/agent").text == "7"\n'
            + "\ndef test_second():\n    with TestClient(app) as client:\n"
            + '        assert client.get("/agent").text == "7"\n',
        },
        ("test_it.py::test_first", "test_it.py::test_second"),
    ),
    "client in an async test": (
        {
            "shop.py": APP,
            "pytest.ini": AUTO,
            "test_it.py": CLIENT
            + "from db import select\nfrom httpx import ASGITransport, AsyncClient\n"
            + "from shop import engine\n\nasync def test_seeded():\n"
            + "    await select(engine, 1)\n    with TestClient(app) as client:\n"
            + '        assert client.get("/agent").text == "7"\n',
        },
        ("TestClient", "pytest-asyncio in test_seeded()", "scope function"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_printed_advice_cures_a_suite(name: str, tmp_path: Path, url: str) -> None:
    """Anyio's plugin, unittest and TestClient: the first help makes the suite pass."""
    files, says = OTHERS[name]
    project = Project(tmp_path, url)
    project.write({"db.py": DB, **files})
    # With the backend of trio, which is not there, anyio's own parameters would only be asyncio.
    failing = project.run("-q")
    assert failing.returncode == 1, failing.output
    assert failing.sections, failing.output
    for words in says:
        assert words in failing.sections[0]
    if "client" in name:
        follow_to_a_client(project, failing.sections[0])
    else:
        follow(project, failing.sections[0])
    cured = project.run("-q")
    assert cured.returncode == 0, failing.sections[0] + cured.output
    assert cured.records == []


def follow_to_a_client(project: Project, section: str) -> None:
    """Put the client that the message shows in place of the test's own."""
    path = project.folder / "test_it.py"
    text = path.read_text("utf-8")
    if "AsyncClient(" in section.split("help: ")[1]:
        shown = re.search(
            r"^ +async with AsyncClient\(.*?\) as client:$", section, re.MULTILINE | re.DOTALL
        )
        assert shown is not None
        block = " ".join(line.strip() for line in shown[0].splitlines())
        text = text.replace("with TestClient(app) as client:", block)
        path.write_text(re.sub(r"assert (client\.get\([^)]*\))", r"assert (await \1)", text))
        return
    closing = re.search(r"^ +(client\.portal\.call\((\w+)\.dispose\))$", section, re.MULTILINE)
    if closing is not None:
        block = r"( +assert client\.get.*\n)"
        text = re.sub(block, rf"\1        {closing[1]}\n", text)
        path.write_text(f"from shop import {closing[2]}\n{text}")
        return
    follow(project, section)
    lines = path.read_text("utf-8").splitlines()
    signature = lines.pop()
    fixture = "\n".join(lines[-6:])
    assert fixture.lstrip().startswith("@pytest.fixture")
    assert re.fullmatch(r"def (\w+)\(client\):", signature)
    text = re.sub(r"def (test_\w+)\(\):", r"def \1(client):", "\n".join(lines) + "\n")
    text = text.replace("    client = TestClient(app)\n", "")
    path.write_text(
        re.sub(r"    with TestClient\(app\) as client:\n        assert", "    assert", text)
    )
