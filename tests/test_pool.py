"""LoopLocalPool, on a real PostgreSQL: one engine, and event loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import loopsentry
from loopsentry import LoopLocalPool
from loopsentry._loop_pool import LoopPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from conftest import Database, RunProgram

BACKEND = text("select pg_backend_pid()")


async def ask(engine: AsyncEngine) -> int:
    """Say which backend answers."""
    async with AsyncSession(engine) as session:
        return int((await session.execute(BACKEND)).scalar_one())


async def ask_at_once(engine: AsyncEngine, tasks: int) -> set[int]:
    """Say which backends answer tasks that overlap."""

    async def hold() -> int:
        async with engine.connect() as connection:
            backend = int((await connection.execute(BACKEND)).scalar_one())
            await asyncio.sleep(0.01)
            return backend

    return set(await asyncio.gather(*(hold() for _ in range(tasks))))


class LoopThread:
    """An event loop that runs in a thread of its own until it is stopped."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = new_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        """Stop the loop, without closing it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)

    def close(self) -> None:
        """Stop the loop and close it, with nothing between."""
        if self.thread.is_alive():
            self.stop()
        with warnings.catch_warnings():
            # uvloop complains of what a bare close() finds open, before it drops its timers.
            warnings.simplefilter("ignore", ResourceWarning)
            self.loop.close()
            gc.collect()


@contextmanager
def living(new_loop: Callable[[], asyncio.AbstractEventLoop], count: int) -> Iterator[list[Any]]:
    """Give that many living loops in threads."""
    threads = [LoopThread(new_loop) for _ in range(count)]
    try:
        yield threads
    finally:
        for thread in threads:
            if not thread.loop.is_closed():
                thread.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Give a way to make a loop, of each kind."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop: Any = pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop of its own."""
    return asyncio.run(work)


@pytest.fixture
def engine(database: Database) -> AsyncEngine:
    """Give an engine with a LoopLocalPool."""
    return database.engine(poolclass=LoopLocalPool)


# loops one after another, and at once ------------------------------------------------------


def test_each_run_gets_connections_of_its_own(database: Database, engine: AsyncEngine) -> None:
    """Twenty runs on one engine all work, and each one's backends are gone when it ends."""
    for _ in range(20):
        assert len(run(ask_at_once(engine, 3))) == 3
    assert run(database.backends()) == 0
    assert "Event loops: 0" in engine.pool.status()


def test_a_loop_reuses_its_own_connection(
    engine: AsyncEngine, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Two living loops ask in turns, and each is always answered by its own backend."""
    with living(new_loop, 2) as (one, two):
        answers = [(one.run(ask(engine)), two.run(ask(engine))) for _ in range(5)]
        assert len(set(answers)) == 1
        assert answers[0][0] != answers[0][1]


@pytest.mark.slow
def test_many_loops_may_open_the_first_connection_at_once(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Eight loops that start together on a new engine all work with a dialect that is ready."""
    for _ in range(5):
        engine = database.engine(poolclass=LoopLocalPool)
        ready: list[bool] = []

        async def use(engine: AsyncEngine = engine, ready: list[bool] = ready) -> None:
            async with engine.connect():
                ready.append(engine.dialect.server_version_info is not None)

        with living(new_loop, 8) as threads:
            started = [asyncio.run_coroutine_threadsafe(use(), thread.loop) for thread in threads]
            for work in started:
                work.result(30)
        assert ready == [True] * 8


def test_another_loop_takes_over_when_the_first_one_stops(engine: AsyncEngine) -> None:
    """A loop that is stopped while it opens the first connection does not block the others."""
    began = threading.Event()

    @event.listens_for(engine.sync_engine, "do_connect")
    def _hold(*_: Any) -> None:
        if not began.is_set():
            began.set()
            from sqlalchemy.util import await_only

            await_only(asyncio.sleep(3600))

    go_on = threading.Event()
    outcome: list[bool] = []

    def run_in_two_parts(loop: asyncio.AbstractEventLoop) -> None:
        stuck = loop.create_task(_open(engine))
        loop.run_forever()
        go_on.wait(30)
        loop.run_until_complete(_cancel_all(loop))
        outcome.append(stuck.cancelled())
        loop.close()

    first = asyncio.new_event_loop()
    thread = threading.Thread(target=run_in_two_parts, args=(first,))
    thread.start()
    assert began.wait(5)
    first.call_soon_threadsafe(first.stop)
    with living(asyncio.new_event_loop, 1) as (second,):
        assert second.run(asyncio.wait_for(ask(engine), 10)) > 0
        go_on.set()
        thread.join(30)
        assert outcome == [True]
        assert second.run(ask(engine)) > 0


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)


def test_a_first_connection_that_fails_lets_the_next_one_try(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """When the first loop cannot connect, a second one still initialises the dialect."""
    engine = database.engine(poolclass=LoopLocalPool)
    refused: list[int] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def _refuse(*_: Any) -> None:
        if not refused:
            refused.append(1)
            raise OSError("no route")

    with living(new_loop, 2) as (one, two):
        with pytest.raises(OSError, match="no route"):
            one.run(ask(engine))
        assert two.run(ask(engine)) > 0
        assert engine.dialect.server_version_info is not None


# the end of loops --------------------------------------------------------------------------


def test_backends_of_one_closed_loop_vanish_while_others_live_on(
    database: Database,
    engine: AsyncEngine,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """When one of four living loops is closed, just its backends are gone within a second."""
    with living(new_loop, 4) as threads:
        for thread in threads:
            assert len(thread.run(ask_at_once(engine, 2))) == 2
        threads[0].close()
        assert run(database.backends(6)) == 6
        for thread in threads[1:]:
            assert thread.run(ask(engine)) > 0


def test_a_loop_closed_with_a_connection_checked_out_ends_its_backend(
    database: Database,
    engine: AsyncEngine,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The backend ends, one warning says so, and a later commit fails instead of doing nothing."""
    loop = LoopThread(new_loop)
    session = AsyncSession(engine)
    loop.run(session.execute(BACKEND))
    with caplog.at_level(logging.WARNING, "sqlalchemy.pool"):
        loop.close()
    assert run(database.backends()) == 0
    assert [record.name for record in caplog.records] == ["sqlalchemy.pool.LoopLocalPool"]
    assert "was closed with 1 connection of it checked out" in caplog.text

    async def commit() -> None:
        await session.commit()

    with pytest.raises(exc.InterfaceError, match="closed"):
        run(commit())
    caplog.clear()
    session.sync_session.expunge_all()


def test_a_loop_that_ends_in_order_closes_its_connections_in_order(
    database: Database, engine: AsyncEngine
) -> None:
    """At the end of asyncio.run the `close` event is heard, while the loop still runs."""
    running: list[bool] = []

    @event.listens_for(engine.sync_engine, "close")
    def _closed(*_: Any) -> None:
        running.append(asyncio._get_running_loop() is not None)

    run(ask_at_once(engine, 2))
    assert running == [True, True]
    assert run(database.backends()) == 0


def test_nothing_is_left_of_closed_loops(
    engine: AsyncEngine, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Parts, owners and watched generators of closed loops do not add up."""
    for _ in range(100):
        loop = new_loop()
        loop.run_until_complete(ask(engine))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    gc.collect()
    pool: Any = engine.pool
    assert len(pool._parts) == 0
    assert len(pool._owners) == 0
    parts = [each for each in gc.get_objects() if type(each) is LoopPool]
    assert not [part for part in parts if part.home is pool]


def test_an_engine_may_be_collected_without_a_running_loop(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """An engine that is dropped while its loop is stopped raises nothing, then or at the end."""
    loop = new_loop()
    engine = database.engine(poolclass=LoopLocalPool)
    loop.run_until_complete(ask(engine))
    loop.run_until_complete(engine.dispose())
    del engine
    gc.collect()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert run(database.backends()) == 0


# options -----------------------------------------------------------------------------------


def test_sizes_hold_for_each_loop(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Each loop may have pool_size and max_overflow connections, and keeps pool_size of them."""
    engine = database.engine(poolclass=LoopLocalPool, pool_size=2, max_overflow=1, pool_timeout=0.2)
    with living(new_loop, 2) as threads:
        for thread in threads:
            assert len(thread.run(ask_at_once(engine, 3))) == 3
        assert engine.pool.checkedin() == 4  # type: ignore[attr-defined]
        with pytest.raises(exc.TimeoutError, match="size 2 overflow 1 reached"):
            threads[0].run(_hold_four(engine))


async def _hold_four(engine: AsyncEngine) -> None:
    held = [await engine.connect() for _ in range(3)]
    try:
        await engine.connect()
    finally:
        for connection in held:
            await connection.close()


def test_lifo_takes_the_last_connection_given_back(database: Database) -> None:
    """With pool_use_lifo the connection given back last is taken out first."""
    for lifo in (True, False):
        engine = database.engine(poolclass=LoopLocalPool, pool_use_lifo=lifo)

        async def last(engine: AsyncEngine = engine) -> bool:
            one, two = await engine.connect(), await engine.connect()
            await one.close()
            backend = (await two.execute(BACKEND)).scalar_one()
            await two.close()
            return await ask(engine) == int(backend)

        assert run(last()) is lifo


def test_pre_ping_replaces_a_terminated_backend_of_each_loop(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With pool_pre_ping a connection that the server ended is replaced, on every loop."""
    engine = database.engine(poolclass=LoopLocalPool, pool_pre_ping=True)
    with living(new_loop, 2) as threads:
        before = [thread.run(ask(engine)) for thread in threads]
        run(_terminate(database, before))
        after = [thread.run(ask(engine)) for thread in threads]
    assert not set(before) & set(after)


async def _terminate(database: Database, backends: list[int]) -> None:
    engine = database.engine(poolclass=NullPool)
    async with engine.connect() as connection:
        for backend in backends:
            await connection.execute(text(f"select pg_terminate_backend({backend})"))
    await asyncio.sleep(0.1)


def test_invalidating_the_pool_reaches_the_connections_of_every_loop(
    engine: AsyncEngine, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A disconnect seen on one loop replaces older connections on the others, by their own loop."""
    with living(new_loop, 3) as threads:
        before = [thread.run(ask(engine)) for thread in threads]
        time.sleep(0.02)
        threads[0].run(_invalidate_all(engine))
        after = [thread.run(ask(engine)) for thread in threads]
    assert not set(before) & set(after)


async def _invalidate_all(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        fairy = await connection.get_raw_connection()
        engine.pool._invalidate(fairy, RuntimeError("lost"))


def test_connections_are_recycled(database: Database) -> None:
    """With pool_recycle an old connection is replaced when it is taken out."""
    engine = database.engine(poolclass=LoopLocalPool, pool_recycle=0)

    async def twice() -> tuple[int, int]:
        first = await ask(engine)
        await asyncio.sleep(0.02)
        return first, await ask(engine)

    first, second = run(twice())
    assert first != second


def test_a_listener_added_late_is_heard_on_every_loop(
    engine: AsyncEngine, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A listener that is added after the first connection hears loops that were there before."""
    heard: list[str] = []
    with living(new_loop, 2) as threads:
        for thread in threads:
            thread.run(ask(engine))
        event.listen(engine.sync_engine, "checkout", lambda *_: heard.append("checkout"))
        event.listen(engine.sync_engine, "connect", lambda *_: heard.append("connect"))
        for thread in threads:
            thread.run(ask(engine))
            thread.run(ask_at_once(engine, 2))
    assert heard.count("checkout") == 6
    assert heard.count("connect") == 2


def test_recreate_keeps_every_option(database: Database) -> None:
    """The pool that an engine makes at dispose() has the options of the one before."""
    options: dict[str, Any] = {
        "pool_size": 3,
        "max_overflow": 4,
        "pool_timeout": 1.5,
        "pool_use_lifo": True,
        "pool_pre_ping": True,
        "pool_recycle": 77,
        "pool_reset_on_return": "commit",
        "pool_logging_name": "orders",
        "max_total": 9,
    }
    engine = database.engine(poolclass=LoopLocalPool, **options)
    before: Any = engine.pool
    run(engine.dispose())
    after: Any = engine.pool
    assert type(after) is LoopLocalPool
    assert after is not before
    assert (after.size(), after._max_overflow, after.timeout()) == (3, 4, 1.5)
    assert (after._pool.use_lifo, after._pre_ping, after._recycle) == (True, True, 77)
    assert after._reset_on_return is before._reset_on_return
    assert after.logging_name == "orders"
    assert after._max_total == 9


def test_echo_logs_where_other_pools_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool's log is below `sqlalchemy.pool`, where users set its level."""
    engine = database.engine(poolclass=LoopLocalPool)
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        run(ask(engine))
    names = {record.name for record in caplog.records if "checked out" in record.message}
    assert names == {"sqlalchemy.pool.LoopLocalPool"}


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "10", True])
def test_a_wrong_limit_is_refused(database: Database, wrong: object) -> None:
    """A max_total that is no positive number is refused when the engine is made."""
    with pytest.raises(exc.ArgumentError, match=r"max_total=.*positive number"):
        database.engine(poolclass=LoopLocalPool, max_total=wrong)


# the limit over all loops ------------------------------------------------------------------


def test_idle_connections_of_other_loops_make_room(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """At max_total an idle connection of another loop is closed, whether that runs or not."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=3, pool_timeout=5)
    with living(new_loop, 3) as (one, two, three):
        assert len(one.run(ask_at_once(engine, 2))) == 2
        assert two.run(ask(engine)) > 0
        assert len(three.run(ask_at_once(engine, 2))) == 2
        two.stop()
        assert len(three.run(ask_at_once(engine, 3))) == 3
        assert run(database.backends(3)) == 3
        assert two.loop.run_until_complete(ask(engine)) > 0


def test_a_loop_waits_for_its_own_connections_too(database: Database) -> None:
    """At max_total more tasks than connections take turns, on one loop and on two."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=2, pool_timeout=20)
    with living(asyncio.new_event_loop, 2) as threads:
        assert 1 <= len(threads[0].run(ask_at_once(engine, 8))) <= 2
        started = [
            asyncio.run_coroutine_threadsafe(ask_at_once(engine, 8), thread.loop)
            for thread in threads
        ]
        for work in started:
            assert work.result(30)
        assert run(database.backends(2)) <= 2


def test_the_time_out_says_which_loops_hold_what(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """At max_total the error names the loops and how many connections each of them uses."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=2, pool_timeout=0.3)
    with living(new_loop, 2) as (one, two):
        held = [one.run(_open(engine)) for _ in range(2)]
        with pytest.raises(exc.TimeoutError) as caught:
            two.run(ask(engine))
        for connection in held:
            one.run(connection.close())
        assert two.run(ask(engine)) > 0
    message = str(caught.value)
    assert "limit of 2 connections over all event loops reached" in message
    assert f"thread {one.thread.name}: 2 in use, 0 idle" in message
    assert f"thread {two.thread.name}" in message


def test_the_time_out_names_who_started_the_loops(database: Database) -> None:
    """With loopsentry installed the error says which function started each loop, and where."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=1, pool_timeout=0.2)

    async def hold_and_wait() -> None:
        async with engine.connect():
            await ask(engine)

    with loopsentry.install(), pytest.raises(exc.TimeoutError) as caught:
        run(hold_and_wait())
    assert "asyncio.run in run(), " in str(caught.value)
    assert "test_pool.py" in str(caught.value)


async def _open(engine: AsyncEngine) -> Any:
    return await engine.connect()


def test_a_loop_closed_while_connecting_gives_its_place_back(database: Database) -> None:
    """What a closed loop was just opening, in a thread that is gone, does not use up max_total."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=2, pool_timeout=2)
    run(ask(engine))

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(_open(engine))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    for _ in range(3):
        thread = threading.Thread(target=abandon)
        thread.start()
        thread.join()
    assert run(ask(engine)) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asyncpg's, of a connection that was never opened
        gc.collect()


def test_a_place_is_given_back_when_connecting_fails(database: Database) -> None:
    """Attempts that fail or are cancelled do not use up max_total."""
    engine = database.engine(poolclass=LoopLocalPool, max_total=1, pool_timeout=0.5)
    trouble: list[BaseException] = [OSError("no route"), asyncio.CancelledError()]

    @event.listens_for(engine.sync_engine, "do_connect")
    def _fail(*_: Any) -> None:
        if trouble:
            raise trouble.pop()

    async def insist() -> int:
        for _ in range(2):
            with pytest.raises((OSError, asyncio.CancelledError)):
                await ask(engine)
        return await ask(engine)

    assert run(insist()) > 0


# dispose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "stopped", "closed"])
def test_dispose_on_another_loop_leaves_no_backend(
    database: Database,
    engine: AsyncEngine,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    state: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`await engine.dispose()` elsewhere ends the backends of a loop in any state, quietly."""
    with living(new_loop, 1) as (owner,), caplog.at_level(logging.WARNING):
        owner.run(ask_at_once(engine, 3))
        if state != "running":
            owner.stop()
        if state == "closed":
            owner.close()
        run(engine.dispose())
        assert run(database.backends()) == 0
        if state != "closed":
            if state == "stopped":
                assert owner.loop.run_until_complete(ask(engine)) > 0
            else:
                assert owner.run(ask(engine)) > 0
    assert not caplog.records
    assert run(database.backends()) == 0


def test_a_connection_in_use_at_dispose_is_closed_when_it_is_given_back(
    database: Database, engine: AsyncEngine
) -> None:
    """What was checked out goes on working, and is closed instead of pooled."""

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(BACKEND)
            await engine.dispose()
            await connection.execute(BACKEND)
        assert await database.backends() == 0

    run(work())


def test_dispose_outside_of_any_loop_works(
    database: Database, engine: AsyncEngine, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """`engine.sync_engine.dispose()` in a plain thread closes what other threads' loops hold."""
    with living(new_loop, 1) as (owner,):
        owner.run(ask(engine))
        engine.sync_engine.dispose()
        assert run(database.backends()) == 0


# other threads, collections, forks ---------------------------------------------------------


def test_a_leaked_session_of_a_living_loop_is_collected_elsewhere(
    database: Database, engine: AsyncEngine
) -> None:
    """Collected in another thread, a session left open ends its backend and harms nobody."""
    with living(asyncio.new_event_loop, 1) as (owner,):
        session = AsyncSession(engine)
        owner.run(session.execute(BACKEND))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy's own, of the leak
            del session
            with ThreadPoolExecutor(1) as other:
                other.submit(gc.collect).result(10)
        assert run(database.backends()) == 0
        assert len(owner.run(ask_at_once(engine, 3))) == 3


FORK = """
import asyncio, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry

engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=loopsentry.LoopLocalPool)

async def ask():
    async with engine.connect() as connection:
        return (await connection.execute(text("select pg_backend_pid()"))).scalar_one()

async def main():
    mine = await ask()
    child = os.fork()
    if child == 0:
        os._exit(in_child(mine))
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    assert await ask() == mine, "the parent lost its connection"
    print("intact")

def in_child(mine):
    try:
        if "dispose" in sys.argv:
            engine.sync_engine.dispose(close=False)
        answers = {asyncio.run(ask()) for _ in range(2)}
        import gc; gc.collect()
        return 0 if mine not in answers and len(answers) == 2 else 1
    except BaseException:
        import traceback; traceback.print_exc()
        return 1

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("arguments", [(), ("dispose",)])
def test_a_forked_child_opens_its_own_connections(
    run_program: RunProgram, arguments: tuple[str, ...]
) -> None:
    """Parent and child both go on, with and without dispose(close=False) in the child."""
    result = run_program(FORK, *arguments)
    assert result.stdout == "intact\n", result.stderr
    assert result.returncode == 0
    assert not result.records


# other drivers -----------------------------------------------------------------------------


@pytest.mark.parametrize("close", ["in order", "bare"])
def test_psycopg_and_its_connections_work_on_each_loop(dsn: str, close: str) -> None:
    """With psycopg, which is bound to no loop, connections are kept apart and closed too."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    url = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_async_engine(url, poolclass=LoopLocalPool)
    connections: list[Any] = []

    @event.listens_for(engine.sync_engine, "connect")
    def _keep(connection: Any, _record: Any) -> None:
        connections.append(connection.driver_connection)

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(engine))
        if close == "in order":
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert [connection.closed for connection in connections] == [True, True]


def test_aiosqlite_works_on_each_loop() -> None:
    """With aiosqlite each loop has its own connection, and none keeps the program alive."""
    pytest.importorskip("aiosqlite", reason="aiosqlite is not installed")
    engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=LoopLocalPool)

    async def tables() -> int:
        async with engine.begin() as connection:
            await connection.execute(text("create table t (x integer)"))
            found = await connection.execute(text("select count(*) from sqlite_master"))
            return int(found.scalar_one())

    threads = threading.active_count()
    assert [run(tables()), run(tables())] == [1, 1]
    end = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)  # its thread ends a moment after it has answered
    assert threading.active_count() == threads
