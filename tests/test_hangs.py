"""Event loops that stand still: what is proven of them, and that no healthy program is accused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

import loopsentry
from loopsentry.causes import pool_exhausted
from loopsentry.model import Evidence, Holder, Symptom
from loopsentry.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from conftest import RunProgram

WATCH = {"LOOPSENTRY_WATCH": "0.4"}
HEAD = """
import asyncio, functools, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
"""


def mostly_slow(names: Iterable[str], *often: str) -> list[Any]:
    """All names of a matrix, of which only some are tried in each run: each takes seconds."""
    return [each if each in often else pytest.param(each, marks=pytest.mark.slow) for each in names]


def later(call: str) -> str:
    """A program whose coroutine `wait` needs what another thread does with `call`."""
    return f"""
    async def main():
        loop = asyncio.get_running_loop()
        future, event, queue, lock = (
            loop.create_future(), asyncio.Event(), asyncio.Queue(), asyncio.Lock())
        await lock.acquire()
        def other():
            time.sleep(0.2)
            {call}
        threading.Thread(target=other).start()
        async def wait():
            {{wait}}
        await asyncio.wait([loop.create_task(wait(), name="waiter")], timeout=2.5)
    asyncio.run(main())
    """


SWALLOWS = """
failed = []
async def worker(queue):
    while True:
        try:
            {waits}
        except asyncio.CancelledError:
            if failed:
                raise
            failed.append(1)
async def main():
    task = asyncio.create_task(worker(asyncio.Queue()))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    threading.Timer(2.5, loop.call_soon_threadsafe, [task.cancel]).start()
    {ends}
asyncio.run(main())
"""

HANGS: dict[str, tuple[str, str | None, str]] = {
    "future": ("LS601", "wait", later('future.set_result("42")').format(wait="await future")),
    "failed future": (
        "LS601",
        "wait",
        later("future.set_exception(OSError())").format(
            wait="await asyncio.gather(future, return_exceptions=True)"
        ),
    ),
    "event": ("LS601", "wait", later("event.set()").format(wait="await event.wait()")),
    "queue": ("LS601", "wait", later("queue.put_nowait(1)").format(wait="await queue.get()")),
    "lock": ("LS601", "wait", later("lock.release()").format(wait="await lock.acquire()")),
    "a task that another thread made": (
        "LS601",
        "job",
        """
    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async def job(): done.set()
        threading.Timer(0.2, lambda: loop.create_task(job())).start()
        await asyncio.wait([loop.create_task(done.wait())], timeout=2.5)
    asyncio.run(main())
    """,
    ),
    "a stop by another thread": (
        "LS601",
        None,
        """
    loop = asyncio.new_event_loop()
    threading.Timer(0.2, loop.stop).start()
    threading.Timer(2.5, loop.call_soon_threadsafe, [print]).start()
    loop.run_forever()
    """,
    ),
    "result": (
        "LS602",
        "count",
        """
    async def answer(): return 42
    def count(loop): return asyncio.run_coroutine_threadsafe(answer(), loop).result(2.5)
    async def main(): count(asyncio.get_running_loop())
    asyncio.run(main())
    """,
    ),
    "result of a task that has begun": (
        "LS602",
        "count",
        """
    async def answer():
        await asyncio.sleep(0.1)
        return 42
    def count(future): return future.result(2.5)
    async def main():
        future = asyncio.run_coroutine_threadsafe(answer(), asyncio.get_running_loop())
        await asyncio.sleep(0.05)
        count(future)
    asyncio.run(main())
    """,
    ),
    "join": (
        "LS602",
        "wait_for",
        """
    async def answer(): return 42
    def ask(loop):
        asyncio.run_coroutine_threadsafe(answer(), loop).result()
    def wait_for(thread): thread.join(2.5)
    async def main():
        thread = threading.Thread(target=ask, args=(asyncio.get_running_loop(),))
        thread.start()
        wait_for(thread)
    asyncio.run(main())
    """,
    ),
    "a lock of threading": (
        "LS602",
        "work",
        """
    lock = threading.Lock()
    async def work():
        with lock: await asyncio.sleep(0.1)
    async def main(): await asyncio.gather(work(), work())
    threading.Timer(2.5, lock.release).start()
    try: asyncio.run(main())
    except RuntimeError as exc: assert "unlocked" in str(exc)
    """,
    ),
    "an object's lock of threading": (
        "LS602",
        "second",
        """
    class Store:
        def __init__(self): self.lock = threading.Lock()
    class Work:
        def __init__(self): self.store = Store()
        async def first(self):
            with self.store.lock: await asyncio.sleep(0.1)
        async def second(self):
            lock = self.store.lock
            lock.acquire(timeout=2.5)
    async def main():
        work = Work()
        await asyncio.gather(work.first(), work.second())
    asyncio.run(main())
    """,
    ),
    "two loops for each other": (
        "LS602",
        "main",
        """
    other = asyncio.new_event_loop()
    threading.Thread(target=other.run_forever, daemon=True).start()
    async def main():
        loop = asyncio.get_running_loop()
        async def here(): return 1
        async def there():
            time.sleep(0.5)  # so that this loop stands still for longer
            return asyncio.run_coroutine_threadsafe(here(), loop).result(3)
        try: asyncio.run_coroutine_threadsafe(there(), other).result(2)
        except TimeoutError: pass
    asyncio.run(main())
    """,
    ),
    "swallowed": (
        "LS603",
        "worker",
        SWALLOWS.format(waits="await queue.get()", ends="return"),
    ),
}

#: Cancelled tasks that go round again, each with what waits and how the program ends.
GO_ROUND = {
    "sleeps for long": ("await asyncio.sleep(3600)", "return"),
    "sleeps again and again": ("await asyncio.sleep(0.05)", "return"),
    "waits, and its program waits for it": (
        "await queue.get()",
        "task.cancel(); await asyncio.wait([task])",
    ),
    "sleeps for long, and its program waits for it": (
        "await asyncio.sleep(3600)",
        "task.cancel(); await asyncio.gather(task, return_exceptions=True)",
    ),
}


@pytest.mark.parametrize("name", mostly_slow(GO_ROUND, "sleeps for long"))
def test_a_cancelled_task_that_goes_round_again_is_told(name: str, run_program: RunProgram) -> None:
    """A worker that swallows its cancellation and loops is likely never to end, and is named."""
    waits, ends = GO_ROUND[name]
    ended = run_program(HEAD + SWALLOWS.format(waits=waits, ends=ends), env=WATCH)
    [record] = ended.records
    assert (record["code"], record["certainty"]) == ("LS603", "likely"), ended.output
    assert record["used_at"]["function"] == "worker", ended.output
    assert [fix["id"] for fix in record["fixes"]] == ["end-on-cancel"], ended.output


POOL = """
import os, anyio, asyncpg
kept = []
async def hold(pool):
    kept.append(await pool.acquire())
async def nested(pool):
    async with pool.acquire() as first:
        async with pool.acquire(): pass
async def ask(pool):
    async with pool.acquire(): pass
async def work(pool):
    async with pool.acquire() as connection: await connection.execute("select pg_sleep(2)")
async def limited(pool):
    async with asyncio.timeout(2): await pool.acquire()
async def moved_on(pool):
    with anyio.move_on_after(2): await pool.acquire()
async def main():
    pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1, max_size=1)
    {body}
    pool.terminate()
asyncio.run(main())
"""
#: What empties a pool, how sure that is, and in which function that is told.
EMPTIES = {
    "one task asks twice": ("asyncio.wait([asyncio.create_task(nested(pool))]", "proven", "nested"),
    "a connection is kept": (
        "hold(pool); await asyncio.wait([asyncio.create_task(ask(pool))]",
        "likely",
        "ask",
    ),
    "the last one is at work": (
        "asyncio.wait([asyncio.create_task(f(pool)) for f in (work, ask)]",
        "",
        "",
    ),
    "a block limits the time": (
        "hold(pool); await asyncio.wait([asyncio.create_task(limited(pool))]",
        "",
        "",
    ),
    "anyio limits the time": (
        "hold(pool); await asyncio.wait([asyncio.create_task(moved_on(pool))]",
        "",
        "",
    ),
    "time is limited": (
        "hold(pool); await asyncio.wait([asyncio.create_task(pool.acquire(timeout=2))]",
        "",
        "",
    ),
}


@pytest.mark.parametrize("name", mostly_slow(EMPTIES, "one task asks twice"))
def test_a_pool_that_nothing_comes_back_to_is_told(name: str, run_program: RunProgram) -> None:
    """Who waits for a pool without a limit is told when nobody can give a connection back."""
    body, certainty, function = EMPTIES[name]
    ended = run_program(HEAD + POOL.format(body=f"await {body}, timeout=2.5)"), env=WATCH)
    told = [
        (r["code"], r["certainty"], (r["used_at"] or {}).get("function")) for r in ended.records
    ]
    assert told == ([("LS604", certainty, function)] if certainty else []), ended.output
    assert all(r["holders"] and r["waits"] and r["fixes"] for r in ended.records)


HEALTHY: dict[str, str] = {
    "blocks in a coroutine": "async def main(): time.sleep(2)\nasyncio.run(main())",
    "blocks in a bare callback": """
    async def main():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(time.sleep, 2)
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future
    asyncio.run(main())
    """,
    "computes": """
    async def main():
        end = time.monotonic() + 2
        while time.monotonic() < end: sum(range(100_000))
    asyncio.run(main())
    """,
    "idles": "asyncio.run(asyncio.sleep(2))",
    "is busy with many tasks": """
    async def work():
        end = time.monotonic() + 2
        while time.monotonic() < end: await asyncio.sleep(0)
    async def main(): await asyncio.gather(*(work() for _ in range(200)))
    asyncio.run(main())
    """,
    "waits for a thread that works": """
    async def main(): await asyncio.gather(*(asyncio.to_thread(time.sleep, 1) for _ in range(12)))
    asyncio.run(main())
    """,
    "joins a thread that works": """
    async def main():
        thread = threading.Thread(target=time.sleep, args=(2,)); thread.start(); thread.join()
    asyncio.run(main())
    """,
    "asks the loop of another thread": """
    async def answer(): await asyncio.sleep(2)
    other = asyncio.new_event_loop()
    threading.Thread(target=other.run_forever, daemon=True).start()
    async def main(): asyncio.run_coroutine_threadsafe(answer(), other).result()
    asyncio.run(main())
    """,
    "tidies up slowly": """
    async def work():
        event = asyncio.Event()
        try: await event.wait()
        finally:
            asyncio.get_running_loop().call_later(2, event.set)
            await event.wait()
    async def main():
        task = asyncio.create_task(work()); await asyncio.sleep(0)
    asyncio.run(main())
    """,
    "drains after it was cancelled": """
    async def work():
        try: await asyncio.Event().wait()
        except asyncio.CancelledError: pass
        for _ in range(20): await asyncio.sleep(0.1)
    async def main():
        task = asyncio.create_task(work()); await asyncio.sleep(0)
    asyncio.run(main())
    """,
    "goes on until it is done, though cancelled": """
    async def work():
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try: await asyncio.sleep(0.1)
            except asyncio.CancelledError: pass
    async def main():
        task = asyncio.create_task(work()); await asyncio.sleep(0)
    asyncio.run(main())
    """,
    "waits for a task that tidies up": """
    async def work():
        while True:
            try: await asyncio.sleep(3600)
            finally: await asyncio.sleep(2)
    async def main():
        task = asyncio.create_task(work()); await asyncio.sleep(0)
        task.cancel(); await asyncio.wait([task])
    asyncio.run(main())
    """,
    "waits for a lock that a thread has": """
    lock = threading.Lock()
    def work():
        with lock: time.sleep(2)
    async def main():
        thread = threading.Thread(target=work); thread.start(); time.sleep(0.1)
        with lock: pass
    asyncio.run(main())
    """,
    "sleeps while it has a lock": """
    lock = threading.Lock()
    async def main():
        with lock: time.sleep(2)
    asyncio.run(main())
    """,
    "asks a loop that asks a third": """
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in loops: threading.Thread(target=loop.run_forever, daemon=True).start()
    async def answer(): await asyncio.sleep(2)
    async def pass_on(): asyncio.run_coroutine_threadsafe(answer(), loops[1]).result()
    async def main(): asyncio.run_coroutine_threadsafe(pass_on(), loops[0]).result()
    asyncio.run(main())
    """,
    "closes what it entered slowly": """
    class Slow:
        async def __aenter__(self): return self
        async def __aexit__(self, *exc):
            event = asyncio.Event()
            asyncio.get_running_loop().call_later(2, event.set)
            await event.wait()
    async def work():
        async with Slow(): await asyncio.Event().wait()
    async def main():
        task = asyncio.create_task(work()); await asyncio.sleep(0)
    asyncio.run(main())
    """,
    "hands over as it should": """
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(30):
            future = loop.create_future()
            threading.Timer(0.1, loop.call_soon_threadsafe, [future.set_result, 1]).start()
            await future
    asyncio.run(main())
    """,
    "collects garbage for long": """
    import gc
    async def main():
        kept = [[] for _ in range(1_500_000)]
        for _ in range(12): gc.collect(); await asyncio.sleep(0)
    asyncio.run(main())
    """,
}


@pytest.mark.parametrize("name", mostly_slow(HANGS, "future", "result", "join", "swallowed"))
def test_a_hang_is_proven(name: str, run_program: RunProgram) -> None:
    """A loop that stands still is told while it does, once, with who waits where."""
    code, function, program = HANGS[name]
    ended = run_program(HEAD + textwrap.dedent(program), env=WATCH)
    [record] = ended.records
    assert (record["code"], record["certainty"]) == (code, "proven"), ended.output
    assert record["waits"], ended.output
    assert (record["used_at"] or {}).get("function") == function, ended.output
    assert f"error[{code}]: " in ended.stderr
    assert record["fixes"], ended.output


#: How a loop is left asleep, and what the first cure has to call.
UNHEARD = {
    "a task": ("loop.create_task(job())", "asyncio.run_coroutine_threadsafe(job(), loop)"),
    "a future": (
        "asyncio.ensure_future(job(), loop=loop)",
        "run_coroutine_threadsafe(job(), loop)",
    ),
    "a call": ("loop.call_soon(done.set)", "loop.call_soon_threadsafe("),
    "an event": ("done.set()", "loop.call_soon_threadsafe("),
    "a stop": ("loop.stop()", "loop.call_soon_threadsafe(loop.stop)"),
}


@pytest.mark.parametrize("by", mostly_slow(["thread", "signal"], "thread"))
@pytest.mark.parametrize("what", mostly_slow(UNHEARD, "a task", "a stop"))
def test_the_cure_wakes_the_loop_for_what_was_done(
    what: str, by: str, run_program: RunProgram
) -> None:
    """What a thread or a signal's handler did unheard is offered the call that wakes."""
    if by == "signal" and not hasattr(signal, "SIGUSR2"):
        pytest.skip("needs a signal that a program may have for itself")
    call, cure = UNHEARD[what]
    setting = {
        "thread": "threading.Timer(0.2, lambda: {call}).start()",
        "signal": "signal.signal(signal.SIGUSR2, lambda *_: {call});"
        " threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGUSR2]).start()",
    }[by].format(call=call)
    program = f"""
import os, signal
loop = asyncio.new_event_loop()
done = asyncio.Event()
async def job(): done.set()
async def main():
    {setting}
    await asyncio.wait([loop.create_task(done.wait())], timeout=2.5)
    loop.stop()
loop.create_task(main())
loop.run_forever()
"""
    ended = run_program(HEAD + program, env=WATCH)
    [record] = ended.records
    assert (record["code"], record["certainty"]) == ("LS601", "proven"), ended.output
    assert cure in record["fixes"][0]["snippet"], ended.output


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_program_is_not_accused(name: str, run_program: RunProgram) -> None:
    """Whatever keeps a healthy loop busy, or idle, nothing is told of it."""
    ended = run_program(HEAD + textwrap.dedent(HEALTHY[name]), env=WATCH)
    assert (ended.returncode, ended.records) == (0, []), ended.output


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_process_that_was_stopped_is_not_accused(tmp_path: Path) -> None:
    """A busy program that a signal stops for seconds, again and again, is not taken for hung."""
    (tmp_path / "main.py").write_text(HEAD + textwrap.dedent(HEALTHY["is busy with many tasks"]))
    report = tmp_path / "report.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "loopsentry", "run", "main.py"],
        cwd=tmp_path,
        env={**os.environ, **WATCH, "LOOPSENTRY_REPORT": str(report)},
    ) as process:
        for _ in range(3):
            time.sleep(0.6)
            process.send_signal(signal.SIGSTOP)
            time.sleep(1.2)
            process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert not report.exists() or not report.read_text("utf-8")


UVLOOP = """
import asyncio, time, uvloop
async def main():
    asyncio.get_running_loop().call_soon(time.sleep, 2)
    await asyncio.sleep(3)
uvloop.run(main())
"""


@pytest.mark.slow
def test_uvloop_is_not_accused(run_program: RunProgram) -> None:
    """A loop without frames, which cannot be looked into, is left alone."""
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    ended = run_program(UVLOOP, env=WATCH)
    assert (ended.returncode, ended.records) == (0, []), ended.output


UNSEEN = """
import asyncio, os, sys, threading, warnings
warnings.simplefilter("error")
before = threading.active_count()
asyncio.run(asyncio.sleep(0.5))
assert threading.active_count() == before, threading.enumerate()
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        asyncio.run(asyncio.sleep(0.1))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
asyncio.run(asyncio.sleep(0.1))
print("as ever")
"""


def test_the_watch_is_no_thread_of_the_programs(run_program: RunProgram) -> None:
    """A program counts its own threads only, and may fork without CPython's warning."""
    ended = run_program(UNSEEN, env=WATCH)
    assert (ended.returncode, ended.stdout) == (0, "as ever\n"), ended.output


def test_the_watch_starts_again_after_it_was_stopped() -> None:
    """Stopping waits until the thread is gone; starting twice is starting once."""
    found: list[Any] = []
    dog = Watchdog(0.1, lambda *args: found.append(args))
    for _ in range(3):
        dog.start()
        dog.start()
        time.sleep(0.05)
        dog.stop()
        dog.stop()
    assert found == []


@pytest.mark.parametrize("asked", [-1, float("nan"), float("inf")])
def test_no_number_of_seconds_is_refused(asked: float) -> None:
    """What is no length of time is said to be none."""
    with pytest.raises(ValueError, match="is no number of seconds"):
        loopsentry.install(watch=asked)


def test_the_environment_may_say_nonsense(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong word in the environment is warned of, and nothing is watched."""
    monkeypatch.setenv("LOOPSENTRY_WATCH", "often")
    with loopsentry.install():
        assert "LOOPSENTRY_WATCH=often is no number of seconds" in caplog.text


# pools that have nothing left ------------------------------------------------------------------

EXHAUSTED: dict[str, tuple[str, str, str | None, str]] = {
    "sessions in a list": (
        "AsyncSession",
        "proven",
        None,
        """
    kept = []
    async def take():
        session = AsyncSession(engine)
        kept.append(session)
        await session.execute(text("select 1"))
    async def main():
        for _ in range(3): await take()
    """,
    ),
    "connections in hand of tasks": (
        "AsyncConnection",
        "proven",
        "hold",
        """
    got = []
    async def hold():
        async with engine.connect() as connection:
            got.append(connection)
            await asyncio.sleep(60)
    async def take():
        try:
            async with engine.connect(): pass
        except Exception as exc:
            loopsentry.diagnose(exc)
            raise
    async def main():
        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        while len(got) < 2: await asyncio.sleep(0.01)
        try: await take()
        except Exception as exc: logging.exception("refused")
        sys.exit(1)
    """,
    ),
    "asyncpg": (
        "asyncpg connection",
        "proven",
        "take",
        """
    async def take():
        pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1, max_size=1)
        first = await pool.acquire()
        try: second = await pool.acquire(timeout=0.5)
        except Exception as exc: logging.exception("refused")
        sys.exit(1)
    async def main(): await take()
    """,
    ),
}
#: What only Python 3.12 and newer can tell: who had them in the moment of the failure.
GIVEN_UP = """
async def audit():
    async with AsyncSession(engine) as session: await session.execute(text("select 1"))
async def handle():
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        await asyncio.sleep(0.1)
        await audit()
async def main():
    await asyncio.gather(handle(), handle())
"""
POOLS = """
import asyncio, logging, os, sys
import asyncpg, loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
engine = create_async_engine(
    os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=1
)
"""


@pytest.mark.parametrize("name", EXHAUSTED)
def test_who_has_the_connections_of_a_pool_is_told(
    name: str, dsn: str, run_program: RunProgram
) -> None:
    """Each connection that is out is told with what holds it, and the task that has it in hand."""
    label, certainty, function, program = EXHAUSTED[name]
    code = POOLS + textwrap.dedent(program) + "asyncio.run(main())\n"
    ended = run_program(code, env={"SCENARIO_DSN": dsn})
    assert ended.returncode == 1, ended.output
    [record] = [each for each in ended.records if each["code"] == "LS604"]
    assert record["certainty"] == certainty, ended.output
    assert {holder["label"] for holder in record["holders"]} == {label}, ended.output
    places = {(holder["place"] or {}).get("function") for holder in record["holders"]}
    assert places == {function}, ended.output
    assert record["fixes"][0]["id"] == "scope-session", ended.output


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
def test_who_had_the_connections_is_told_when_they_have_given_up(run_program: RunProgram) -> None:
    """Tasks that ask for a second connection are named, though all have ended when it is told."""
    ended = run_program(POOLS + GIVEN_UP + "asyncio.run(main())\n")
    [record] = ended.records
    assert (record["code"], record["certainty"]) == ("LS604", "proven"), ended.output
    assert {each["place"]["function"] for each in record["holders"]} == {"handle"}, ended.output
    assert len({each["task"] for each in record["holders"]}) == 2
    assert (
        "await work(session)  # opens none of its own: audit()" in (record["fixes"][0]["snippet"])
    )


def test_holders_on_other_loops_are_found(run_program: RunProgram) -> None:
    """What a task of another thread's loop has in hand is told of it, not of nobody."""
    code = POOLS + textwrap.dedent("""
    import threading

    ready = threading.Event()

    async def hold():
        async with AsyncSession(engine) as one, AsyncSession(engine) as two:
            await one.execute(text("select 1"))
            await two.execute(text("select 1"))
            ready.set()
            await asyncio.sleep(3)

    async def main():
        async with engine.connect():
            pass

    loopsentry.install()
    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    ready.wait()
    asyncio.run(main())
    """)
    ended = run_program(code)
    assert ended.returncode == 1, ended.output
    [record] = [each for each in ended.records if each["code"] == "LS604"]
    places = [holder["place"]["function"] for holder in record["holders"]]
    assert places == ["hold", "hold"], ended.output


def test_a_synchronous_pool_is_no_business_of_ours(run_program: RunProgram) -> None:
    """The pool of an ordinary engine that has nothing left is left alone."""
    ended = run_program(
        """
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool
options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
engine = create_engine("sqlite://", poolclass=QueuePool, **options)
first = engine.connect()
engine.connect()
"""
    )
    assert ended.returncode == 1
    assert ended.records == [], ended.output


# under pytest ----------------------------------------------------------------------------------

STANDING = """
import asyncio, threading, time
import sqlalchemy.ext.asyncio

def test_it():
    async def ask():
        future = asyncio.get_running_loop().create_future()
        threading.Timer(0.2, future.set_result, ["42"]).start()
        await asyncio.wait([future], timeout=4)
        assert future.result() == "43"
    asyncio.run(ask())
"""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the test above under pytest, with the plugin."""
    (folder / "test_it.py").write_text(STANDING)
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("LOOPSENTRY", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=bare,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_test_that_stands_still_is_told_at_once_and_in_its_report(tmp_path: Path) -> None:
    """Past the capture while it stands, and in the section of the test that fails of it."""
    ended = run_pytest(tmp_path, "-o", "loopsentry_watch=1")
    assert "loopsentry: test_it.py::test_it stands still\nerror[LS601]" in ended.stderr
    section = ended.stdout.split(" loopsentry ---")[1]
    assert "error[LS601]" in section
    assert "test_it.py:9 ask(), Task-1; waits for what is done already" in section


def test_the_watch_of_pytest_can_be_turned_off(tmp_path: Path) -> None:
    """With 0 nothing is watched."""
    ended = run_pytest(tmp_path, "-o", "loopsentry_watch=0")
    assert "LS601" not in ended.stdout + ended.stderr


def test_a_watch_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """A wrong word in the ini file ends the run, with what is wrong."""
    ended = run_pytest(tmp_path, "-o", "loopsentry_watch=often")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "loopsentry_watch: 'often' is no number of seconds" in ended.stderr


def test_tasks_that_were_not_searched_are_not_said_to_hold_nothing() -> None:
    """Where the search was cut short nothing is claimed of those that it did not reach."""
    said = Symptom(kind="exhausted", library="sqlalchemy", type="TimeoutError", text="")
    for searched in (False, True):
        holders = (Holder(label="AsyncSession", searched=searched),)
        verdict = pool_exhausted.match(Evidence(symptoms=(said,), holders=holders))
        assert verdict is not None
        assert ("no task at work" in verdict.notes[0]) is searched
