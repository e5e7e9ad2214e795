"""Failures that "loop mismatch!" would explain wrongly, and failures that it alone explains.

Each trap is a text, a context or a circumstance that suggests one cause and has others too. The
table names the programs in `scenarios/` that show it, and what may be claimed of them; those
programs are run by `test_scenarios.py`. What no scenario can show is a test below.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract import CAUSES

import loopsentry

if TYPE_CHECKING:
    from conftest import RunProgram

FOLDER = Path(__file__).parent / "scenarios"
SILENCE = "nothing at all"

#: What is to be seen, and the programs that show it, each with all that may be claimed of it.
TRAPS: dict[str, dict[str, set[str]]] = {
    "another operation is in progress, with one loop alive": {
        "asyncpg-taskgroup-one-connection": {"concurrent-use"},
        "websocket-handlers-share-connection": {"concurrent-use"},
        "commit-during-execute": {"concurrent-use", "close-races-operation"},
    },
    "a test plugin or a task queue in the stack, and yet no second loop": {
        "pytest-tests-share-one-session": {"concurrent-use"},
        "fastapi-route-gathers-session": {"concurrent-use"},
        "healthy-asgitransport-one-loop": {SILENCE},
    },
    "an illegal state, although no two tasks share a session": {
        "first-completed-leaves-sibling": {"close-races-operation"},
        "generator-finalised-in-other-task": {"close-races-operation"},
    },
    "a session that is provisioning a connection, without asyncio": {
        "healthy-sync-session-in-threads": {SILENCE},
    },
    "the first exception is hidden": {
        "wrapped-from-none": {"closed-loop"},
        "asyncio-timeout-then-commit": {"cancelled-operation"},
        "echo-after-commit-race": {"concurrent-use", "close-races-operation"},
    },
    "another operation, after the server ended the connection": {
        "raw-asyncpg-terminated-mid-operation": {"server-disconnect"},
        "raw-terminated-in-taskgroup": {"server-disconnect"},
        "backend-terminated-mid-transaction": {"server-disconnect"},
    },
    "several loops that do no harm": {
        "healthy-engine-made-on-another-loop": {SILENCE},
        "healthy-threads-own-engines": {SILENCE},
        "healthy-other-drivers": {SILENCE},
    },
    "NullPool, and yet a second loop": {
        "package-engine-nullpool-session-carried": {"closed-loop"},
    },
    "the work is done, and a traceback is printed after it": {
        "aiosqlite-left-open-at-exit": {"late-cleanup"},
        "session-closed-in-next-run": {"late-cleanup"},
    },
    "a wait that ends in a time-out, or only lasts": {
        "healthy-waits-that-time-out": {SILENCE},
        "healthy-timeout-rolled-back": {SILENCE},
    },
    "Event loop is closed, from tidying up and from real use": {
        "aiosqlite-left-open-at-exit": {"late-cleanup"},
        "pytest-fixture-teardown-other-loop": {"late-cleanup"},
        "raw-asyncpg-pool-two-runs": {"closed-loop"},
    },
    "a missing greenlet that looks like a lost connection": {
        "missing-greenlet-onupdate-pre-ping": {"missing-greenlet"},
        "expired-attribute-after-commit": {"missing-greenlet"},
    },
    "a fork that looks like a broken protocol": {
        "fork-inside-running-loop": {"forked-connection"},
        "multiprocessing-fork-engine": {"forked-connection"},
    },
    "a connection given back that looks shared": {
        "asyncpg-used-after-acquire-block": {"used-after-release"},
        "streaming-response-released-connection": {"used-after-release"},
    },
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_has_programs_that_expect_the_true_cause(trap: str) -> None:
    """Every program of a trap exists, and expects no other cause than the true one."""
    for name, allowed in TRAPS[trap].items():
        scenario = tomllib.loads((FOLDER / name / "scenario.toml").read_text("utf-8"))
        expect = scenario.get("expect", {"cause": SILENCE})
        assert set(expect.get("any_cause") or [expect["cause"]]) == allowed, name
        assert allowed <= {*CAUSES.values(), SILENCE}


SAME_TEXT = """
import asyncio
import os

import asyncpg

TEXT = "another operation is in progress"
kept = []


async def query(connection):
    try:
        await connection.fetch("select pg_sleep(0.02)")
    except asyncpg.InterfaceError as exc:
        assert TEXT in str(exc), exc
        raise


async def open_connection():
    kept.append(await asyncpg.connect(os.environ["SCENARIO_DSN"]))


async def share():
    connection = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await asyncio.gather(query(connection), query(connection), return_exceptions=False)


async def cross():
    try:
        await kept[0].fetch("select 1")
    except RuntimeError:
        pass
    await query(kept[0])


loops = {"share": share, "cross": cross}
asyncio.run(open_connection())
import sys
asyncio.run(loops[sys.argv[1]]())
"""


@pytest.mark.parametrize(("what", "cause"), [("share", "concurrent-use"), ("cross", "closed-loop")])
def test_one_text_has_two_causes(run_program: RunProgram, what: str, cause: str) -> None:
    """The driver's same words mean sharing on one loop, or two loops: ownership decides."""
    ended = run_program(SAME_TEXT, what)
    assert ended.returncode
    assert "another operation is in progress" in ended.stderr
    assert {record["cause"] for record in ended.records} == {cause}, ended.output


LOOPS_WITH_ONE_ID = """
import asyncio
import gc
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

url = os.environ["DATABASE_URL"]
engine, other = create_async_engine(url), create_async_engine(url, poolclass=NullPool)
ids = []


async def work(engine):
    ids.append(id(asyncio.get_running_loop()))
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


def run(engine):
    asyncio.run(work(engine))
    gc.collect()


while len(set(ids)) == len(ids) < 500:
    run(other)
assert len(set(ids)) < len(ids), "no id was given to a second loop"
print(len(ids))
run(engine)
run(engine)
"""


def test_a_loop_is_not_its_id(run_program: RunProgram) -> None:
    """Loops that get the id of dead ones are told apart, and counted."""
    ended = run_program(LOOPS_WITH_ONE_ID)
    [record] = ended.records
    assert record["cause"] == "closed-loop"
    before = int(ended.stdout)
    runs = (record["owner_loop"]["run"], record["current_loop"]["run"])
    assert runs == (before + 1, before + 2)


@pytest.mark.parametrize(
    "words",
    [
        "Task <Task pending> got Future <Future pending> attached to a different loop",
        "<asyncio.locks.Lock object> is bound to a different event loop",
    ],
)
def test_words_that_somebody_else_says_claim_nothing(words: str) -> None:
    """A library's own `raise` with asyncio's words, in a program of one loop, proves no future."""

    async def use() -> None:
        raise RuntimeError(words)

    with pytest.raises(RuntimeError) as failed, loopsentry.install():
        asyncio.run(use())
    assert loopsentry.diagnose(failed.value).certainty == "undetermined"
