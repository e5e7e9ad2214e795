"""SQLAlchemy imported by the program only after loopsentry was put in, under pytest and without."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from inner import Project

if TYPE_CHECKING:
    from pathlib import Path

#: As the fixture or the function of a test makes an application.
SHOP = """
import os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])

async def select_one():
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))
"""
ALONE = """
import asyncio, os, sys
import asyncpg

async def connect_twice():
    dsn = os.environ["DATABASE_URL"].replace("+asyncpg", "")
    connection = await asyncpg.connect(dsn)
    try:
        await asyncio.gather(connection.fetchval("select 1"), connection.fetchval("select 2"))
    finally:
        await connection.close()

def test_refused():
    asyncio.run(connect_twice())

def test_imported():
    assert not [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]
"""
HEAD = """
import asyncio
import asyncpg, pytest
"""
PLACES = {
    "fixture": """
@pytest.fixture(scope="session")
def select_one():
    from shop import select_one
    return select_one

def test_first(select_one):
    asyncio.run(select_one())

def test_second(select_one):
    asyncio.run(select_one())
""",
    "test": """
def test_first():
    from shop import select_one
    asyncio.run(select_one())

def test_second():
    from shop import select_one
    asyncio.run(select_one())
""",
    "later module": """
def test_nothing():
    assert asyncpg
""",
}
LATER = """
import asyncio
from shop import select_one

def test_first():
    asyncio.run(select_one())

def test_second():
    asyncio.run(select_one())
"""
HEARS_STARTS = sys.version_info >= (3, 12)


@pytest.fixture
def project(tmp_path: Path, url: str) -> Project:
    """Give an empty project."""
    return Project(tmp_path, url)


def test_a_suite_of_asyncpg_alone_imports_no_sqlalchemy(project: Project) -> None:
    """A mistake with asyncpg is explained, and SQLAlchemy is not imported for it."""
    project.write({"test_it.py": ALONE})
    run = project.run("-p", "no:asyncio", "-p", "no:anyio")
    assert run.outcomes() == {"passed": 1, "failed": 1}, run.output
    assert [record["code"] for record in run.records] == ["LS201"]


@pytest.mark.parametrize("place", PLACES)
def test_sqlalchemy_that_comes_late_is_listened_to(project: Project, place: str) -> None:
    """Wherever a suite imports it, a crossing names where the connection was opened."""
    files = {"shop.py": SHOP, "test_it.py": HEAD + PLACES[place]}
    if place == "later module":
        files["test_later.py"] = LATER
    project.write(files)
    run = project.run()
    (record,) = run.records
    assert record["code"] == "LS101"
    assert record["certainty"] == "proven"
    if place != "test" or HEARS_STARTS:  # else only the test after the import's is known
        assert record["object"]["opened_at"]["function"] == "select_one", record["object"]


@pytest.mark.parametrize("mode", ["raise", "reconnect"])
def test_a_mode_holds_for_engines_that_come_late(project: Project, mode: str) -> None:
    """Engines of a module that a fixture imports are guarded as the ini file says."""
    ini = f"[pytest]\nloopsentry_on_mismatch = {mode}\n"
    project.write({"shop.py": SHOP, "test_it.py": HEAD + PLACES["fixture"], "pytest.ini": ini})
    run = project.run()
    expected = {"passed": 1, "failed": 1} if mode == "raise" else {"passed": 2}
    assert run.outcomes() == expected, run.output
    assert ("LoopMismatchError" in run.output) == (mode == "raise")


def test_pools_that_come_late_are_watched_for_crossings(project: Project) -> None:
    """`loopsentry_fail_on` fails the test whose engine a fixture has imported."""
    pytest.importorskip("aiosqlite")
    shop = SHOP.replace('os.environ["DATABASE_URL"]', '"sqlite+aiosqlite:///shop.db"')
    ini = "[pytest]\nloopsentry_fail_on = LS101\n"
    project.write({"shop.py": shop, "test_it.py": HEAD + PLACES["fixture"], "pytest.ini": ini})
    run = project.run()
    assert "FAILED test_it.py::test_second" in run.output, run.output
    assert "aiosqlite survives this; asyncpg would fail here" in run.output


def test_install_in_a_conftest_file_listens_to_sqlalchemy_at_once(project: Project) -> None:
    """What calls `install()` has SQLAlchemy listened to before anything else imports it."""
    files = {
        "conftest.py": "import loopsentry\nloopsentry.install()\n",
        "shop.py": SHOP,
        "test_it.py": HEAD + PLACES["test"],
    }
    project.write(files)
    run = project.run()
    (record,) = run.records
    assert record["object"]["opened_at"]["function"] == "select_one"
