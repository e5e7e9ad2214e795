"""The drivers of MySQL under SQLAlchemy, on a real MariaDB."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import mysql
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Result, RunProgram

DRIVERS = ("aiomysql", "asyncmy")

PROGRAM = """
import asyncio, os, sys
import loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
url = os.environ["MYSQL"].replace("mysql", "mysql+" + sys.argv[1], 1)
engine = create_async_engine(url, pool_size=1, max_overflow=0)
async def use():
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))
async def share():
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await connection.commit()
        one, two = await raw.cursor(), await raw.cursor()
        async def ask(cursor): await cursor.execute("select sleep(0.2)")
        await asyncio.gather(ask(one), ask(two))
def first(): print(asyncio.run(use()))
def second(): print(asyncio.run(share() if sys.argv[3] == "share" else use()))
loopsentry.install(on_mismatch=sys.argv[2])
try:
    if sys.argv[3] != "share": first()
    second()
except Exception as exc:
    told = loopsentry.diagnose(exc)
    starters = [l and l.started_by and l.started_by.function for l in (told.owner_loop, told.current_loop)]
    print(type(exc).__name__, told.code, told.certainty, *starters, told.engine and told.engine.driver)
"""  # noqa: E501 - a program


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give the URL of a MariaDB that lives as long as this module's tests."""
    found = mysql.find()
    if found is None:
        pytest.skip("no mariadbd: install the system's package mariadb-server")
    with mysql.running(*found) as url:
        yield url


def run(run_program: RunProgram, server: str, *args: str) -> Result:
    """Run the program with a driver, in a mode."""
    if importlib.util.find_spec(args[0]) is None:
        pytest.skip(f"{args[0]} is not installed")
    ended = run_program(PROGRAM, *args, env={"MYSQL": server}, under=False)
    assert ended.returncode == 0, ended.output
    assert "loopsentry failed" not in ended.output
    return ended


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_crossing_is_proven(run_program: RunProgram, server: str, driver: str) -> None:
    """Both loops are known, with who started them, from the birth that was recorded."""
    ended = run(run_program, server, driver, "annotate", "cross")
    first, second = ended.stdout.splitlines()[:2]
    assert first == "1"
    assert second.split()[1:] == ["LS101", "proven", "first", "second", driver], ended.output


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_crossing_is_stopped(run_program: RunProgram, server: str, driver: str) -> None:
    """In mode raise the connection is refused before anything is sent on it."""
    line = run(run_program, server, driver, "raise", "cross").stdout.splitlines()[1]
    assert line == f"LoopMismatchError LS101 proven first second {driver}"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_crossing_is_healed(run_program: RunProgram, server: str, driver: str) -> None:
    """In mode reconnect the second run gets a new connection, and the program its answer."""
    assert run(run_program, server, driver, "reconnect", "cross").stdout.split() == ["1", "1"]


def test_sharing_in_one_loop_is_told_apart(run_program: RunProgram, server: str) -> None:
    """Two tasks on one of aiomysql's connections are no crossing; asyncmy's would wait for ever."""
    line = run(run_program, server, "aiomysql", "annotate", "share").stdout.splitlines()[-1]
    name, code, certainty, *_ = line.split()
    # Likely where the engine's own rollback, at the end of the block, meets what still runs.
    assert (name, code) == ("RuntimeError", "LS201")
    assert certainty in ("proven", "likely")
