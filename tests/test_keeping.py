"""Nothing of the program's is kept or touched, and no outcome changes unless that is asked for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from inner import Project
from sqlalchemy.ext.asyncio import create_async_engine

import loopsentry
from loopsentry import _safely, _variables, engines, installation
from loopsentry.asgi import LoopSentryMiddleware
from loopsentry.registry import MISTAKES_KEPT, Registry

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Database, RunProgram

ENGINE = """
import asyncio, gc, os, sys, warnings
import loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
settings = {"server_settings": {"application_name": "kept-%d" % os.getpid()}}
engine = create_async_engine(os.environ["DATABASE_URL"], connect_args=settings)
async def use(wait=0):
    async with AsyncSession(engine) as session:
        found = await session.scalar(text("select 1"))
        await asyncio.sleep(wait)
        return found
def attempt(wait=0):
    try: asyncio.run(use(wait)); return "works"
    except Exception as exc: return type(exc).__name__
async def states():
    import asyncpg
    watcher = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    rows = await watcher.fetch("select state from pg_stat_activity where application_name = $1",
        settings["server_settings"]["application_name"])
    await watcher.close()
    return sorted(row["state"] for row in rows)
"""


@pytest.fixture
def project(tmp_path: Path, url: str) -> Project:
    """Give an empty project."""
    return Project(tmp_path, url)


# outcomes ---------------------------------------------------------------------------------


def test_by_default_a_crossing_ends_as_without(run_program: RunProgram) -> None:
    """Four runs on one engine come to the same as without loopsentry, and so does the exit."""
    program = ENGINE + "print([attempt() for _ in range(4)])\nsys.exit(attempt() != 'works')\n"
    bare, under = run_program(program, under=False), run_program(program)
    assert under.stdout == bare.stdout
    assert under.returncode == bare.returncode == 1
    assert "loopsentry failed" not in under.stderr


SUITE = """
import asyncio, gc, os
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
@pytest.mark.parametrize("number", range(3))
def test_crossing(number): asyncio.run(use())
def test_innocent(): gc.collect()
"""


def test_a_suite_of_crossings_has_the_outcomes_of_the_bare_one(project: Project) -> None:
    """Under `filterwarnings = error` the same tests pass and fail with the plugin and without."""
    settings = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    settings += "filterwarnings = error\n"
    project.write({"test_it.py": SUITE, "pytest.ini": settings})
    bare = project.run("-p", "no:loopsentry", "-rA")
    watched = project.run("-rA")
    assert watched.outcomes() == bare.outcomes()
    assert ("PASSED test_it.py::test_innocent" in watched.output) == (
        "PASSED test_it.py::test_innocent" in bare.output
    )
    assert "_cancel" not in watched.output
    assert watched.sections


@pytest.mark.parametrize("uvloop", [False, True])
def test_an_evicted_connection_is_ended_at_once(run_program: RunProgram, uvloop: bool) -> None:
    """With evict=True no backend, transaction, coroutine or word at exit is left of it."""
    if uvloop:
        pytest.importorskip("uvloop")
    program = (
        ENGINE
        + ("" if uvloop else "warnings.simplefilter('error')\n")  # it warns at its own close()
        + """
loopsentry.install(evict=True)
for _ in range(3):
    print(attempt(), attempt(), asyncio.run(states()))
    gc.collect()
asyncio.run(engine.dispose())
"""
    )
    ended = run_program(
        program.replace("import asyncio", "import uvloop, asyncio").replace(
            "asyncio.run(", "uvloop.run("
        )
        if uvloop
        else program
    )
    assert ended.stdout.splitlines() == ["works RuntimeError []"] * 3
    assert "Exception ignored" not in ended.stderr
    assert "never awaited" not in ended.stderr


def test_an_evicted_connection_of_a_living_loop_is_ended_by_it(run_program: RunProgram) -> None:
    """A connection that a loop in another thread owns is ended there; that loop works on."""
    ended = run_program(
        ENGINE
        + """
import threading, time
loopsentry.install(evict=True)
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
def there(): return asyncio.run_coroutine_threadsafe(use(), loop).result(10)
# Where the owner reads the answer before it is awaited here, it is the next step that is refused.
print(there(), attempt() in ("RuntimeError", "InterfaceError"))
time.sleep(0.2)
print(asyncio.run(states()), there())
"""
    )
    assert ended.stdout.splitlines() == ["1 True", "[] 1"]


def test_the_echo_is_explained_by_the_first_failure_without_healing(
    run_program: RunProgram,
) -> None:
    """A connection left busy fails each time, and each time the first failure is named."""
    ended = run_program(
        ENGINE
        + """
attempt()
for _ in range(3):
    try: asyncio.run(use())
    except Exception as exc: print(type(exc).__name__, "first" in "".join(exc.__notes__))
"""
    )
    names = [line.split()[0] for line in ended.stdout.splitlines()]
    assert names == ["RuntimeError", "InterfaceError", "InterfaceError"]
    assert len(ended.records) == 1


# what is kept -----------------------------------------------------------------------------


class Heavy:
    """State of a request."""


def test_a_request_does_not_outlive_its_end() -> None:
    """Contexts that were copied during a request, as connections do, keep nothing of it alive."""
    contexts: list[contextvars.Context] = []
    alive: weakref.WeakSet[Heavy] = weakref.WeakSet()

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        contexts.append(contextvars.copy_context())
        assert scope["state"]

    async def serve() -> None:
        middleware = LoopSentryMiddleware(application)
        for _ in range(5):
            state = Heavy()
            alive.add(state)
            await middleware({"type": "http", "state": state}, None, None)  # type: ignore[arg-type]
            del state

    asyncio.run(serve())
    gc.collect()
    assert len(contexts) == 5
    assert list(alive) == []


def test_a_request_may_be_closed_from_another_context() -> None:
    """Closing a suspended request elsewhere, as a server that gives up does, raises nothing."""

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(3600)

    async def serve() -> None:
        call = LoopSentryMiddleware(application)({"type": "http"}, None, None)  # type: ignore[arg-type]
        contextvars.copy_context().run(call.send, None)
        contextvars.copy_context().run(call.close)

    asyncio.run(serve())


def test_the_route_is_told_again_after_a_new_install() -> None:
    """uninstall() and install() in the life of one middleware lose nothing of what it tells."""
    told: list[Any] = []

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        installed = installation.current()
        assert installed is not None
        told.append(installed.registry.surroundings())

    middleware = LoopSentryMiddleware(application)
    for _ in range(2):
        with loopsentry.install():
            asyncio.run(middleware({"type": "http", "method": "GET"}, None, None))  # type: ignore[arg-type]
    assert told == [{"name": "http"}] * 2


def test_nothing_is_written_into_a_connections_info(database: Database) -> None:
    """`connection.info` and its record's belong to the program."""

    async def look(engine: Any) -> list[dict[Any, Any]]:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            found = [dict(connection.sync_connection.info), dict(raw.record_info or {})]
        await engine.dispose()
        return found

    with loopsentry.install():
        engine = database.engine()
        for _ in range(2):
            assert asyncio.run(look(engine)) == [{}, {}]


def test_a_handler_that_was_chained_to_is_silent_after_uninstall() -> None:
    """A loop's handler that calls the one before it hears no notes from an uninstalled one."""
    heard: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        installed = installation.current()
        assert installed is not None
        installed.registry.meet(loop, lambda: ())
        ours = loop.get_exception_handler()
        assert ours is not None

        def mine(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            heard.append(context["exception"])
            ours(loop, {"message": "passed on", "exception": context["exception"]})

        loop.set_exception_handler(mine)
        loopsentry.uninstall()
        loop.call_exception_handler({"exception": RuntimeError("Event loop is closed")})

    loopsentry.install()
    asyncio.run(main())
    assert len(heard) == 1
    assert not hasattr(heard[0], "__notes__")


def test_locals_of_the_programs_frames_are_not_kept_alive() -> None:
    """A diagnosis that looked at a frame's variables keeps none of them (PEP 667 before 3.13)."""
    kept: list[weakref.ref[Heavy]] = []

    async def wait_for(future: Any) -> None:
        heavy = Heavy()
        kept.append(weakref.ref(heavy))
        with pytest.raises(RuntimeError) as caught:
            await future
        assert loopsentry.diagnose(caught.value).code == "LS105"
        del heavy
        assert kept[0]() is None

    other = asyncio.new_event_loop()
    future = other.create_future()
    asyncio.run(wait_for(future))
    other.close()


# bounded ----------------------------------------------------------------------------------


def test_many_failing_runs_are_one_mistake(run_program: RunProgram) -> None:
    """Hundreds of `asyncio.run` that fail for one reason make few records and no more memory."""
    ended = run_program(
        """
import asyncio, gc, sys
import loopsentry
lock = asyncio.Lock()
async def hold():
    async with lock: await asyncio.sleep(0)
async def main(): await asyncio.gather(hold(), hold(), return_exceptions=True)
async def again():
    found = await asyncio.gather(hold(), hold(), return_exceptions=True)
    for each in found:
        if isinstance(each, RuntimeError): loopsentry.installation.current().examiner.report(each)
asyncio.run(main())
def run():
    for _ in range(300): asyncio.run(again())
def sizes():
    registry = loopsentry.installation.current().registry
    return [len(each) for each in (registry.counts, registry.loop_records, registry.failures)]
run(); gc.collect(); first = sizes()
run(); gc.collect(); print(first[0], sizes()[0])
""",
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    before, after = map(int, ended.stdout.split())
    assert before == after <= 3
    assert len(ended.records) <= 3


def test_the_last_thousand_mistakes_are_remembered() -> None:
    """The register of mistakes does not grow for ever."""
    registry = Registry()
    diagnosis = loopsentry.diagnose(RuntimeError("Event loop is closed"))
    for number in range(2 * MISTAKES_KEPT):
        registry.count(replace(diagnosis, id=f"LS000-{number}"))
    assert len(registry.counts) == MISTAKES_KEPT


def test_the_variable_of_an_engine_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of one engine share one search, and what was not found is not searched again."""
    searches: list[object] = []
    search = _variables.find_variable

    def follow(holds: Any, makers: frozenset[str]) -> Any:
        searches.append(makers)
        return search(holds, makers)

    monkeypatch.setattr(engines, "find_variable", follow)
    engine = create_async_engine("sqlite+aiosqlite://")
    registry = Registry()
    for number in range(20):
        view = engine.execution_options(number=number)
        assert engines.engine_of(view, registry) is not None
    assert len(searches) == len({"engine", "sessionmaker"})


# robust -----------------------------------------------------------------------------------


def test_installing_from_many_threads_is_installing_once() -> None:
    """However many threads call install() at once, there is one installation."""
    for _ in range(20):
        barrier = threading.Barrier(4)

        def work(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            loopsentry.install()

        before = sys.excepthook
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(installation._installed) == 1
        loopsentry.uninstall()
        assert sys.excepthook is before


def test_a_program_whose_directory_is_gone_is_diagnosed(run_program: RunProgram) -> None:
    """A working directory that was deleted costs neither the diagnosis nor its places."""
    ended = run_program(
        ENGINE
        + """
import tempfile
folder = tempfile.mkdtemp()
os.chdir(folder); os.rmdir(folder)
print(attempt(), attempt())
"""
    )
    assert ended.stdout.split() == ["works", "RuntimeError"]
    (record,) = ended.records
    assert record["code"] == "LS101"
    assert record["used_at"]["file"].endswith("main.py")
    assert "loopsentry failed" not in ended.stderr


@pytest.mark.parametrize("place", ["module", "thread", "atexit", "cycle"])
def test_a_failure_at_the_interpreters_end_is_no_failure_of_ours(
    run_program: RunProgram, place: str
) -> None:
    """What fails while modules are taken apart, greenlet's among them, is met without complaint."""
    ended = run_program(
        ENGINE
        + """
class Late:
    def __del__(self):
        try:
            asyncio.run(use())
        except BaseException as exc:
            import logging
            logging.getLogger("late").exception("at exit")
            raise
import atexit, threading
place = sys.argv[1]
attempt()
if place == "module":
    kept = Late()
elif place == "thread":
    local = threading.local(); local.kept = Late()
elif place == "atexit":
    atexit.register(Late().__del__)
else:
    kept = [Late()]; kept.append(kept)
""",
        place,
    )
    assert ended.returncode == 0, ended.output
    assert "loopsentry failed" not in ended.output


def test_titles_survive_without_docstrings(run_program: RunProgram) -> None:
    """Under `python -OO`, which drops docstrings, messages have their titles."""
    ended = run_program(
        """
import subprocess, sys
code = (
    "import loopsentry; print(loopsentry.explain('LS501').splitlines()[2]);"
    " print(loopsentry.diagnose(RuntimeError('Event loop is closed')).title)"
)
subprocess.run([sys.executable, "-OO", "-c", code], check=True)
"""
    )
    lines = ended.stdout.splitlines()
    assert lines[0] == "*connection closed by the server, the network or a pooler*"
    assert lines[1] == "the facts do not decide"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_report_file_that_is_a_fifo_blocks_nobody(run_program: RunProgram, tmp_path: Any) -> None:
    """A FIFO that nobody reads holds up neither the program nor its end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    program = ENGINE + "print(attempt(), attempt())\n"
    ended = run_program(program, env={"LOOPSENTRY_REPORT": str(path)}, timeout=20)
    assert ended.stdout.split() == ["works", "RuntimeError"]


def test_records_survive_odd_names(run_program: RunProgram) -> None:
    """A record with a lone surrogate or a line separator is one line of valid JSON."""
    ended = run_program(
        """
import asyncio, loopsentry
future = asyncio.new_event_loop().create_future()
async def main():
    asyncio.current_task().set_name("odd \\ud800 \\u2028 \\x85 \\n name")
    try: await future
    except RuntimeError as exc: loopsentry.installation.current().examiner.report(exc)
asyncio.run(main())
"""
    )
    (record,) = ended.records
    assert record["current_task"] == "odd \ud800 \u2028 \x85 \n name"


def test_a_hook_that_failed_is_not_called_again() -> None:
    """A guarded hook that raises is switched off; a program out of stack is no such failure."""
    calls: list[int] = []

    @_safely.until_failure
    def hook(kind: type[Exception]) -> None:
        calls.append(1)
        raise kind

    _safely._reported.clear()
    hook(RecursionError)
    hook(MemoryError)
    hook(LookupError)
    hook(LookupError)
    assert len(calls) == 3
    _safely._reported.clear()
