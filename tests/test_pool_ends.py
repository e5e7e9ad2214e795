"""LoopLocalPool where loops, threads and listeners end at awkward moments."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import greenlet_spawn

from loopsentry import LoopLocalPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Database
    from sqlalchemy.ext.asyncio import AsyncEngine


async def ask(engine: AsyncEngine, seconds: float = 0) -> int:
    """Run one statement, and hold the connection for a while."""
    async with engine.connect() as connection:
        found = await connection.scalar(text("select 1"))
        await asyncio.sleep(seconds)
        return int(found or 0)


def test_disposing_from_a_thread_while_loops_close_leaves_no_backend(database: Database) -> None:
    """However a dispose in one thread meets the end of a loop in another, no connection is left."""
    engine = database.engine(poolclass=LoopLocalPool, pool_size=3)

    async def fill() -> None:
        await asyncio.gather(*(ask(engine, 0.01) for _ in range(3)))

    for round_ in range(12):
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(fill(), loop).result(10)
        disposing = threading.Thread(target=engine.sync_engine.pool.dispose)
        disposing.start()
        time.sleep(0.0005 * round_)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        disposing.join(10)
    assert asyncio.run(database.backends()) == 0


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["late", "kept", "given back elsewhere"])
def test_a_connection_never_ends_in_another_thread_than_its_loops(
    database: Database, kind: str, how: str
) -> None:
    """What a disposed pool opened late, keeps, or has cut off is ended by the loop that owns it.

    A collection in another thread would end asyncpg's connection there, which crashes uvloop.
    """
    loops: Any = pytest.importorskip(kind)
    ended: list[int] = []

    class Watched(asyncpg.Connection):  # type: ignore[misc] # not typed
        def _cleanup(self) -> None:
            ended.append(threading.get_ident())
            super()._cleanup()

        def __del__(self) -> None:
            ended.extend([] if self.is_closed() else [threading.get_ident()])
            super().__del__()

    engine = database.engine(poolclass=LoopLocalPool)

    @event.listens_for(engine.sync_engine, "do_connect")
    def watch(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
        options["connection_class"] = Watched

    owner = loops.new_event_loop()
    thread = threading.Thread(target=owner.run_forever)
    thread.start()

    def on_owner(work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(greenlet_spawn(work), owner).result(10)

    pool: Any = engine.sync_engine.pool
    on_owner(lambda: pool.connect().close())
    if how == "given back elsewhere":
        lent = on_owner(pool.connect)
        pool.dispose()
        asyncio.run(greenlet_spawn(lent.close))
        del lent
    else:
        pool.dispose()
        on_owner(lambda: pool.connect().close())
    if how == "kept":
        pool.dispose()
    engine.sync_engine.pool, pool = pool.recreate(), None
    gc.collect()
    ident = thread.ident
    assert asyncio.run(database.backends()) == 0
    owner.call_soon_threadsafe(owner.stop)
    thread.join(10)
    owner.close()
    gc.collect()
    assert set(ended) == {ident}


def test_disposing_waits_once_for_all_blocked_loops(database: Database) -> None:
    """Four loops that are busy elsewhere hold a dispose up for one patience, not for four."""
    engine = database.engine(poolclass=LoopLocalPool)
    loops = [asyncio.new_event_loop() for _ in range(4)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    release = threading.Event()
    for loop, thread in zip(loops, threads, strict=True):
        thread.start()
        asyncio.run_coroutine_threadsafe(ask(engine), loop).result(10)
        loop.call_soon_threadsafe(release.wait, 10)
    started = time.monotonic()
    engine.sync_engine.pool.dispose()
    taken = time.monotonic() - started
    release.set()
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
    assert taken < 2
    assert asyncio.run(database.backends()) == 0


def test_the_first_connection_is_waited_for_as_long_as_any_other(database: Database) -> None:
    """A loop that waits for another one to open the first connection gives up in time."""
    engine = database.engine(poolclass=LoopLocalPool, pool_timeout=0.3)
    opening, go_on = threading.Event(), threading.Event()

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(*_args: Any) -> None:
        opening.set()
        go_on.wait(10)

    first = threading.Thread(target=lambda: asyncio.run(ask(engine)))
    first.start()
    assert opening.wait(10)
    started = time.monotonic()
    with pytest.raises(PoolTimeoutError, match="first connection"):
        asyncio.run(ask(engine))
    assert time.monotonic() - started < 5
    go_on.set()
    first.join(10)
    assert asyncio.run(database.backends()) == 0


def test_a_close_listener_that_raises_loses_no_place(database: Database) -> None:
    """With `max_total`, closing connections under a failing listener never uses up the places."""
    engine = database.engine(poolclass=_limited(2), pool_size=1, pool_timeout=3)

    @event.listens_for(engine.sync_engine, "close")
    def fail(*_args: Any) -> None:
        raise LookupError("of the listener")

    for _ in range(6):
        with suppress(LookupError):
            asyncio.run(ask(engine))
    assert asyncio.run(database.backends()) == 0


def _limited(total: int) -> type[LoopLocalPool]:
    class Limited(LoopLocalPool):
        """With a limit over all loops."""

        def __init__(self, *args: Any, **kw: Any) -> None:
            kw["max_total"] = total
            super().__init__(*args, **kw)

    return Limited


def test_short_runs_at_the_limit_log_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads that each run short loops, with few places for all, work without a log record."""
    engine = database.engine(poolclass=_limited(3), pool_size=2, pool_timeout=20)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(12):
                asyncio.run(ask(engine))
        except BaseException as exc:
            failed.append(exc)

    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failed == []
    assert [record.getMessage() for record in caplog.records] == []
    assert asyncio.run(database.backends()) == 0


@pytest.mark.parametrize("look", ["give_one_up", "_idle", "sweep", "leave", "begin_dispose"])
def test_a_connection_being_made_can_be_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """Another thread may ask a loop's part anything while a record of it is just begun."""
    engine = database.engine(poolclass=LoopLocalPool)
    pool: Any = engine.sync_engine.pool
    failed: list[BaseException] = []
    begin = _ConnectionRecord.__init__

    def look_from_elsewhere() -> None:
        try:
            for part in pool._all_parts():
                getattr(part, look, lambda: None)()
        except BaseException as exc:
            failed.append(exc)

    def begin_watched(*args: Any, **kwargs: Any) -> None:
        thread = threading.Thread(target=look_from_elsewhere)
        thread.start()
        thread.join(10)
        begin(*args, **kwargs)

    monkeypatch.setattr(_ConnectionRecord, "__init__", begin_watched)
    assert asyncio.run(ask(engine)) == 1
    assert failed == []


def test_the_limit_over_all_loops_is_kept_at_the_server(database: Database) -> None:
    """The server has no more backends than `max_total`, and those that are just ending."""
    engine = database.engine(poolclass=_limited(3), pool_size=3, max_overflow=0, pool_timeout=20)
    most: list[int] = []

    async def use() -> None:
        query = text("select count(*) from pg_stat_activity where application_name = :name")
        async with engine.connect() as connection:
            most.append(int(await connection.scalar(query, {"name": database.name}) or 0))

    def work() -> None:
        for _ in range(10):
            asyncio.run(_several(use))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 80
    # Of each place the last connection may be one that the server has not noticed to be closed yet;
    # eight would be at work without a limit.
    assert max(most) <= 3 + 3
    assert asyncio.run(database.backends()) == 0


async def _several(use: Any) -> None:
    await asyncio.gather(use(), use())
