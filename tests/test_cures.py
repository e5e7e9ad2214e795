"""Cures, applied: each failing scenario passes with the first cure that it was offered, as printed.

Beside `scenario.toml` stands `cure.toml`: the cure's name, and what to change in which file. What
the message prints has to be found in the cured program, line by line; only the names that a message
cannot know (`HOLES`) may read otherwise.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_scenarios import FAILING, PLACES, SCENARIOS, need, run

from loopsentry._variables import definition_of

if TYPE_CHECKING:
    from conftest import RunProgram

#: What a snippet says of the program without knowing it.
HOLES = (
    r"\.\.\.\"\)|\*tasks|make_client\(\)|load\(\w+\)|work\(\)|function|coroutine|plain_function|instance|owner_loop"
    r"|\b(?:dsn|url|path|rows|done|result|future|lock|connection|session|client|pool|task|main|app"
    r"|session_maker|Session|engine|error|runner)\b"
)
CURES = {name: PLACES[name].with_name("cure.toml") for name in FAILING}


def apply(cure: dict[str, Any], folder: Path) -> str:
    """Change the files of a program as its cure says; return all of the changed lines."""
    for change in cure.get("replace", ()):
        file = folder / change.get("file", "main.py")
        text = file.read_text("utf-8")
        assert text.count(change["old"]) == 1, f"{change['old']!r} is not there once"
        file.write_text(text.replace(change["old"], change["new"]), "utf-8")
    for made in cure.get("write", ()):
        (folder / made["file"]).write_text(made["text"], "utf-8")
    return "\n".join(each.read_text("utf-8") for each in folder.rglob("*.[pi]*") if each.is_file())


def missing_lines(snippet: str, program: str) -> list[str]:
    """The lines of a printed cure that a program does not have, and that are not for a case."""
    lines = [line.split("#")[0].rstrip() for line in snippet.splitlines() if "# if" not in line]
    lines = [line.strip() for line in lines if line.strip() not in ("", "...")]
    return [line for line in lines if not re.search(as_pattern(line), program, re.MULTILINE)]


def as_pattern(line: str) -> str:
    """A line as a pattern in which what it cannot know may be anything."""
    parts = re.split(f"({HOLES})", line)
    return ".+?".join(map(re.escape, parts[::2])) if len(parts) > 1 else re.escape(line)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_the_first_cure_makes_the_program_pass(name: str, tmp_path: Path, dsn: str) -> None:
    """A program that is changed as its first cure says ends well, and nothing is told of it."""
    need(name)
    cure = tomllib.loads(CURES[name].read_text("utf-8"))
    folder = tmp_path / name
    shutil.copytree(PLACES[name].parent, folder, ignore=shutil.ignore_patterns("*.toml", "__py*"))
    failed = run(name, dsn, folder / "told.jsonl", folder)
    assert failed.records, failed.output
    severity = SCENARIOS[name]["expect"].get("severity", "error")
    first = next(r for r in failed.records if severity in ("any", r["severity"]))["fixes"][0]
    assert first["id"] == cure["fix"]
    program = apply(cure, folder)
    assert missing_lines(first["snippet"], program) == []
    cured = run(name, dsn, folder / "told.jsonl", folder)
    assert cured.returncode == 0, cured.output
    # Whoever tries again has failed before.
    borne = {"server-disconnect"} if cure["fix"] == "retry-connection" else set()
    assert {each["cause"] for each in cured.records} <= borne, cured.output


def test_every_failing_scenario_has_its_cure() -> None:
    """No program that fails is left without one that passes."""
    ours = [name for name in FAILING if PLACES[name].is_relative_to(Path(__file__).parent)]
    assert [name for name in ours if not CURES[name].exists()] == []


# the reader's own words --------------------------------------------------------------------

KILLED = """
import asyncio, os
import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], **{options})

async def end(pid):
    admin = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
    await admin.execute("select pg_terminate_backend($1)", pid)
    await admin.close()
    await asyncio.sleep(0.2)

async def idle():
    async with engine.connect() as connection:
        pid = await connection.scalar(text("select pg_backend_pid()"))
    await end(pid)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))

async def between():
    async with engine.connect() as connection:
        await end(await connection.scalar(text("select pg_backend_pid()")))
        await connection.execute(text("select 1"))

async def commit():
    async with engine.begin() as connection:
        await end(await connection.scalar(text("select pg_backend_pid()")))

asyncio.run({function}())
"""


@pytest.mark.parametrize(
    ("function", "options", "again"),
    [
        ("idle", {}, False),
        ("between", {}, True),
        ("commit", {}, True),
        ("idle", {"isolation_level": "AUTOCOMMIT"}, False),
        ("between", {"pool_pre_ping": True}, True),
    ],
)
def test_a_pre_ping_is_offered_where_it_helps(
    function: str, options: dict[str, object], again: bool, run_program: RunProgram
) -> None:
    """What died idle in its pool wants a pre-ping, what died in a transaction another attempt."""
    ended = run_program(KILLED.format(function=function, options=options))
    (record,) = ended.records
    assert record["code"] == "LS501"
    snippet = record["fixes"][0]["snippet"]
    assert ("await work()" in snippet) == again
    assert ("pool_pre_ping=True" in snippet) != again


PRIMITIVE = """
import asyncio
from asyncio import *

{made}

async def use(it):
    {use}

async def main():
    await asyncio.gather(use(it), use(it))

asyncio.run(main())
asyncio.run(main())
"""
LOCKING = "async with it: await asyncio.sleep(0.01)"


@pytest.mark.parametrize(
    ("made", "use", "printed"),
    [
        ("it = asyncio.Lock()", LOCKING, "it = asyncio.Lock()"),
        ("it = asyncio.Semaphore(1)", LOCKING, "it = asyncio.Semaphore(1)"),
        ("it: Semaphore = BoundedSemaphore(value=1)", LOCKING, "it = BoundedSemaphore(value=1)"),
        ("a = it = asyncio.Semaphore(int('1'))", LOCKING, "a = asyncio.Semaphore(int(...))"),
        ("it = Semaphore(1) if __debug__ else None", LOCKING, "it = asyncio.Semaphore()"),
        ("it = Lock()\nit = asyncio.Lock()", LOCKING, "it = asyncio.Lock()"),
    ],
)
def test_a_primitive_is_made_as_the_program_makes_it(
    made: str, use: str, printed: str, run_program: RunProgram
) -> None:
    """The cure repeats the program's own call, and no string of it."""
    ended = run_program(PRIMITIVE.format(made=made, use=use))
    (record,) = ended.records
    assert record["code"] == "LS104"
    fix = next(fix for fix in record["fixes"] if fix["id"] == "create-in-loop")
    assert fix["snippet"].splitlines()[-1] == printed


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("c = Client('secret')", "Client(...)"),
        (
            "c = Client(f'secret {1}', b'secret', key='secret', size=3)",
            "Client(..., ..., key=..., size=3)",
        ),
        ("c = Client({'password': 'secret'})", "Client({...: ...})"),
        ("class A:\n    def __init__(self): self.c = Client()", "Client()"),
        ("c = None", None),
        ("c = Client(1)\nc = Client(2)", None),
        ("d = Client()", None),
        (f"c = Client({', '.join('abcdefghij' * 5)})", None),
        ("c = (", None),
        ("", None),
    ],
)
def test_a_definition_is_read_without_strings(
    source: str, made: str | None, tmp_path: Path
) -> None:
    """The one call that is assigned to a variable is found, and its strings are left out."""
    file = tmp_path / "module.py"
    file.write_text(source, "utf-8")
    assert definition_of("c", str(file)) == made
    assert definition_of("other.c", str(file)) == made
    assert definition_of("c", str(tmp_path / "not there.py")) is None
    assert definition_of("c", None) is None


RETURNED = """
import asyncio, os, sys
import asyncpg, psycopg
DSN = os.environ["DATABASE_URL"].replace("+asyncpg", "")

async def psycopg_alone():
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        return connection

async def psycopg_pooled():
    import psycopg_pool
    async with psycopg_pool.AsyncConnectionPool(DSN, min_size=1, open=False) as pool:
        async with pool.connection() as connection:
            await connection.close()
            return connection

async def asyncpg_pooled():
    async with asyncpg.create_pool(DSN, min_size=1) as pool:
        async with pool.acquire() as connection:
            return connection

async def main():
    connection = await globals()[sys.argv[1]]()
    await connection.execute("select 1")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("function", "block"),
    [
        ("psycopg_alone", "await psycopg.AsyncConnection.connect(dsn)"),
        ("psycopg_pooled", "pool.connection()"),
        ("asyncpg_pooled", "pool.acquire()"),
    ],
)
def test_a_connection_is_taken_as_its_driver_gives_it(
    function: str, block: str, run_program: RunProgram
) -> None:
    """What went back too early is to be kept in the block that this driver has for it."""
    if function == "psycopg_pooled":
        pytest.importorskip("psycopg_pool")
    ended = run_program(RETURNED, function)
    (record,) = ended.records
    assert record["code"] == "LS204"
    assert record["fixes"][0]["snippet"].startswith(f"async with {block} as connection:\n")
