"""What is heard of starts and births without replacing a function, on Python 3.12 and newer."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from inner import Project

import loopsentry
from loopsentry import _monitoring, installation

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunProgram

monitoring: Any = getattr(sys, "monitoring", None)
needs_monitoring = pytest.mark.skipif(
    monitoring is None, reason="sys.monitoring came with Python 3.12"
)

LOCKED = """
import asyncio, concurrent.futures, json, sys, threading, time
import loopsentry
loopsentry.install()
lock = asyncio.Lock()
async def work():
    async with lock:
        await asyncio.sleep(0.01)
async def twice():
    await asyncio.gather(work(), work())
async def in_executor(work):
    await asyncio.get_running_loop().run_in_executor(None, asyncio.run, work)
def first():
    {first}
def second():
    {second}
first()
try: second()
except RuntimeError as exc:
    told = loopsentry.diagnose(exc)
    loops = told.owner_loop, told.current_loop
"""
LOCK = (
    LOCKED
    + """\
    for loop in loops:
        print(loop.kind, loop.runner, loop.started_by.function, loop.run, loop.thread)
"""
)


THREAD = """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="own").start()
    asyncio.run_coroutine_threadsafe(twice(), loop).result()
"""


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            "asyncio.run(twice())",
            "asyncio.run(twice())",
            ["asyncio asyncio.run first 1 MainThread", "asyncio asyncio.run second 1 MainThread"],
        ),
        pytest.param(
            "asyncio.new_event_loop().run_until_complete(twice())",
            "asyncio.Runner().run(twice())",
            [
                "asyncio run_until_complete first 1 MainThread",
                "asyncio asyncio.run second 1 MainThread",
            ],
            marks=needs_monitoring,
        ),
        pytest.param(
            "import uvloop; uvloop.run(twice())",
            "asyncio.run(twice())",
            ["uvloop uvloop.run first 1 MainThread", "asyncio asyncio.run second 1 MainThread"],
            marks=needs_monitoring,
        ),
        pytest.param(
            THREAD,
            "asyncio.run(twice())",
            ["asyncio run_forever first 1 own", "asyncio asyncio.run second 1 MainThread"],
            marks=needs_monitoring,
        ),
    ],
    ids=["asyncio", "runner", "uvloop", "thread"],
)
def test_both_starters_are_named(
    run_program: RunProgram, first: str, second: str, expected: list[str]
) -> None:
    """A lock has no connection, and yet both of its loops are known with who started them."""
    if "uvloop" in first:
        pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    ended = run_program(LOCK.format(first=first, second=second), under=False)
    assert ended.stdout.splitlines() == expected, ended.output


def test_the_logger_that_tells_of_loops_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """What asyncio logs of a new loop keeps its place, and the logger is as before afterwards."""
    told = logging.getLogger("asyncio")
    before = dict(vars(told))
    with caplog.at_level(logging.DEBUG, "asyncio"), loopsentry.install():
        asyncio.new_event_loop().close()
    assert [record.funcName for record in caplog.records] == ["__init__"]
    assert caplog.records[0].getMessage().startswith("Using ")
    assert "asyncio" in caplog.records[0].pathname
    assert vars(told).keys() == before.keys()


def test_a_logger_that_is_covered_in_turn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who covers the same method keeps it, whichever of the two ends first."""
    told = logging.getLogger("asyncio")
    heard: list[object] = []
    with loopsentry.install():
        covered = told.debug

        def debug(*args: Any) -> None:
            heard.append(args)
            covered(*args, stacklevel=2)

        monkeypatch.setattr(told, "debug", debug)
        asyncio.new_event_loop().close()
    asyncio.new_event_loop().close()
    assert len(heard) == 2


RAW = """
import asyncio, os, sys
import loopsentry
loopsentry.install(on_mismatch=sys.argv[1])
import asyncpg
pool = None
async def start():
    global pool
    pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=0, max_size=2)
    await pool.fetchval("select 1")
async def use():
    return await pool.fetchval("select 1")
def first(): asyncio.run(start())
def second(): asyncio.run(use())
first()
for _ in range(2):
    try: second()
    except Exception as exc:
        told = loopsentry.diagnose(exc)
        print(type(exc).__name__, told.code, told.certainty, told.object.kind, told.data,
              told.object.birth.place.function, told.owner_loop.started_by.function)
"""


@needs_monitoring
def test_a_raw_pools_connections_are_known(run_program: RunProgram) -> None:
    """A connection and a pool of asyncpg's own are told with where they were opened."""
    shown = run_program(RAW, "annotate", under=False).stdout.splitlines()
    assert len(shown) == 2
    for line in shown:
        name, code, certainty, _, _, opened, starter = line.split()
        assert name != "LoopMismatchError"
        assert (code, certainty, opened, starter) == ("LS101", "proven", "start", "first")


@needs_monitoring
def test_a_raw_pools_crossing_is_stopped(run_program: RunProgram) -> None:
    """In mode raise nothing is sent on a raw pool's connection, each time."""
    shown = run_program(RAW, "raise", under=False).stdout.splitlines()
    line = "LoopMismatchError LS101 proven connection not-sent start first"
    assert shown == [line, line]


@needs_monitoring
def test_a_late_import_is_heard_from_the_next_loop_on(run_program: RunProgram) -> None:
    """No driver is imported for this; asyncpg is heard once the program has imported it."""
    program = RAW.replace("import asyncpg\n", "assert 'asyncpg' not in sys.modules\n").replace(
        "def first(): ", "def first():\n    global asyncpg\n    import asyncpg\n    "
    )
    assert "asyncpg" not in program.partition("def first")[0].replace("asyncpg.create", "").replace(
        "'asyncpg' not in", ""
    )
    shown = run_program(program, "raise", under=False).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["LoopMismatchError"] * 2


SUITE = """
import asyncio, pytest
import sqlalchemy.ext.asyncio
lock = asyncio.Lock()
{backend}
async def work():
    async with lock:
        await asyncio.sleep(0.01)
@pytest.mark.{marker}
async def test_first():
    await asyncio.gather(work(), work())
@pytest.mark.{marker}
async def test_second():
    await asyncio.gather(work(), work())
"""
BACKEND = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@needs_monitoring
@pytest.mark.parametrize(("marker", "backend"), [("asyncio", ""), ("anyio", BACKEND)])
def test_a_plugins_loops_are_the_tests(tmp_path: Path, url: str, marker: str, backend: str) -> None:
    """A lock of two tests is told with both of them, though no loop opened a connection."""
    project = Project(tmp_path, url)
    project.write({"test_it.py": SUITE.format(marker=marker, backend=backend)})
    (record,) = project.run("-p", "no:xdist").records
    loops = record["owner_loop"], record["current_loop"]
    assert [loop["started_by"]["function"] for loop in loops] == ["test_first", "test_second"]


# the tool --------------------------------------------------------------------------------------


def called(number: int) -> int:
    """Be watched."""
    return number + 1


@needs_monitoring
def test_a_call_is_heard_until_that_is_undone() -> None:
    """Start and return of one function are heard, and the tool id is given back at the end."""
    heard: list[tuple[str, Any]] = []

    def begins(frame: FrameType) -> None:
        heard.append(("begins", frame.f_locals["number"]))

    def returns(frame: FrameType) -> None:
        heard.append(("returns", frame.f_code.co_name))

    undo = [_monitoring.on_start(called, begins), _monitoring.on_return(called, returns)]
    assert "loopsentry" in [monitoring.get_tool(each) for each in range(6)]
    assert called(1) == 2
    while undo:
        undo.pop()()
    assert called(2) == 3
    assert heard == [("begins", 1), ("returns", "called")]
    assert "loopsentry" not in [monitoring.get_tool(each) for each in range(6)]


@needs_monitoring
def test_what_a_handler_returns_is_raised_and_what_it_raises_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refusal stops the call; a failure of the handler's own ends only the hearing."""
    undo = _monitoring.on_start(called, lambda _: KeyError("refused"))
    with pytest.raises(KeyError, match="refused"):
        called(1)
    undo()
    calls: list[int] = []

    def fail(_frame: FrameType) -> None:
        calls.append(1)
        raise LookupError("ours")

    undo = _monitoring.on_start(called, fail)
    assert called(1) == 2
    assert called(1) == 2
    undo()
    assert calls == [1]
    assert caplog.text.count("loopsentry failed") == 1


@needs_monitoring
def test_without_a_free_id_everything_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Two other tools have the ids: loopsentry says once at DEBUG what is missing, and works."""
    caplog.set_level("DEBUG", "loopsentry")
    _monitoring._tool.said = False
    for each in _monitoring.TOOL_IDS:
        monitoring.use_tool_id(each, f"other {each}")
    try:
        with loopsentry.install():
            asyncio.run(asyncio.sleep(0))
            current = installation.current()
            assert current is not None
            assert len(current.registry.started) == 0
    finally:
        for each in _monitoring.TOOL_IDS:
            monitoring.free_tool_id(each)
    assert caplog.text.count("both tool ids of sys.monitoring are taken") == 1


@needs_monitoring
def test_another_tool_hears_what_it_heard_alone() -> None:
    """A coverage tool's line events are the same with loopsentry at work beside it."""

    def lines() -> list[tuple[str, int]]:
        heard: list[tuple[str, int]] = []
        names = {"run_forever", "_lazy_init", "start", "run_until_complete"}
        monitoring.use_tool_id(monitoring.COVERAGE_ID, "coverage")
        monitoring.register_callback(
            monitoring.COVERAGE_ID,
            monitoring.events.LINE,
            lambda code, line: heard.append((code.co_name, line)),
        )
        monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)
        asyncio.run(asyncio.sleep(0))
        thread = threading.Thread(target=called, args=(1,))
        thread.start()
        thread.join()
        monitoring.set_events(monitoring.COVERAGE_ID, 0)
        monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, None)
        monitoring.free_tool_id(monitoring.COVERAGE_ID)
        return sorted(each for each in heard if each[0] in names)

    alone = lines()
    with loopsentry.install():
        assert lines() == alone
    assert lines() == alone
    assert alone


def test_where_nothing_can_be_heard_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, and for compiled functions, listening and its undo do nothing."""
    _monitoring.on_start(len, lambda _: None)()
    monkeypatch.setattr(_monitoring, "_monitoring", None)
    _monitoring.on_start(called, lambda _: KeyError("never"))()
    assert called(1) == 2


CLOSED = """
import asyncio, os
import asyncpg
import loopsentry
loopsentry.install()
dsn = os.environ["SCENARIO_DSN"]
async def closed_by_us():
    connection = await asyncpg.connect(dsn)
    await connection.close()
    await connection.fetch("select 1")
async def terminated_by_us():
    connection = await asyncpg.connect(dsn)
    connection.terminate()
    await connection.execute("select 1")
async def closed_by_the_server():
    connection, other = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await other.execute(f"select pg_terminate_backend({connection.get_server_pid()})")
    while not connection.is_closed(): await asyncio.sleep(0.01)
    try: await connection.fetch("select 1")
    finally: await connection.close(); await other.close()
async def work(connection): await connection.fetch("select pg_sleep(5)")
async def cut_off():
    connection = await asyncpg.connect(dsn)
    task = asyncio.create_task(work(connection))
    await asyncio.sleep(0.2)
    connection.terminate()
    await task
async def closed_pool():
    async with asyncpg.create_pool(dsn, min_size=1) as pool: pass
    await pool.fetch("select 1")
for run in closed_by_us, terminated_by_us, closed_by_the_server, cut_off, closed_pool:
    try: asyncio.run(run())
    except (asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as exc:
        told = loopsentry.diagnose(exc)
        print(run.__name__, told.code, told.certainty, told.notes[0].partition(" ")[0])
"""


@needs_monitoring
def test_who_closed_a_connection_is_told_apart(run_program: RunProgram) -> None:
    """The driver has one text for a connection closed by the program and one the server closed."""
    ended = run_program(CLOSED, under=False)
    assert ended.stdout.splitlines() == [
        "closed_by_us LS204 proven closed",
        "terminated_by_us LS204 proven closed",
        "closed_by_the_server LS501 proven not",
        "cut_off LS202 proven closed",
        "closed_pool LS204 proven nothing",
    ]


#: How a loop gets a thread of its own whose only target it is, and the function that starts that.
BEGIN = """
def begin():
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop
"""
BACKGROUND = {
    "module's loop": ("loop = asyncio.new_event_loop()" + BEGIN, "begin"),
    "made before": (
        """
class Background:
    def __init__(self): self.loop = asyncio.new_event_loop()
    def launch(self):
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self.loop
def begin(): return Background().launch()
""",
        "launch",
    ),
    "class method": (
        """
class Background:
    loop = asyncio.new_event_loop()
    @classmethod
    def begin(cls):
        threading.Thread(target=cls.loop.run_forever, daemon=True).start()
        return cls.loop
begin = Background.begin
""",
        "begin",
    ),
    "uvloop": ("import uvloop; loop = uvloop.new_event_loop()" + BEGIN, "begin"),
    "two that can": (
        "loop = asyncio.new_event_loop()" + BEGIN + BEGIN.replace("begin", "other"),
        "begin" if sys.version_info >= (3, 12) else None,
    ),
}
OWNED = """
import asyncio, json, os, threading
import asyncpg
import loopsentry

{text}

async def connect(): return await asyncpg.connect(os.environ["SCENARIO_DSN"])
async def use(connection): await connection.fetch("select 1")
loop = begin()
connection = asyncio.run_coroutine_threadsafe(connect(), loop).result()
try:
    asyncio.run(use(connection))
except Exception as exc:
    told = loopsentry.diagnose(exc)
    place = told.owner_loop.started_by
    print(json.dumps([told.code, place and place.function]))
os._exit(0)  # the server's answer may have reached the other loop's thread
"""


@pytest.mark.parametrize("form", BACKGROUND)
def test_who_started_a_thread_that_only_runs_a_loop_is_found(
    run_program: RunProgram, form: str
) -> None:
    """Its stack shows no line of the program's; the one function that names `run_forever` does."""
    text, starter = BACKGROUND[form]
    if "uvloop" in text:
        pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    # A crash of the interpreter is asyncpg's own: two threads use one connection.
    results = [run_program(OWNED.format(text=text)) for _ in range(3)]
    told = [json.loads(ended.stdout) for ended in results if ended.stdout]
    assert told
    assert all(each == ["LS102", starter] for each in told), told


#: How an executor is given `asyncio.run` itself, so that no line of the program's is on its stack.
HANDED_IN = {
    "result": "concurrent.futures.ThreadPoolExecutor(1).submit(asyncio.run, {0}).result()",
    "map": "list(concurrent.futures.ThreadPoolExecutor(1).map(asyncio.run, [{0}]))",
    "to_thread": "asyncio.run(asyncio.to_thread(asyncio.run, {0}))",
    "run_in_executor": "asyncio.run(in_executor({0}))",
}
EXECUTOR = (
    LOCKED
    + """\
    print(json.dumps([told.code, *(loop and loop.started_by.function for loop in loops)]))
"""
)


@pytest.mark.parametrize("form", HANDED_IN)
def test_who_hands_a_loop_to_an_executor_starts_it(run_program: RunProgram, form: str) -> None:
    """Who waits for the result of the work, in a thread or in a task, is who started the loop."""
    work = HANDED_IN[form].format("twice()")
    own, other = "asyncio.run(twice())", "in_executor" if form == "run_in_executor" else None
    for first, second, expected in (
        (work, own, [other or "first", "second"]),
        (own, work, ["first", other or "second"]),
    ):
        ended = run_program(EXECUTOR.format(first=first, second=second), under=False)
        assert json.loads(ended.stdout) == ["LS104", *expected], ended.output
