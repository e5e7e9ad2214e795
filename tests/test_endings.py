"""Who ended a connection: the program at work, the program before, or the server."""

from __future__ import annotations

import json

import pytest
from conftest import RunProgram

BEGINNING = """
import asyncio, json, os
import aiosqlite, asyncpg, psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
import loopsentry

DSN = os.environ["SCENARIO_DSN"]
engine = create_async_engine(os.environ["DATABASE_URL"])
Session = async_sessionmaker(engine)
Q = "select pg_sleep(1)"

async def start(work):
    task = asyncio.create_task(work)
    await asyncio.sleep(0.05)
    return task

async def kill(pid):
    other = await asyncpg.connect(DSN)
    await other.execute(f"select pg_terminate_backend({pid})")
    await other.close()
    await asyncio.sleep(0.1)
"""

#: What each program does, and the one cause it may be told.
CASES = {
    "LS202": {
        "close": (
            "c = await asyncpg.connect(DSN); t = await start(c.fetch(Q))\nawait c.close()\nawait t"
        ),
        "terminate": (
            "c = await asyncpg.connect(DSN); t = await start(c.execute(Q))\nc.terminate()\nawait t"
        ),
        "pool terminated": (
            "p = await asyncpg.create_pool(DSN, min_size=1); t = await start(p.fetch(Q))\n"
            "p.terminate()\nawait t"
        ),
        "release": (
            "p = await asyncpg.create_pool(DSN, min_size=1); c = await p.acquire()\n"
            "t = await start(c.fetch(Q))\nawait p.release(c)\nawait t"
        ),
        "pool's block": (
            "p = await asyncpg.create_pool(DSN, min_size=1)\n"
            "async with p.acquire() as c: t = await start(c.fetch(Q))\nawait t"
        ),
        "psycopg": (
            "c = await psycopg.AsyncConnection.connect(DSN); t = await start(c.execute(Q))\n"
            "await c.close()\nawait t"
        ),
        "session": ("s = Session(); t = await start(s.execute(text(Q)))\nawait s.close()\nawait t"),
        "session's block": (
            "async with Session() as s: t = await start(s.execute(text(Q)))\nawait t"
        ),
        "connection's block": (
            "async with engine.connect() as c: t = await start(c.execute(text(Q)))\nawait t"
        ),
        "transaction's block": (
            "async with engine.begin() as c: t = await start(c.execute(text(Q)))\nawait t"
        ),
        "session's transaction": (
            "async with Session.begin() as s: t = await start(s.execute(text(Q)))\nawait t"
        ),
        "rollback": (
            "s = Session(); t = await start(s.execute(text(Q)))\nawait s.rollback()\nawait t"
        ),
    },
    "LS203": {
        f"{name}, {then}": (
            f"{opened}; t = await start(c.execute({words}))\nt.cancel()\nawait {then}\nawait t"
        )
        for name, opened, words, calls in (
            ("session", "c = Session()", "text(Q)", ("c.execute(text(Q))", "c.commit()")),
            ("connection", "c = await engine.connect()", "text(Q)", ("c.execute(text(Q))",)),
            ("asyncpg", "c = await asyncpg.connect(DSN)", "Q", ("c.execute(Q)", "c.fetch(Q)")),
        )
        for then in calls
    },
    "LS204": {
        "closed": "c = await asyncpg.connect(DSN)\nawait c.close()\nawait c.fetch(Q)",
        "closed pool": "c = await asyncpg.create_pool(DSN)\nawait c.close()\nawait c.fetch(Q)",
        "aiosqlite": (
            "async with aiosqlite.connect(':memory:') as c: pass\nawait c.execute('select 1')"
        ),
        "attribute": (
            "class Store:\n"
            "    async def open(self): self.c = await asyncpg.connect(DSN)\n"
            "    async def count(self): return await self.c.fetchval('select 1')\n"
            "s = Store(); await s.open()\nawait s.c.close()\nawait s.count()"
        ),
        "released": (
            "p = await asyncpg.create_pool(DSN, min_size=1)\n"
            "async with p.acquire() as c: pass\nawait c.fetch(Q)"
        ),
        "statement": (
            "p = await asyncpg.create_pool(DSN, min_size=1)\n"
            "async with p.acquire() as c: prepared = await c.prepare(Q)\nawait prepared.fetch()"
        ),
        "cursor": (
            "c = await asyncpg.connect(DSN)\n"
            "async with c.transaction(): cursor = await c.cursor('select 1')\n"
            "await cursor.fetch(1)"
        ),
        "connection": "async with engine.connect() as c: pass\nawait c.execute(text(Q))",
        "result": (
            "async with engine.connect() as c:\n"
            "    r = await c.stream(text('select generate_series(1, 9999)'))\n"
            "async for _ in r: pass"
        ),
        "transaction": (
            "async with engine.begin() as c:\n    await c.commit()\n    await c.execute(text(Q))"
        ),
        "session's transaction": (
            "async with Session() as s, s.begin():\n"
            "    await s.commit()\n    await s.execute(text(Q))"
        ),
        "session's transaction, after another task": (
            "async with Session() as s, s.begin():\n"
            "    await (await start(s.execute(text('select 1'))))\n"
            "    await s.commit()\n    await s.execute(text(Q))"
        ),
        "session": (
            "s = AsyncSession(engine, close_resets_only=False)\nawait s.close()\n"
            "await s.execute(text(Q))"
        ),
    },
    "LS501": {
        "idle": (
            "c = await asyncpg.connect(DSN); await kill(c.get_server_pid())\nawait c.fetch(Q)"
        ),
        "tidied up": (
            "c = await asyncpg.connect(DSN); t = await start(c.fetch(Q))\n"
            "await kill(c.get_server_pid())\ntry: await t\nfinally: c.terminate()"
        ),
        "within the pool's block": (
            "p = await asyncpg.create_pool(DSN, min_size=1)\n"
            "async with p.acquire() as c:\n"
            "    await kill(c.get_server_pid())\n"
            "    try: await c.fetch(Q)\n    except KeyError: pass"
        ),
        "pooled": (
            "async with engine.connect() as c:\n"
            "    pid = await c.scalar(text('select pg_backend_pid()'))\n"
            "await kill(pid)\nasync with engine.connect() as c: await c.execute(text(Q))"
        ),
        "session": (
            "async with Session() as s:\n"
            "    await kill(await s.scalar(text('select pg_backend_pid()')))\n"
            "    await s.execute(text(Q))"
        ),
    },
    None: {
        "begun twice": (
            "async with Session() as s:\n    await s.execute(text('select 1'))\n"
            "    async with s.begin(): pass"
        ),
        "begun twice, after another task": (
            "async with Session() as s:\n"
            "    await (await start(s.execute(text('select 1'))))\n"
            "    async with s.begin(): pass"
        ),
        "flushed in a flush": (
            "from sqlalchemy import Column, Integer, MetaData, Table, event\n"
            "from sqlalchemy.orm import registry\n"
            "mapped = type('Mapped', (), {})\n"
            "columns = Column('id', Integer, primary_key=True)\n"
            "registry().map_imperatively(mapped, Table('t', MetaData(), columns))\n"
            "s = Session(); event.listen(s.sync_session, 'after_flush', lambda s, _: s.flush())\n"
            "s.add(mapped(id=1))\n"
            "await s.execute(text('create temp table t (id int)'))\n"
            "try: await s.flush()\nfinally: await s.close()"
        ),
        "statement cancelled by somebody": (
            "c = await asyncpg.connect(DSN); t = await start(c.fetch(Q))\n"
            "d = await asyncpg.connect(DSN)\n"
            "await d.execute(f'select pg_cancel_backend({c.get_server_pid()})')\n"
            "try: await t\nfinally: await c.close(); await d.close()"
        ),
        "cursor without a transaction": (
            "c = await asyncpg.connect(DSN)\ntry: await c.cursor('select 1')\n"
            "finally: await c.close()"
        ),
    },
}

END = """
told, current = {}, [None]
loopsentry.subscribe(lambda diagnosis: told[current[0]].append(diagnosis.code))
loop_of = {}
for name, case in cases.items():
    current[0], told[name] = name, []
    async def main():
        try: await case()
        finally: await engine.dispose()
    try: asyncio.run(main())
    except Exception as exc:
        found = loopsentry.diagnose(exc)
        if found.cause != "undetermined": told[name].append(found.code)
print(json.dumps(told))
"""


@pytest.mark.parametrize("code", CASES)
def test_who_ended_a_connection_is_told(run_program: RunProgram, code: str | None) -> None:
    """Closed at work, used after that, lost to the server or none of these, and nothing else."""
    text = BEGINNING + "cases = {}\n"
    for number, (name, body) in enumerate(CASES[code].items()):
        lines = body.replace("\n", "\n    ")
        text += f"async def case_{number}():\n    {lines}\ncases[{name!r}] = case_{number}\n"
    ended = run_program(text + END)
    assert ended.returncode == 0, ended.stderr
    told = {name: sorted(set(found)) for name, found in json.loads(ended.stdout).items()}
    assert told == {name: [code] if code else [] for name in CASES[code]}


IDLE = """
import asyncio, json, os
import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry

loopsentry.install()
DSN = os.environ["SCENARIO_DSN"]
engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://"))
told = []
async def main():
    for _ in range(60):
        try:
            async with engine.connect() as connection:
                pid = await connection.scalar(text("select pg_backend_pid()"))
                other = await asyncpg.connect(DSN)
                await other.execute("select pg_terminate_backend($1)", pid)
                await other.close()
                await connection.execute(text("select 1"))
        except Exception as exc:
            found = loopsentry.diagnose(exc)
            words = "switch" if "cannot switch to state" in str(exc) else "other"
            told.append([words, found.code, found.certainty])
    await engine.dispose()
asyncio.run(main())
print(json.dumps(told))
"""


def test_an_idle_connection_that_the_server_ends_is_told_whatever_asyncpg_says(
    run_program: RunProgram,
) -> None:
    """`cannot switch to state 11; another operation (2) is in progress` is no other operation."""
    ended = run_program(IDLE)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert {(code, certainty) for _, code, certainty in told} == {("LS501", "proven")}
    if not any(words == "switch" for words, *_ in told):
        pytest.skip("the end was always noticed at once, so that asyncpg never said that")
