"""Programs that really fail, on a real PostgreSQL, and what their diagnosis says."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import warnings
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import loopsentry
from loopsentry import installation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Starlette, about the release of httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Result, RunProgram

# What these programs abandon on closed loops is complained of when it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what a test abandoned while its warnings are still ignored."""
    yield
    gc.collect()


ENGINE = """
import asyncio, gc, os, sys, threading
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
url = os.environ["DATABASE_URL"]
engine = create_async_engine(url)

async def use():
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))

def first():
    asyncio.run(use())

def second():
    asyncio.run(use())

def tell(function):
    try:
        function()
    except Exception as exc:
        print(type(exc).__name__, str(exc).splitlines()[0])
    else:
        print("works")
"""

PLACE = {"file": str, "line": int, "function": str}
LOOP = {
    "id": int,
    "label": ("A", "B"),
    "kind": str,
    "runner": (str, None),
    "started_by": (PLACE, None),
    "run": (int, None),
    "scope": (str, None),
    "state": ("running", "stopped", "closed"),
    "thread": str,
    "pid": int,
}
RECORD = {
    "schema": (1,),
    "id": str,
    "version": str,
    "time": datetime,
    "pid": int,
    "code": str,
    "cause": str,
    "certainty": ("proven", "likely", "undetermined"),
    "severity": ("error", "warning"),
    "phase": ("connect", "use", "cleanup"),
    "context": str,
    "framework": (dict, None),
    "others": (list,),
    "used_at": (PLACE, None),
    "current_task": (str, None),
    "operation": (str, None),
    "owner_loop": (LOOP, None),
    "current_loop": (LOOP, None),
    "object": (
        {
            "kind": ("connection", "session", "pool", "engine", "primitive", "future"),
            "label": str,
            "opened_at": (PLACE, None),
            "opened_by_task": (str, None),
        },
        None,
    ),
    "engine": (
        {"url": str, "driver": str, "variable": (str, None), "created_at": (PLACE, None)},
        None,
    ),
    "other_operation": (
        {"task": str, "function": str, "file": str, "line": int, "state": str},
        None,
    ),
    "first_failure": ({"time": datetime, "code": (str, None), "place": (PLACE, None)}, None),
    "data": ("not-sent", "maybe-executed", "unknown"),
    "action": ("none", "evicted", "raised", "reconnected"),
    "waits": [],
    "holders": [],
    "facts": [str],
    "fixes": [{"id": str, "title": str, "snippet": str, "reason": str}],
    "original": ({"type": str, "message": str}, None),
}


def fits(value: Any, shape: Any) -> bool:
    """Whether a value of a record has the contract's shape."""
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(one, shape[0]) for one in value)
    if shape is datetime:
        return datetime.fromisoformat(value).utcoffset() is not None
    if shape is dict or isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and value.keys() == shape.keys()
            and all(fits(value[name], shape[name]) for name in shape)
        )
    return bool(value == shape)


def only(ended: Result, code: str, certainty: str = "proven") -> dict[str, Any]:
    """Give the only record of a program, after checking its shape, code and certainty."""
    assert len(ended.records) == 1, ended.output
    (record,) = ended.records
    wrong = {name: record.get(name) for name in RECORD if not fits(record.get(name), RECORD[name])}
    assert not wrong
    assert record.keys() == RECORD.keys()
    assert (record["code"], record["certainty"]) == (code, certainty)
    return record


# LS101 -------------------------------------------------------------------------------------


def test_a_second_run_names_both_loops_and_who_started_them(run_program: RunProgram) -> None:
    """A pooled connection of a closed loop names owner, user, both starters, engine and cure."""
    ended = run_program(ENGINE + "first()\nsecond()\n")
    record = only(ended, "LS101")
    assert ended.returncode == 1
    owner, current = record["owner_loop"], record["current_loop"]
    assert (owner["label"], owner["state"], owner["started_by"]["function"]) == (
        "A",
        "closed",
        "first",
    )
    assert (current["label"], current["state"], current["started_by"]["function"]) == (
        "B",
        "running",
        "second",
    )
    assert owner["runner"] == current["runner"] == "asyncio.run"
    assert owner["id"] != current["id"]
    assert record["used_at"]["function"] == record["object"]["opened_at"]["function"] == "use"
    assert (record["cause"], record["context"]) == ("closed-loop", "asyncio-run")
    assert (record["severity"], record["data"]) == ("error", "not-sent")
    assert record["engine"]["variable"] == "engine"
    assert record["engine"]["driver"] == "asyncpg"
    assert record["action"] == "none"
    fixes = {fix["id"]: fix["snippet"] for fix in record["fixes"][:2]}
    assert "session_scope_fresh(engine)" in fixes["fresh-session"]
    assert record["original"]["type"] == "builtins.RuntimeError"


def test_the_message_is_short_ascii_and_within_eighty_columns(run_program: RunProgram) -> None:
    """The note has at most eighteen lines of eighty ASCII columns, and names both starters."""
    ended = run_program(ENGINE + "first()\nsecond()\n")
    lines = ended.stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error[LS101]: "))
    message = lines[start:]
    assert len(message) <= 18
    assert "\n".join(message).isascii()
    for line in message:
        assert len(line) <= 80 or "main.py" in line, line
    told = "\n".join(message)
    assert "in first(), main.py:" in told
    assert "in second(), main.py:" in told
    assert "loop A" in told
    assert "loop B" in told
    assert re.search(r"^  here   main\.py:\d+ use\(\)", told, re.MULTILINE)
    assert re.search(r"^  owner  opened at main\.py:\d+ use\(\); engine `en", told, re.MULTILINE)
    assert "  more: loopsentry explain LS101" in message
    assert message[-1] == (
        "  original: RuntimeError: Task ... got Future ... attached to a different loop"
    )
    assert "attached to a different loop [LS101] " in lines[start - 1]
    assert "0x" not in told
    assert ended.stderr.count("error[LS101]") == 1


def test_the_same_exception_is_rewritten_in_place(run_program: RunProgram) -> None:
    """The exception that the program catches is the driver's own object, with its text in it."""
    ended = run_program(
        ENGINE
        + """
from sqlalchemy import event
seen = []
@event.listens_for(engine.sync_engine, "handle_error")
def heard(context): seen.append(context.original_exception)
first()
try:
    second()
except RuntimeError as exc:
    print(type(exc).__name__, exc is seen[0], len(exc.args), len(exc.__notes__))
    lines = str(exc).splitlines()
    print(len(lines), "attached to a different loop" in lines[0], lines[-1])
"""
    )
    only(ended, "LS101")
    kind, text_ = ended.stdout.splitlines()
    assert kind == "RuntimeError True 1 1"
    assert text_.startswith("1 True ")
    assert "attached to a different loop [LS101] " in text_
    assert "loop A: asyncio.run, closed" in text_
    assert "loop B: asyncio.run, running" in text_


def test_a_retired_connection_is_replaced(run_program: RunProgram) -> None:
    """With evict=True the run after the failure works: the poisoned connection is replaced."""
    ended = run_program(
        ENGINE
        + "import loopsentry\nloopsentry.install(evict=True)\n"
        + "for run in (first, second, second): tell(run)\n"
    )
    assert only(ended, "LS101")["action"] == "evicted"
    outcomes = [line.partition(" ")[0] for line in ended.stdout.splitlines()]
    assert outcomes == ["works", "RuntimeError", "works"]


def test_without_eviction_the_echo_points_to_the_first_failure(run_program: RunProgram) -> None:
    """By default each later use fails as ever, and is counted as the same mistake."""
    ended = run_program(
        ENGINE
        + """
import loopsentry
first()
with asyncio.Runner() as server:
    for _ in range(3):
        try: server.run(use())
        except Exception as exc:
            print(type(exc).__name__, "another operation" in str(exc), "[LS101]" in str(exc))
            diagnosis = loopsentry.diagnose(exc)
            print(diagnosis.code, diagnosis.first_failure and diagnosis.first_failure.code)
"""
    )
    assert ended.stdout.splitlines() == [
        "RuntimeError False True",
        "LS101 None",
        "InterfaceError True True",
        "LS101 LS101",
        "InterfaceError True True",
        "LS101 LS101",
    ]
    assert only(ended, "LS101")["action"] == "none"


def test_the_link_that_blames_a_dropped_connection_is_gone(run_program: RunProgram) -> None:
    """SQLAlchemy's wrapper keeps its text, its parameters and its type, without the link."""
    ended = run_program(
        ENGINE
        + """
for run in (first, second, second):
    try: run()
    except Exception as exc: last = exc
print(type(last).__module__, type(last).__name__, "sqlalche.me" in str(last))
print("another operation" in str(last.orig), "[LS101]" in str(last), last.orig is last.__cause__)
"""
    )
    assert ended.stdout.splitlines()[0] == "sqlalchemy.exc InterfaceError False"
    assert ended.stdout.splitlines()[1].startswith("True True")


def test_only_the_note_without_rewriting(run_program: RunProgram) -> None:
    """With rewrite_message=False the message stays as it was, and the note tells the story."""
    ended = run_program(
        ENGINE
        + """
import loopsentry
loopsentry.install(rewrite_message=False)
first()
try: second()
except RuntimeError as exc:
    print("LS101" in str(exc), type(exc.args[0]) is str, exc.__notes__[0].splitlines()[0][:12])
"""
    )
    assert ended.stdout == "False True error[LS101]\n"[:23] + "\n"


def test_pre_ping_does_not_hide_it(run_program: RunProgram) -> None:
    """A failed pre-ping is the same mistake, and only the ping was sent."""
    ended = run_program(
        ENGINE + "engine = create_async_engine(url, pool_pre_ping=True)\nfirst()\ntell(second)\n"
    )
    record = only(ended, "LS101")
    assert record["data"] == "not-sent"
    assert record["phase"] == "connect"
    assert record["current_loop"]["started_by"]["function"] == "tell" or (
        record["current_loop"]["started_by"]["function"] == "second"
    )
    assert record["engine"]["variable"] == "engine"


def test_a_session_carried_to_another_loop(run_program: RunProgram) -> None:
    """A session with an open transaction that is taken to another loop is named as such."""
    ended = run_program(
        ENGINE
        + """
session = AsyncSession(engine)
async def ask():
    await session.execute(text("select 1"))
def begin(): asyncio.run(ask())
def go_on(): asyncio.run(ask())
begin()
tell(go_on)
"""
    )
    record = only(ended, "LS101")
    assert record["object"]["kind"] == "session"
    assert record["operation"] == "execute"
    assert record["phase"] == "use"
    assert record["data"] == "maybe-executed"
    assert record["owner_loop"]["started_by"]["function"] == "begin"


def test_uvloop_is_diagnosed_alike(run_program: RunProgram) -> None:
    """Under uvloop the texts differ and the diagnosis does not."""
    pytest.importorskip("uvloop")
    ended = run_program(
        ENGINE
        + """
import uvloop
def first(): uvloop.run(use())
def second(): uvloop.run(use())
first()
second()
"""
    )
    record = only(ended, "LS101")
    assert record["owner_loop"]["kind"] == record["current_loop"]["kind"] == "uvloop"
    assert record["owner_loop"]["runner"] == "uvloop.run"
    assert record["owner_loop"]["started_by"]["function"] == "first"
    assert record["current_loop"]["started_by"]["function"] == "second"
    assert ended.returncode == 1


def test_the_place_is_found_below_run_sync(run_program: RunProgram) -> None:
    """An engine first used through run_sync is told with the user's lines on both loops."""
    ended = run_program(
        ENGINE
        + """
def create(connection): connection.execute(text("select 1"))
async def use():
    async with engine.connect() as connection:
        await connection.run_sync(create)
first()
tell(second)
"""
    )
    record = only(ended, "LS101")
    assert record["object"]["opened_at"]["function"] == "use"
    assert record["used_at"]["function"] in {"use", "create"}
    assert record["owner_loop"]["started_by"]["function"] == "first"


@pytest.mark.parametrize(
    ("options", "statement", "data"),
    [
        ("", "select 1", "not-sent"),
        ("isolation_level='AUTOCOMMIT'", "insert into nowhere values (1)", "maybe-executed"),
    ],
)
def test_what_may_have_reached_the_server_is_said(
    run_program: RunProgram, options: str, statement: str, data: str
) -> None:
    """In a transaction BEGIN fails first; in AUTOCOMMIT the statement itself may have run."""
    ended = run_program(
        ENGINE
        + f"""
engine = create_async_engine(url, {options})
async def use():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
async def write():
    async with engine.connect() as connection:
        await connection.execute(text("{statement}"))
first()
tell(lambda: asyncio.run(write()))
"""
    )
    assert only(ended, "LS101")["data"] == data


# the other causes --------------------------------------------------------------------------


def test_two_live_loops_in_threads(run_program: RunProgram) -> None:
    """The owner's loop is alive in another thread, and both threads are named."""
    ended = run_program(
        ENGINE
        + """
ready, done = threading.Event(), threading.Event()
async def serve():
    await use()
    ready.set()
    done.wait(20)  # busy: two loops that both turn can crash inside the driver
def background(): asyncio.run(serve())
thread = threading.Thread(target=background, name="server")
thread.start()
ready.wait()
tell(second)
done.set()
thread.join()
"""
    )
    record = only(ended, "LS102")
    assert record["cause"] == "two-live-loops"
    assert record["owner_loop"]["state"] == "running"
    assert record["owner_loop"]["started_by"]["function"] == "background"
    assert record["owner_loop"]["thread"] == "server"
    assert record["current_loop"]["thread"] == "MainThread"
    assert record["current_loop"]["started_by"]["function"] == "second"


DISPOSE = (
    ENGINE
    + """
engine = create_async_engine(url, **eval(os.environ.get("OPTIONS", "{}")))
def clean(): asyncio.run(engine.dispose())
first()
clean()
print("done")
"""
)


@pytest.mark.parametrize("options", ["{}", "{'pool_logging_name': 'mine'}"])
def test_a_late_dispose_is_a_warning(run_program: RunProgram, options: str) -> None:
    """Disposing on a later loop warns, loses nothing, and the pool's traceback is folded."""
    env = {"OPTIONS": options, "PYTHONWARNINGS": "ignore"}
    bare = run_program(DISPOSE, env=env, under=False)
    ended = run_program(DISPOSE, env=env)
    record = only(ended, "LS103")
    assert (record["severity"], record["phase"]) == ("warning", "cleanup")
    assert record["owner_loop"]["started_by"]["function"] == "first"
    assert record["current_loop"]["started_by"]["function"] == "clean"
    assert (ended.stdout, ended.returncode) == (bare.stdout, bare.returncode)
    assert "Exception" in bare.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("warning[LS103]: ")
    assert ended.stderr.count("warning[LS103]") == 1


def test_a_forgotten_connection_collected_later_is_never_a_crossing(
    run_program: RunProgram,
) -> None:
    """A leaked connection that the garbage collector finds under another loop is late clean-up."""
    ended = run_program(
        ENGINE
        + """
kept = []
async def leak():
    connection = await engine.connect()
    await connection.execute(text("select 1"))
    kept.append(connection)
async def collect():
    kept.clear()
    gc.collect()
asyncio.run(leak())
asyncio.run(collect())
print("done")
""",
        env={"PYTHONWARNINGS": "ignore"},
    )
    assert ended.stdout == "done\n"
    assert ended.returncode == 0
    assert {(record["code"], record["severity"]) for record in ended.records} <= {
        ("LS103", "warning")
    }


COLLECTED = """
import asyncio, gc, os, threading
from unittest import mock
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
import loopsentry

forgotten = create_async_engine(os.environ["DATABASE_URL"])
innocent = create_async_engine(os.environ["DATABASE_URL"])

# Called by the library's own frames, as a collection of Python's is.
collect = mock.Mock(side_effect=iter(gc.collect, None))
event.listen(innocent.sync_engine, "checkout", collect)

async def forget():
    session = AsyncSession(forgotten)
    await session.execute(text("SELECT 1"))
    cycle = [session]
    cycle.append(cycle)

async def work():
    async with innocent.connect() as connection:
        print(await connection.scalar(text("SELECT 1")))
    await innocent.dispose()

gc.disable()
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(forget(), loop).result()
asyncio.run(work())
loop.call_soon_threadsafe(loop.stop)
"""


def test_what_is_at_work_while_garbage_is_collected_is_not_blamed(run_program: RunProgram) -> None:
    """A connection collected in the middle of other work names its own engine, and no line."""
    ended = run_program(COLLECTED)
    assert ended.stdout == "1\n"
    if "attached to a different loop" not in ended.stderr:
        pytest.skip("this asyncpg, on this Python, does not complain of loops when it is closed")
    record = only(ended, "LS103")
    assert record["severity"] == "warning"
    assert record["engine"]["variable"] == "forgotten"
    assert record["object"]["opened_at"]["function"] == "forget"
    assert record["operation"] == "collect"
    assert (record["used_at"], record["current_task"], record["framework"]) == (None, None, None)
    assert [fix["id"] for fix in record["fixes"]] == ["scope-session", "fresh-session"]
    assert "collected on another event loop\n  here   wherever garbage" in ended.stderr


OPENED = """
import asyncio, os, sys
import asyncpg
import loopsentry

async def open_both():
    opening = [asyncio.ensure_future(asyncpg.connect(os.environ["SCENARIO_DSN"])) for _ in range(2)]
    await asyncio.sleep(0)
    return opening

async def later():
    opening = await open_both()
    await asyncio.sleep(0.5)
    return opening[1].result()

def run(coroutine): return loop.run_until_complete(coroutine)
loop = asyncio.new_event_loop()
connection = run(later() if "task" in sys.argv else asyncpg.connect(os.environ["SCENARIO_DSN"]))
asyncio.run(connection.fetch("SELECT 1"))
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring: no birth is recorded")
@pytest.mark.parametrize(("how", "opener"), [("main", "run"), ("task", None)])
def test_where_a_library_s_task_opened_something_is_not_where_its_loop_was_started(
    run_program: RunProgram, how: str, opener: str | None
) -> None:
    """Where nothing of the program's waits for such a task, no line is named instead of it."""
    opened = only(run_program(OPENED, how), "LS102")["object"]["opened_at"]
    assert (opened and opened["function"]) == opener


def test_the_pools_queue_of_another_loop(run_program: RunProgram) -> None:
    """A pool whose queue was waited on belongs to that loop, also with a driver that does not."""
    pytest.importorskip("psycopg")
    ended = run_program(
        ENGINE
        + """
url = url.replace("+asyncpg", "+psycopg")
engine = create_async_engine(url, pool_size=1, max_overflow=0)
async def hold():
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(0.05)"))
async def both():
    await asyncio.gather(hold(), hold())
def fill(): asyncio.run(both())
def crowd(): asyncio.run(both())
fill()
crowd()
"""
    )
    record = only(ended, "LS104")
    assert record["object"]["kind"] == "pool"
    assert record["owner_loop"]["started_by"]["function"] == "fill"
    assert record["current_loop"]["started_by"]["function"] == "crowd"
    assert record["used_at"]["function"] == "hold"
    assert record["data"] == "not-sent"
    assert ended.returncode == 1


def test_a_lock_of_another_loop(run_program: RunProgram) -> None:
    """A lock without any database is told by its own loop, when the exception ends the program."""
    ended = run_program(
        """
import asyncio
lock = asyncio.Lock()
async def enter():
    async with lock: await asyncio.sleep(0.01)
async def main():
    await asyncio.gather(enter(), enter())
def first(): asyncio.run(main())
def second(): asyncio.run(main())
first()
second()
"""
    )
    record = only(ended, "LS104")
    assert record["object"]["kind"] == "primitive"
    assert record["object"]["label"] == "asyncio.Lock"
    assert record["owner_loop"]["state"] == "closed"
    assert record["engine"] is None
    assert record["used_at"]["function"] == "enter"
    assert ended.returncode == 1


def test_one_session_in_two_tasks_names_both(run_program: RunProgram) -> None:
    """A session shared by two tasks of one loop is no loop problem; both tasks are named."""
    ended = run_program(
        ENGINE
        + """
async def load_tables(session): await session.execute(text("select pg_sleep(0.1)"))
async def load_roles(session): await session.execute(text("select 2"))
async def start_page():
    async with AsyncSession(engine) as session:
        async with asyncio.TaskGroup() as group:
            group.create_task(load_tables(session), name="tables")
            group.create_task(load_roles(session), name="roles")
asyncio.run(start_page())
"""
    )
    record = only(ended, "LS201")
    assert record["used_at"]["function"] == "load_roles"
    assert record["current_task"] in {"roles", None}  # the loop is over when it surfaces
    assert record["other_operation"]["function"] == "load_tables"
    assert record["other_operation"]["task"] == "tables"
    assert record["data"] == "not-sent"
    assert record["fixes"][0]["id"] == "session-per-task"
    assert "not a loop mismatch" in ended.stderr


def test_the_task_is_named_where_it_fails(run_program: RunProgram) -> None:
    """Caught inside the task that was refused, the failure names both tasks of the loop."""
    ended = run_program(
        ENGINE
        + """
import loopsentry
async def load_tables(session): await session.execute(text("select pg_sleep(0.1)"))
async def load_roles(session):
    try:
        await session.execute(text("select 2"))
    except Exception as exc:
        found = loopsentry.diagnose(exc)
        print(found.code, found.certainty, found.current_task, found.other_operation.task)
async def start_page():
    async with AsyncSession(engine) as session:
        async with asyncio.TaskGroup() as group:
            group.create_task(load_tables(session), name="tables")
            group.create_task(load_roles(session), name="roles")
    await engine.dispose()
asyncio.run(start_page())
"""
    )
    assert ended.stdout == "LS201 proven roles tables\n", ended.output


def test_one_driver_connection_in_two_tasks_names_both(run_program: RunProgram) -> None:
    """A raw asyncpg connection shared in one loop has the text of a mismatch, and is none."""
    ended = run_program(
        """
import asyncio, asyncpg, os
async def slow(connection): await connection.fetch("select pg_sleep(0.2)")
async def quick(connection): await connection.fetch("select 1")
async def main():
    connection = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    task = asyncio.create_task(slow(connection), name="slow one")
    await asyncio.sleep(0.05)
    try:
        await quick(connection)
    except asyncpg.InterfaceError as exc:
        import loopsentry
        diagnosis = loopsentry.diagnose(exc)
        print(diagnosis.code, diagnosis.certainty, diagnosis.other_operation.task)
    await task
    await connection.close()
asyncio.run(main())
"""
    )
    assert ended.stdout == "LS201 proven slow one\n"


def test_what_a_thread_closed_before_is_proven_while_it_fails(run_program: RunProgram) -> None:
    """In the moment of the failure it can be seen that the loop of an ended thread is closed."""
    program = """
for _ in range(2):
    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
"""
    ended = run_program(ENGINE + program)
    [record] = ended.records
    assert (record["code"], record["certainty"]) == ("LS101", "proven"), ended.output
    assert record["owner_loop"]["state"] == "closed"


@pytest.mark.parametrize(
    "words",
    [
        "cannot perform operation: another operation is in progress",
        "cannot use Connection.transaction() in a manually started transaction",
    ],
)
def test_a_bare_text_claims_nothing(words: str) -> None:
    """Words alone, without an object, are undetermined: facts are listed, no fix is offered."""
    import asyncpg

    diagnosis = loopsentry.diagnose(asyncpg.InterfaceError(words))
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS000", "undetermined")
    assert diagnosis.facts
    assert diagnosis.fixes == ()
    assert diagnosis.object is None


@pytest.mark.parametrize("driver", ["psycopg", "aiosqlite"])
def test_a_driver_that_survives_a_crossing_gives_no_record(
    run_program: RunProgram, driver: str
) -> None:
    """Connections of psycopg and aiosqlite work on a later loop, and nothing is said."""
    pytest.importorskip(driver)
    url = (
        "'sqlite+aiosqlite:///file.db'"
        if driver == "aiosqlite"
        else ("url.replace('+asyncpg', '+psycopg')")
    )
    ended = run_program(
        ENGINE
        + f"engine = create_async_engine({url})\nfirst()\nsecond()\nsecond()\nprint('done')\n"
    )
    assert ended.stdout == "done\n", ended.stderr
    assert ended.returncode == 0
    assert not ended.records
    assert "LS" not in ended.stderr


@pytest.mark.parametrize("exc", [ValueError("mine"), TimeoutError(), KeyError(1)], ids=repr)
def test_an_unrelated_failure_is_no_mistake_of_loops(exc: Exception) -> None:
    """Of an exception that has nothing to do with loops or sharing nothing is claimed or kept."""
    diagnosis = loopsentry.diagnose(exc)
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS000", "undetermined")
    assert not hasattr(exc, "__notes__")


# in this process ---------------------------------------------------------------------------


async def use(engine: AsyncEngine) -> None:
    """Run one statement in a transaction."""
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))


def fail(engine: AsyncEngine) -> Exception:
    """Cross two loops with an engine, and give the exception."""
    asyncio.run(use(engine))
    with pytest.raises(RuntimeError) as failed:
        asyncio.run(use(engine))
    engine.sync_engine.dispose(close=False)
    return failed.value


def test_subscribers_hear_of_each_mistake_once(url: str) -> None:
    """subscribe() calls back once for each mistake until the subscription ends."""
    heard: list[loopsentry.Diagnosis] = []
    engine = create_async_engine(url)
    with loopsentry.install():
        end = loopsentry.subscribe(heard.append)
        fail(engine)
        end()
        fail(create_async_engine(url))
    assert [diagnosis.code for diagnosis in heard] == ["LS101"]


def test_a_subscriber_that_fails_is_in_nobodys_way(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged, and the next callback and the program go on."""
    heard: list[loopsentry.Diagnosis] = []

    def break_down(_: loopsentry.Diagnosis) -> None:
        raise KeyError("mine")

    with loopsentry.install():
        loopsentry.subscribe(break_down)
        loopsentry.subscribe(heard.append)
        exc = fail(create_async_engine(url))
    assert isinstance(exc, RuntimeError)
    assert len(heard) == 1
    assert any("subscriber" in record.getMessage() for record in caplog.records)


def test_diagnose_says_again_what_was_said(url: str) -> None:
    """diagnose() of an exception that was explained gives the very diagnosis, also later."""
    heard: list[loopsentry.Diagnosis] = []
    with loopsentry.install():
        loopsentry.subscribe(heard.append)
        exc = fail(create_async_engine(url))
    assert loopsentry.diagnose(exc) is heard[0]
    wrapped = ValueError("of the application")
    wrapped.__cause__ = exc
    assert loopsentry.diagnose(wrapped) is heard[0]


def test_diagnose_works_without_install(url: str) -> None:
    """Without install() the objects in the traceback still say what they belong to."""
    exc = fail(create_async_engine(url))
    assert not hasattr(exc, "__notes__")
    diagnosis = loopsentry.diagnose(exc)
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS101", "proven")
    assert not hasattr(exc, "__notes__")
    assert "LS101" not in str(exc)


# the middleware ----------------------------------------------------------------------------


def application(engine: AsyncEngine, *, watched: bool = True) -> Starlette:
    """Make an application whose routes use one engine."""

    async def page(_: Request) -> PlainTextResponse:
        await use(engine)
        return PlainTextResponse("fine")

    async def talk(websocket: WebSocket) -> None:
        await use(engine)
        await websocket.close()

    routes = [Route("/agents/{number}", page), WebSocketRoute("/talk/{number}", talk)]
    made = Starlette(routes=routes)
    if watched:
        made.add_middleware(loopsentry.LoopSentryMiddleware)
    return made


def test_the_middleware_explains_a_request(url: str) -> None:
    """An http request's exception passes unchanged, with a note that names the route's pattern."""
    engine = create_async_engine(url)
    with loopsentry.install():
        asyncio.run(use(engine))
        with pytest.raises(RuntimeError, match="different loop") as failed:
            TestClient(application(engine)).get("/agents/7")
        diagnosis = loopsentry.diagnose(failed.value)
        engine.sync_engine.dispose(close=False)
    assert diagnosis is not None
    assert diagnosis.code == "LS101"
    assert len(failed.value.__notes__) == 1
    assert diagnosis.framework is not None
    older = int(metadata.version("starlette").partition(".")[0]) < 1
    # Before 1.0, Starlette leaves the endpoint in the scope, and no route.
    expected = "GET page()" if older else "GET /agents/{number}"
    assert diagnosis.framework["route"] == expected
    assert diagnosis.current_loop is not None
    assert diagnosis.current_loop.runner == "TestClient"


@pytest.mark.parametrize(
    ("framework", "route"),
    [
        ("litestar", "GET /agents/{number}"),
        ("litestar inside", "GET /agents/{number}"),
        ("quart", "GET /agents/<int:number>"),
    ],
)
def test_the_routes_of_other_frameworks_are_named(
    run_program: RunProgram, url: str, framework: str, route: str
) -> None:
    """The pattern of the route is known of Litestar and Quart too, never its values."""
    pytest.importorskip(framework.split(maxsplit=1)[0])
    program = run_program(OTHER_FRAMEWORK, framework, env={"DATABASE_URL": url}, under=False)
    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines() == [f"LS101 {route}", "500"]


OTHER_FRAMEWORK = """
import asyncio, os, sys
import httpx, loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

loopsentry.install()
loopsentry.subscribe(lambda told: print(told.code, told.framework["route"]))
engine = create_async_engine(os.environ["DATABASE_URL"])

async def use():
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))

def litestar(inside):
    from litestar import Litestar, get

    async def page(number: int) -> str:
        await use()
        return "fine"

    page = get("/agents/{number:int}")(page)
    if inside:
        return Litestar([page], middleware=[loopsentry.LoopSentryMiddleware])
    return loopsentry.LoopSentryMiddleware(Litestar([page]))

def quart():
    from quart import Quart

    app = Quart(__name__)

    @app.get("/agents/<int:number>")
    async def page(number):
        await use()

    app.asgi_app = loopsentry.LoopSentryMiddleware(app.asgi_app)
    return app

async def ask():
    app = quart() if sys.argv[1] == "quart" else litestar("inside" in sys.argv[1])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        print((await client.get("/agents/7")).status_code)

asyncio.run(use())
asyncio.run(ask())
"""


def test_the_middleware_explains_a_websocket(url: str) -> None:
    """A websocket's exception passes unchanged too, with its note."""
    engine = create_async_engine(url)
    with loopsentry.install():
        asyncio.run(use(engine))
        client = TestClient(application(engine))
        with pytest.raises(RuntimeError) as failed, client.websocket_connect("/talk/7"):
            pass
        engine.sync_engine.dispose(close=False)
    assert "[LS101]" in str(failed.value)
    assert len(failed.value.__notes__) == 1


def test_the_middleware_explains_a_lifespan(url: str) -> None:
    """An exception of the lifespan handler passes unchanged, with its note."""
    engine = create_async_engine(url)

    async def main() -> None:
        async def application(_scope: Any, _receive: Any, _send: Any) -> None:
            await use(engine)

        watched = loopsentry.LoopSentryMiddleware(application)
        await watched({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    with loopsentry.install():
        asyncio.run(use(engine))
        with pytest.raises(RuntimeError) as failed:
            asyncio.run(main())
        engine.sync_engine.dispose(close=False)
    assert "[LS101]" in str(failed.value)
    assert failed.value.__notes__[0].startswith("error[LS101]")


def test_the_middleware_passes_any_exception_on() -> None:
    """The object that the application raised is the one that comes out, without an addition."""
    mine = ValueError("mine")

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        raise mine

    watched = loopsentry.LoopSentryMiddleware(application)
    with pytest.raises(ValueError, match="mine") as failed:
        asyncio.run(watched({"type": "http"}, None, None))  # type: ignore[arg-type]
    assert failed.value is mine
    assert not hasattr(mine, "__notes__")


def test_the_middleware_installs_late_and_says_so_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without install() the first request installs, and one warning says what is missing."""
    engine = create_async_engine(url)
    asyncio.run(use(engine))
    client = TestClient(application(engine))
    with pytest.raises(RuntimeError) as failed:
        client.get("/agents/7")
    with TestClient(application(create_async_engine(url)), raise_server_exceptions=False) as again:
        again.get("/nothing")
    engine.sync_engine.dispose(close=False)
    assert installation.current() is not None
    warnings = [r for r in caplog.records if r.name == "loopsentry" and r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "not recorded" in warnings[0].getMessage()
    assert "install()" in warnings[0].getMessage()
    diagnosis = loopsentry.diagnose(failed.value)
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS101", "proven")


def test_a_production_answer_is_the_same_with_and_without(url: str) -> None:
    """The 500 that a client receives in production is byte for byte the one without loopsentry."""

    def answer(*, watched: bool) -> tuple[int, bytes, list[tuple[str, str]]]:
        engine = create_async_engine(url)
        asyncio.run(use(engine))
        made = application(engine, watched=watched)
        response = TestClient(made, raise_server_exceptions=False).get("/agents/7")
        engine.sync_engine.dispose(close=False)
        return response.status_code, response.content, response.headers.multi_items()

    bare = answer(watched=False)
    assert bare[0] == 500
    with loopsentry.install():
        assert answer(watched=True) == bare


def test_the_middleware_respects_the_switch(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """With LOOPSENTRY=off the middleware only calls the application."""
    monkeypatch.setenv("LOOPSENTRY", "off")
    engine = create_async_engine(url)
    asyncio.run(use(engine))
    with pytest.raises(RuntimeError) as failed:
        TestClient(application(engine)).get("/agents/7")
    engine.sync_engine.dispose(close=False)
    assert installation.current() is None
    assert not hasattr(failed.value, "__notes__")
