"""The parts of a LoopLocalPool: one loop's connections, from the first to the end of the loop.

`home` is the LoopLocalPool that a part belongs to; this module does not import it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import sys
import threading
import weakref
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util import queue as sqla_queue

from ._copies import copy_of
from ._safely import safely
from ._sockets import bury, cut, finish, layers_of, leave_to, transport_of

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

#: Seconds that an orderly close may take when a loop ends or another thread disposes.
GRACE = 2.0
#: Seconds that `dispose()` waits for the loops of other threads.
PATIENCE = 1.0
DAY = 86_400.0


class Record(_ConnectionRecord):
    """A place in the pool, which knows the part it came from."""

    __slots__ = ("has_place", "key", "part")

    def __init__(self, home: Any, part: LoopPool | ThreadPool, *, has_place: bool = False) -> None:
        self.part = part
        self.has_place = has_place
        self.key = 0
        # What other loops' threads ask it for from now on, while it is being connected.
        self.dbapi_connection = self.fairy_ref = None
        part.records.add(self)
        super().__init__(home)

    def close(self) -> None:
        """Close the connection, also where a `close` listener raises, before the pool would."""
        with self._closing_in_any_case(terminate=False):
            super().close()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Give the connection up, also where a listener raises."""
        with nullcontext() if soft else self._closing_in_any_case(terminate=True):
            super().invalidate(e, soft)

    @contextmanager
    def _closing_in_any_case(self, *, terminate: bool) -> Iterator[None]:
        try:
            yield
        except BaseException:
            connection, self.dbapi_connection = self.dbapi_connection, None
            if connection is not None:
                self.part.home._close_connection(connection, terminate=terminate)
            raise


class _Part(QueuePool):
    """What the parts have in common: they count; the pool as a whole opens, tells and closes."""

    _sqla_logger_namespace = "sqlalchemy.pool.LoopLocalPool"

    loop: AbstractEventLoop | None = None

    def __init__(self, home: Any) -> None:
        self.home = home
        self.pid = os.getpid()
        self.thread = threading.current_thread().name
        self.records: weakref.WeakSet[Record] = weakref.WeakSet()
        self.disposed = False
        self.opening = 0
        self.open: dict[int, Any] = {}
        super().__init__(
            home._creator,
            pool_size=home._pool.maxsize,
            max_overflow=home._max_overflow,
            timeout=home._timeout,
            use_lifo=home._pool.use_lifo,
        )

    def _create_connection(self) -> ConnectionPoolEntry:
        record: ConnectionPoolEntry = self.home._new_record(self)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self.disposed:
            try:
                record.close()
            finally:
                self._dec_overflow()
        else:
            super()._do_return_conn(record)

    def take_back(self, record: Record) -> None:
        """Take a connection back, on whatever thread or loop it was given back."""
        self._do_return_conn(record)

    def is_here(self) -> bool:
        """Whether the connections may be used right here."""
        return True

    def is_over(self) -> bool:
        """Whether the loop is closed."""
        return False

    def sweep(self) -> None:
        """Let go of everything if the loop is closed."""

    def take_idle(self) -> Record | None:
        """Take an idle connection out, if there is one; in the part's own loop or thread."""
        try:
            return self._pool.get(block=False)  # type: ignore[return-value]
        except sqla_queue.Empty:
            return None

    def give_one_up(self) -> bool:
        """Close an idle connection, now or soon, so that another loop may open one."""
        record = self.take_idle()
        if record is None:
            return False
        try:
            record.close()
        finally:
            self._dec_overflow()
        return True

    def leave(self) -> None:
        """Close, at the end of the program, what its loop will never close."""

    def describe(self) -> str:
        """Say whose connections these are, for a message."""
        return "no event loop"

    def begin_dispose(self) -> Future[None] | None:
        """Begin to dispose; return what to wait for, None if it is done."""
        self.dispose()
        return None

    def dispose(self) -> None:
        """Close the idle connections, and from now on each that is given back."""
        self.disposed = True
        super().dispose()


class ThreadPool(_Part):
    """The connections that were opened outside event loops, by drivers that allow it."""

    def __init__(self, home: Any) -> None:
        super().__init__(home)
        self._pool = home._pool

    def dispose(self) -> None:
        """Close the idle connections; this part goes on, as a plain queue pool does."""
        super(_Part, self).dispose()


class LoopPool(_Part, AsyncAdaptedQueuePool):
    """The connections of one event loop."""

    def __init__(self, home: Any, loop: AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        super().__init__(home)
        # A generator that has begun is closed by loop.shutdown_asyncgens(), while the loop still
        # runs; asyncio.run, asyncio.Runner, uvloop.run and test plugins call that at their end.
        self._ending = _wait_for_the_end(weakref.ref(self))
        with suppress(StopIteration):
            self._ending.asend(None).send(None)
        weakref.finalize(self, _stop_waiting, self._ending).atexit = False
        # No cycle leads from a connection to its part: this does not keep the part alive.
        weakref.finalize(self, _abandon, self._loop, self.open).atexit = False
        self._ending_transports: list[Any] = []
        self._closing: asyncio.Future[Any] | None = None
        self._timer = _watch_closing(loop, self, self._ending_transports)

    @property
    def loop(self) -> AbstractEventLoop | None:  # type: ignore[override]
        """The loop, while it lives."""
        return self._loop()

    def is_here(self) -> bool:
        """Whether its loop is the running loop of this thread."""
        return self._loop() is _get_running_loop() and self.pid == os.getpid()

    def is_over(self) -> bool:
        """Whether its loop is closed."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def take_back(self, record: Record) -> None:
        """Take a connection back; on another thread or loop, let its own loop do that."""
        if self.is_here():
            self._do_return_conn(record)
        elif self.pid == os.getpid() and not self._call(self._take_back_here, record):
            record.close()

    def _take_back_here(self, record: Record) -> None:
        """Take back, in a callback of its own loop, what was given back elsewhere.

        A callback cannot await, as the pool does to close what it has no use for.
        """
        if not (self.disposed or self._pool.full()):
            self._do_return_conn(record)
        elif self.home._dialect.has_terminate:
            self._terminate(record)
        else:
            self._closing = asyncio.ensure_future(greenlet_spawn(self._do_return_conn, record))

    def _call(self, function: Any, *args: Any) -> bool:
        """Let the loop call a function soon, from any thread; whether it still can."""
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False  # closed meanwhile
        return loop is not None

    # the end of the loop -------------------------------------------------------------------

    async def end(self) -> None:
        """Close what is idle while the loop still runs; close the rest as it is given back."""
        self.disposed = True
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(greenlet_spawn(super().dispose), GRACE)

    def sweep(self) -> None:
        """Let go of everything if the loop is closed: nobody can use its connections any more."""
        if not self.is_over() or self.pid != os.getpid():
            return
        self.disposed = True
        self.home._drop(self)
        in_use = sum([self._bury(record) for record in copy_of(self.records.__iter__)])
        if in_use:
            self.home.logger.warning(
                "%s was closed with %d connection%s of it checked out; closed without commit",
                self.describe(),
                in_use,
                "" if in_use == 1 else "s",
            )

    def _bury(self, record: Record) -> bool:
        """End a connection of the closed loop; return whether it was in use."""
        connection = record.dbapi_connection
        if connection is None:
            return False
        if record.fairy_ref is None:
            with suppress(Exception):  # of a listener, who would have to await
                record.close()
            return False
        driver_connection = self.home._dialect.get_driver_connection(connection)
        if transport_of(driver_connection) is None:
            return False  # bound to no loop: it works until it is given back
        # Its user keeps it, and is told that it is closed: after the dialect's do_terminate() a
        # commit would say nothing (sqlalchemy/dialects/postgresql/asyncpg.py: commit).
        record.dbapi_connection = None
        self.home._disown(id(connection))
        bury(driver_connection)
        return True

    # from elsewhere ------------------------------------------------------------------------

    def dispose(self) -> None:
        """Close the idle connections; those of a loop in another thread are closed by that loop."""
        wait = self.begin_dispose()
        if wait is not None:
            wait_for_all([wait])

    def begin_dispose(self) -> Future[None] | None:
        """Begin to dispose; another thread's loop closes its connections by itself."""
        loop = self._loop()
        if loop is not None and loop.is_running() and not self.is_here():
            # The timer stays: should the loop close in the middle, its end is what is left to hear.
            return self._dispose_there()
        self._stop_timer()
        if self.is_here():
            super().dispose()
        elif loop is None or loop.is_closed():
            self.sweep()
        else:
            self.disposed = True
            for record in self._idle():
                self._let_go(record)
        return None

    def _dispose_there(self) -> Future[None] | None:
        done: Future[None] = Future()

        def begin() -> None:
            self.disposed = True
            if self.home._dialect.has_terminate:
                while self._terminate_one():
                    pass
                settle()
            else:
                task = asyncio.ensure_future(self.end())
                task.add_done_callback(settle)

        def settle(*_: object) -> None:
            if done.set_running_or_notify_cancel():
                done.set_result(None)

        return done if self._call(begin) else None

    def _stop_timer(self) -> None:
        handle = self._timer()
        if handle is not None and not self.is_over():
            handle.cancel() if self.is_here() else self._call(handle.cancel)

    def give_one_up(self) -> bool:
        """Close an idle connection, on its own loop if that runs."""
        loop = self._loop()
        if self.is_here():
            return super().give_one_up()
        if loop is None or loop.is_closed():
            self.sweep()
            return True
        idle = self._idle()
        if not idle:
            return False
        if loop.is_running():
            return self._call(self._close_one)
        self._let_go(idle[0])
        return True

    def _close_one(self) -> None:
        if self.home._dialect.has_terminate:
            self._terminate_one()
        else:
            self._closing = asyncio.ensure_future(greenlet_spawn(super().give_one_up))

    def _terminate_one(self) -> bool:
        """End an idle connection on this loop, at once: the loop may end before a task could."""
        record = self.take_idle()
        if record is not None:
            self._terminate(record)
        return record is not None

    def _terminate(self, record: Record) -> None:
        connection = record.dbapi_connection
        if connection is not None:
            # Should the loop close before it has taken the last step, `_sweep` takes it.
            ending = self._ending_transports
            ending[:] = [each for each in ending if getattr(each, "_sock", None) is not None]
            ending.extend(layers_of(self.home._dialect.get_driver_connection(connection)))
        try:
            with suppress(Exception):  # of a listener; the connection is closed all the same
                record.invalidate()
        finally:
            self._dec_overflow()

    def _idle(self) -> list[Record]:
        """The records that hold an open connection which nobody uses."""
        records = copy_of(self.records.__iter__)  # other loops' threads sweep this part too
        return [r for r in records if r.dbapi_connection is not None and r.fairy_ref is None]

    def _let_go(self, record: Record) -> None:
        """Shut an idle connection of a loop that is stopped; it is replaced if that runs again."""
        connection = record.dbapi_connection
        if connection is not None:
            record.invalidate(soft=True)
            cut(self.home._dialect.get_driver_connection(connection), self._loop())
            self.home._disown(id(connection))

    @safely
    def leave(self) -> None:
        """Close the idle connections of a loop that is stopped, as if it were closed."""
        loop = self._loop()
        if loop is None or loop.is_running() or self.pid != os.getpid():
            return
        dialect = self.home._dialect
        for record in self._idle():
            connection = record.dbapi_connection
            driver_connection = dialect.get_driver_connection(connection)
            bury(driver_connection, functools.partial(dialect.do_terminate, connection))

    def describe(self) -> str:
        """Say whose connections these are, and who started the loop, if that is recorded."""
        starter = _starter_of(self._loop())
        return f"event loop of thread {self.thread}{f', {starter}' if starter else ''}"


def wait_for_all(waits: list[Future[None]]) -> None:
    """Wait for other threads' loops, `PATIENCE` seconds for all of them together."""
    if not waits:
        return
    if _get_running_loop() is not None:
        await_only(asyncio.wait({asyncio.wrap_future(wait) for wait in waits}, timeout=PATIENCE))
    else:
        concurrent.futures.wait(waits, timeout=PATIENCE)


@safely
def _starter_of(loop: AbstractEventLoop | None) -> str | None:
    """Who started a loop, if loopsentry is installed and has met it."""
    installation = sys.modules.get(f"{__package__}.installation")
    installed = installation.current() if installation is not None else None
    known = installed.registry.loops.get(loop) if installed and loop is not None else None
    if known is None or known.info.started_by is None:
        return None
    place = known.info.started_by
    return f"{known.info.runner or known.info.kind} in {place.call}, {place.path}:{place.line}"


async def _wait_for_the_end(
    reference: weakref.ref[LoopPool],
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        pool = reference()
        if pool is not None and not pool.disposed:
            await pool.end()


@safely
def _stop_waiting(ending: AsyncGenerator[None, None]) -> None:
    """Close the generator of a pool that was collected; it awaits nothing then."""
    with suppress(StopIteration, RuntimeError):
        ending.aclose().send(None)


@safely
def _abandon(reference: weakref.ref[AbstractEventLoop], connections: dict[int, Any]) -> None:
    """Let the loop end what is still open of a part that was collected, in whatever thread.

    A pool that was disposed of can get connections once more, from a thread that was just asking
    it; nobody knows of them afterwards.
    """
    loop = reference()
    for connection in copy_of(connections.values):
        if loop is not None and not loop.is_closed():
            leave_to(loop, connection)


class _Closing:
    """Lies on a loop's list of timers, and so goes away when the loop is closed.

    `loop.close()` tells nobody, but it drops what is scheduled (Lib/asyncio/base_events.py; uvloop
    likewise). An idle loop wakes once a day for it, as asyncio itself does.
    """

    __slots__ = ("__weakref__",)

    def __call__(self) -> None:
        asyncio.get_running_loop().call_later(DAY, self, context=Context())


def _watch_closing(
    loop: AbstractEventLoop, pool: LoopPool, ending: list[Any]
) -> weakref.ref[asyncio.TimerHandle]:
    closing = _Closing()
    weakref.finalize(closing, _sweep, weakref.ref(pool), ending).atexit = False
    # An empty context: this one's variables would live as long as the loop.
    return weakref.ref(loop.call_later(DAY, closing, context=Context()))


@safely
def _sweep(reference: weakref.ref[LoopPool], ending: list[Any]) -> None:
    for transport in ending:
        loop = getattr(transport, "_loop", None)
        if loop is None or loop.is_closed():
            finish(transport)
    pool = reference()
    if pool is not None:
        pool.sweep()
