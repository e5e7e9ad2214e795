"""One engine for any number of event loops: a pool that keeps each loop's connections apart."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import exc
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import queue as sqla_queue
from sqlalchemy.util.concurrency import in_greenlet

from ._bell import Bell
from ._copies import copy_of
from ._loop_pool import LoopPool, Record, ThreadPool, wait_for_all
from ._sockets import bury, cut, keep, transport_of

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

Part: TypeAlias = "LoopPool | ThreadPool"

_pools: weakref.WeakSet[LoopLocalPool] = weakref.WeakSet()


class LoopLocalPool(AsyncAdaptedQueuePool):
    """A connection pool for `create_async_engine` that any number of event loops may share.

        engine = create_async_engine(url, poolclass=loopsentry.LoopLocalPool)

    Each event loop gets connections that it opened itself, and only those. All options of
    SQLAlchemy's `AsyncAdaptedQueuePool` hold, `pool_size`, `max_overflow` and `pool_timeout` for
    each loop; `pool_pre_ping`, `pool_recycle`, `pool_use_lifo`, `pool_reset_on_return`, `echo_pool`
    and event listeners, also those added later, as usual.

    When a loop ends, its connections are closed: in an orderly way by loops that shut down their
    asynchronous generators, as `asyncio.run` does, else when the loop is closed. A connection
    that was still checked out is lost then, with one warning in the log. Connections of a
    loop that runs in another thread are only ever touched by that thread. A forked child starts
    with no connections and leaves those of its parent alone.

    `engine.dispose()` closes the idle connections of all loops: of loops that run in other threads
    through those threads, waiting for at most a second; of stopped loops by shutting the socket.
    Connections in use are closed when they are given back.

    The very first connection, which tells the dialect about the server, is opened by one loop
    while the others wait; a plain pool used first by two loops at once may hang for ever.

    It does not make sessions and connections movable: one that was opened on a loop must be used
    on that loop. It also works without a running loop, with a driver that is not asynchronous.

    Args:
        creator: opens a connection; `create_async_engine` passes it.
        pool_size: idle connections kept for each loop; 0 for no limit.
        max_overflow: further connections for each loop when those are in use; -1 for no limit.
        timeout: seconds to wait for a connection of this loop, and for `max_total`.
        use_lifo: whether the last connection given back is the first taken out.
        max_total: open connections of all loops together; None for no limit. Where the limit is
            reached, idle connections of other loops are closed to make room.
        **kw: the options of `sqlalchemy.pool.Pool`.

    Raises:
        sqlalchemy.exc.ArgumentError: if `max_total` is not a positive number.
        sqlalchemy.exc.TimeoutError: at a checkout, if the loop's limit or `max_total` is reached
            for `timeout` seconds; for `max_total` the message says which loops hold what.

    Of SQLAlchemy's own it uses what a subclass of `Pool` needs (sqlalchemy/pool/base.py, impl.py):
    `_do_get`, `_do_return_conn`, `_close_connection`, `_should_wrap_creator`, `_ConnectionRecord`,
    the constructor's `_dispatch=`, and of the event collection `_exec_once_mutex`.

    Since version 0.1.0.
    """

    # The queue of what is used outside event loops; each loop has another one.
    _queue_class = sqla_queue.Queue  # type: ignore[assignment]

    # Where users look for the log of a pool (sqlalchemy/log.py: _qual_logger_name_for_cls).
    _sqla_logger_namespace = "sqlalchemy.pool.LoopLocalPool"

    def __init__(  # noqa: PLR0913, PLR0917 - create_engine reads option names here
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        use_lifo: bool = False,
        max_total: int | None = None,
        **kw: Any,
    ) -> None:
        if max_total is not None and (type(max_total) is not int or max_total < 1):
            raise exc.ArgumentError(
                f"max_total={max_total!r} is not valid: give a positive number of connections,"
                " or None for no limit"
            )
        self._max_total = max_total
        self._start_empty()
        super().__init__(
            creator,
            pool_size=pool_size,
            max_overflow=max_overflow,
            timeout=timeout,
            use_lifo=use_lifo,
            **kw,
        )
        self._without_loop = ThreadPool(self)
        _pools.add(self)

    def _start_empty(self) -> None:
        self._parts: weakref.WeakKeyDictionary[AbstractEventLoop, LoopPool] = (
            weakref.WeakKeyDictionary()
        )
        # Reentrant, because the garbage collector may run code of this pool anywhere.
        self._lock = threading.RLock()
        self._bell = Bell()
        self._initialised = False
        self._first: _Holder | None = None
        self._owners: dict[int, tuple[Callable[[], Any], Part]] = {}

    # taking out and giving back ------------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        part = self._part_here()
        if self._initialised:
            return part._do_get()
        return self._get_first(part)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        given = cast("Record", record)
        if given.dbapi_connection is None:  # detached: the program's own from now on
            given.part.open.pop(given.key, None)
        given.part.take_back(given)
        if self._max_total is not None:
            self._bell.ring()

    def _part_here(self) -> Part:
        loop = _get_running_loop()
        if loop is None:
            return self._without_loop
        part = self._parts.get(loop)
        if part is None:
            for other in self._all_parts():
                other.sweep()
            part = self._parts[loop] = LoopPool(self, loop)
        return part

    def _all_parts(self) -> list[Part]:
        return [*copy_of(self._parts.values), self._without_loop]

    def _drop(self, part: Part) -> None:
        """Forget a loop's part, if it still is its part."""
        loop = part.loop
        if loop is not None and self._parts.get(loop) is part:
            del self._parts[loop]

    # the first connection ------------------------------------------------------------------

    def _get_first(self, part: Part) -> ConnectionPoolEntry:
        """Open the connection that initialises the dialect, alone.

        SQLAlchemy guards this with a lock of asyncio, which belongs to the first loop that waits
        for it (sqlalchemy/event/attr.py: _exec_w_sync_on_first_run).
        """
        mine = _Holder()

        def may_go_on() -> bool:
            with self._lock:
                if self._initialised:
                    return True
                if self._first is not None and self._first.is_lost():
                    self._break_lock()
                    self._first = None
                if self._first is None:
                    self._first = mine
                return self._first is mine

        if not self._bell.wait_until(may_go_on, self._timeout):
            raise exc.TimeoutError(
                "LoopLocalPool waits for another event loop to open the first connection, "
                f"connection timed out, timeout {self._timeout:0.2f}",
                code="3o7r",
            )
        try:
            record = part._do_get()
            self._initialised = True
        finally:
            with self._lock:
                if self._first is mine:
                    self._first = None
            self._bell.ring()
        return record

    def _break_lock(self) -> None:
        """Replace the lock that a loop which no longer runs may hold."""
        collections: list[Any] = [self.dispatch.connect, self.dispatch.first_connect]
        for listeners in collections:
            if hasattr(listeners, "_get_exec_once_mutex"):
                listeners._exec_once_mutex = None
            elif hasattr(listeners, "_exec_once_mutex"):
                del listeners._exec_once_mutex  # made anew when asked for, before SQLAlchemy 2.0.44

    # opening and closing -------------------------------------------------------------------

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = self._open_uncounted = super()._should_wrap_creator(creator)

        def open_counted(record: Record) -> DBAPIConnection:
            if self._max_total is not None and not record.has_place:
                self._wait_for_place(record.part)
            record.has_place = False
            try:
                connection = create(record)
                self._own(connection, record)
            finally:
                with self._lock:
                    record.part.opening -= self._max_total is not None
            return connection

        return open_counted

    def _own(self, connection: Any, record: Record) -> None:
        driver_connection = self._dialect.get_driver_connection(connection)
        part, record.key = record.part, id(connection)
        key = record.key
        # While the pool knows the connection it is held; collected in another thread than its
        # loop's, asyncpg's would end itself there.
        part.open[key] = driver_connection
        reference: Callable[[], Any]
        try:
            # Not a strong reference: a detached connection may never come back to be closed.
            reference = weakref.ref(driver_connection, lambda _: self._disown(key))
        except TypeError:
            reference = _strong(driver_connection)
        self._owners[key] = (reference, part)

    def _disown(self, key: int) -> Part | None:
        _, part = self._owners.pop(key, (None, None))
        if part is not None:
            part.open.pop(key, None)
        if self._max_total is not None:
            self._bell.ring()
        return part

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        # Its place below `max_total` is free when it is closed, not before.
        try:
            _, part = self._owners.get(id(connection), (None, None))
            self._end_connection(connection, part, terminate=terminate)
        finally:
            self._disown(id(connection))

    def _end_connection(self, connection: Any, part: Part | None, *, terminate: bool) -> None:
        if part is None or part.is_here():
            super()._close_connection(connection, terminate=terminate)
            return
        if part.pid != os.getpid():
            return  # whatever ends it here ends it for the parent process
        driver_connection = self._dialect.get_driver_connection(connection)
        if transport_of(driver_connection) is None and (in_greenlet() or not part.is_over()):
            super()._close_connection(connection, terminate=terminate)  # bound to no loop
        elif part.is_over():
            bury(driver_connection, lambda: self._dialect.do_terminate(connection))
        else:
            self.logger.debug("Cutting connection %r of another event loop", connection)
            cut(driver_connection, part.loop)

    # the limit over all loops --------------------------------------------------------------

    def _new_record(self, part: Part) -> ConnectionPoolEntry:
        """Open a connection for a loop; at the limit, or take one that was given back meanwhile."""
        if self._max_total is None:
            return Record(self, part)
        idle = self._wait_for_place(part, part.take_idle)
        if idle is not None:
            part._dec_overflow()
            return idle
        return Record(self, part, has_place=True)

    def _wait_for_place(
        self, part: Part, instead: Callable[[], Record | None] = lambda: None
    ) -> Record | None:
        """Hold a place below `max_total`, or get something instead of one."""
        found: list[Record | None] = []

        def take() -> bool:
            with self._lock:
                # Counted by part: one whose loop is closed takes along what it never finished.
                opening = sum(other.opening for other in self._all_parts())
                if len(self._owners) + opening < (self._max_total or 0):
                    part.opening += 1
                    found.append(None)
                    return True
            idle = instead()
            if idle is not None:
                found.append(idle)
            elif not any(other.give_one_up() for other in self._all_parts() if other is not part):
                part.give_one_up()
            return bool(found)

        if not self._bell.wait_until(take, self._timeout):
            raise exc.TimeoutError(self._say_full(part), code="3o7r")
        return found[0]

    def _say_full(self, asking: Part) -> str:
        held = "; ".join(
            f"{part.describe()}: {part.checkedout()} in use, {part.checkedin()} idle"
            for part in self._all_parts()
            if part.records or part is asking
        )
        return (
            f"LoopLocalPool limit of {self._max_total} connections over all event loops reached, "
            f"connection timed out, timeout {self._timeout:0.2f}. {held}"
        )

    # as other pools ------------------------------------------------------------------------

    def recreate(self) -> LoopLocalPool:
        """Return a new, empty pool with the same options and listeners."""
        self.logger.info("Pool recreating")
        return self.__class__(
            self._creator,
            pool_size=self._pool.maxsize,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            max_total=self._max_total,
            pre_ping=self._pre_ping,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """Close the idle connections of all loops; those in use are closed when given back."""
        waits = []
        for part in self._all_parts():
            self._drop(part)
            waits.append(part.begin_dispose())
        wait_for_all([wait for wait in waits if wait is not None])
        self.logger.info("Pool disposed. %s", self.status())

    def status(self) -> str:
        """Describe the pool as other pools do, and how many loops have a part of it."""
        return (
            f"Pool size: {self.size()} per event loop  Event loops: {len(self._parts)} "
            f"Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    def checkedin(self) -> int:
        """Idle connections of all loops."""
        return sum(part.checkedin() for part in self._all_parts())

    def checkedout(self) -> int:
        """Connections in use on all loops."""
        return sum(part.checkedout() for part in self._all_parts())

    def overflow(self) -> int:
        """Connections beyond `size()` on all loops, less those that were never opened."""
        return self._overflow if self.size() else 0

    @property
    def _overflow(self) -> int:
        parts = self._all_parts()
        return sum(part._overflow for part in parts if len(parts) == 1 or part.records)

    @_overflow.setter
    def _overflow(self, _value: int) -> None:
        """The parts count for themselves."""


class _Holder:
    """Who opens the first connection."""

    def __init__(self) -> None:
        loop = _get_running_loop()
        self._loop = weakref.ref(loop) if loop is not None else None

    def is_lost(self) -> bool:
        """Whether its loop no longer runs, so that nobody knows when it will be done."""
        if self._loop is None:
            return False
        loop = self._loop()
        return loop is None or not loop.is_running()


def _strong(target: Any) -> Callable[[], Any]:
    return lambda: target


def _start_anew_after_fork() -> None:
    """Give each pool of a forked child nothing, and keep what is the parent's from collection."""
    for pool in copy_of(_pools.__iter__):
        keep(pool._all_parts(), dict(pool._owners))
        pool._start_empty()
        pool._without_loop = ThreadPool(pool)


@atexit.register
def _leave() -> None:
    """Close the idle connections of loops that nobody runs any more and nobody closed."""
    for pool in copy_of(_pools.__iter__):
        for part in pool._all_parts():
            part.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)
