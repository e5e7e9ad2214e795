"""Session scopes: the shared engine where one loop lives, an engine of its own where it may not.

`AsyncSessionFactory` and the two functions work with diagnostics off and without `install()`.
"""

from __future__ import annotations

import asyncio
import copy
import sys
import weakref
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.pool.base import _AdhocProxiedConnection
from sqlalchemy.util import greenlet_spawn

from ._copies import copy_of
from .engines import engines_in_memory, masked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

#: Seconds that closing may still take once it has been cancelled.
GRACE = 2.0

Scope: TypeAlias = AbstractAsyncContextManager[AsyncSession]
Source: TypeAlias = "AsyncEngine | async_sessionmaker[AsyncSession] | AsyncSessionFactory"

_factories: weakref.WeakSet[AsyncSessionFactory] = weakref.WeakSet()
_own_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class EngineNotChosenError(LookupError):
    """It is not clear which engine a session scope is for; the message lists those there are.

    Raised by `AsyncSessionFactory.session_scope()` and `.session_scope_fresh()` on the class when
    no engine or several engines are known, and for an `async_sessionmaker` that names no engine or
    several.

    Since version 0.1.0.
    """


class _ScopeMethod:
    """A scope that works on an instance, and on the class for the one tracked engine."""

    def __init__(self, open_scope: Callable[..., Scope], doc: str) -> None:
        self._open_scope = open_scope
        self.__doc__ = doc

    def __get__(
        self, factory: AsyncSessionFactory | None, _owner: type[AsyncSessionFactory]
    ) -> Callable[..., Scope]:
        def scope(**session_options: Any) -> Scope:
            source = choose_source() if factory is None else factory
            return self._open_scope(source, **session_options)

        scope.__doc__ = self.__doc__
        return scope


class _OwnPool(AsyncAdaptedQueuePool):
    """A pool whose creator takes a record already, so that nobody has to find that out."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"

    def _should_wrap_creator(self, creator: Any) -> Any:
        return creator


class _OwnPoolEngine(OptionEngine):
    """A view of an engine with a pool of its own.

    As a view it shares what costs time or was configured by hand: the dialect, the compiled
    statements, the event listeners and the execution options.
    """

    # OptionEngine borrows its original's pool through a property of that name.
    pool: Pool = None  # type: ignore[assignment]

    def __init__(self, source: Engine) -> None:
        super().__init__(source, {})
        self.opened: list[Any] = []
        # A LoopLocalPool counts what its own creator opens.
        self._open = getattr(source.pool, "_open_uncounted", source.pool._invoke_creator)
        self.pool = _OwnPool(
            self._open_and_remember,  # type: ignore[arg-type]
            pool_size=1,
            max_overflow=0,
            timeout=getattr(source.pool, "_timeout", 30.0),
            echo=source.pool.echo,
            logging_name=source.pool._orig_logging_name,
            reset_on_return=source.pool._reset_on_return,
            dialect=source.dialect,
            _dispatch=source.pool.dispatch,
        )
        _own_pools.add(self.pool)
        if getattr(source.dialect, "server_version_info", None) is None:
            self._initialise_a_copy_of(source)

    def _open_and_remember(self, record: Any) -> Any:
        connection = self._open(record)
        self.opened.append(connection)
        return connection

    def _initialise_a_copy_of(self, source: Engine) -> None:
        """Ask the server for what the dialect has to know, independently of other loops.

        The source's own first-connect listener runs once only: a second connection that is opened
        meanwhile, here or on another loop, would work with a dialect that knows nothing yet.
        """
        self.dialect = copy.copy(source.dialect)
        event.listen(self.pool, "connect", self._initialise, _once_unless_exception=True)

    def _initialise(self, dbapi_connection: Any, record: Any) -> None:
        # The same flags as create_engine's first_connect (sqlalchemy/engine/create.py).
        connection = Connection(
            self,
            connection=_AdhocProxiedConnection(dbapi_connection, record),
            _has_events=False,
            _allow_revalidate=False,
            _allow_autobegin=False,
        )
        self.dialect.initialize(connection)
        self.dialect.do_rollback(connection.connection)

    def dispose(self, close: bool = True) -> None:  # noqa: ARG002 - the base's signature
        """Close the pool for good: no new pool, and no `engine_disposed` for the source's sake."""
        self.pool.dispose()

    def terminate(self) -> None:
        """Cut what is still open, without waiting."""
        while self.opened:
            self.dialect.do_terminate(self.opened.pop())


def session_scope(engine: Source, **session_options: Any) -> Scope:
    """Open a session on the shared engine, and close it at the end.

    For code that always runs on the event loop on which the engine is used: request handlers,
    background tasks of the application. Its connection goes back to the engine's pool.

    It neither commits nor swallows an exception: what was not committed is rolled back. The
    session is closed also when the body raises or is cancelled.

    Args:
        engine: an `AsyncEngine`, an `async_sessionmaker` (its options stay in force), or an
            `AsyncSessionFactory`.
        **session_options: options of the `AsyncSession` for this scope alone, such as
            `expire_on_commit=False`; they come before the sessionmaker's.

    Returns:
        An async context manager that yields the `AsyncSession`.

    Raises:
        TypeError: if `engine` is none of these, for an option that sessions do not have, and for
            `bind` and `binds`.

    Since version 0.1.0.
    """
    return _shared(_maker_of(engine), _checked(session_options))


def session_scope_fresh(engine: Source, **session_options: Any) -> Scope:
    """Open a session on an engine of its own, and dispose of both at the end.

    For code that may run on another event loop than the application: command-line programs that
    call `asyncio.run`, tasks of a worker, fixtures, threads with a loop of their own. The engine
    has a pool of one connection, opened by the first statement and closed at the end, on the loop
    that runs the body; nothing that belongs to another loop is touched.

    What was configured on the source engine holds here too: connect arguments, creator, event
    listeners, JSON codecs, isolation level, execution options; of an `async_sessionmaker` also the
    session's options. Not kept are the pool's class, size, pre-ping and recycling.

    It neither commits nor swallows an exception: what was not committed is rolled back. Closing
    and disposing also happen when the body raises or is cancelled; if closing itself is cancelled
    it may still take two seconds, then the connection is cut, so that no backend stays behind. It
    never disposes of the source engine.

    A database that lives in its connection, as SQLite's `:memory:` does, is another, empty one in
    a fresh scope; use `session_scope()` there.

    Args:
        engine: an `AsyncEngine`, an `async_sessionmaker`, or an `AsyncSessionFactory`.
        **session_options: options of the `AsyncSession` for this scope alone, such as
            `expire_on_commit=False`; they come before the sessionmaker's.

    Returns:
        An async context manager that yields the `AsyncSession`.

    Raises:
        EngineNotChosenError: if an `async_sessionmaker` names no engine, or several.
        TypeError: if `engine` is none of these, for an option that sessions do not have, and for
            `bind` and `binds`.

    Since version 0.1.0.
    """
    maker = _maker_of(engine)
    return _fresh(_engine_of(maker), maker, _checked(session_options))


class AsyncSessionFactory:
    """Sessions of one engine, on the shared pool or on an engine of their own.

    The methods `session_scope()` and `session_scope_fresh()` also work on the class, and are then
    of the one tracked engine: that of the living factories, or of the engines that loopsentry
    watches, or of the `AsyncEngine` objects in memory.

    It opens nothing by itself and disposes of nothing but what a fresh scope made; `engine` stays
    yours to dispose of.

    Args:
        engine_or_url: an `AsyncEngine`, or a URL for `create_async_engine`.
        **sessionmaker_options: options for `async_sessionmaker`, such as `expire_on_commit=False`.

    Attributes:
        engine: the shared engine.
        maker: the `async_sessionmaker` that makes the sessions.

    Raises:
        TypeError: if `engine_or_url` is neither of these.

    Since version 0.1.0.
    """

    def __init__(self, engine_or_url: AsyncEngine | URL | str, **sessionmaker_options: Any) -> None:
        if isinstance(engine_or_url, str | URL):
            engine_or_url = create_async_engine(engine_or_url)
        if not isinstance(engine_or_url, AsyncEngine):
            raise TypeError(f"expected an AsyncEngine or a URL, not {_kind(engine_or_url)}")
        self.engine = engine_or_url
        self.maker: async_sessionmaker[AsyncSession] = async_sessionmaker(
            engine_or_url, **sessionmaker_options
        )
        _factories.add(self)

    session_scope = _ScopeMethod(
        session_scope,
        """Open a session on the shared engine, and close it at the end; see `session_scope`.

        Args:
            **session_options: options of the `AsyncSession` for this scope alone.

        Returns:
            An async context manager that yields the `AsyncSession`.

        Raises:
            EngineNotChosenError: on the class, if no engine or several engines are tracked.
        """,
    )
    session_scope_fresh = _ScopeMethod(
        session_scope_fresh,
        """Open a session on an engine of its own, disposed at the end; see `session_scope_fresh`.

        Args:
            **session_options: options of the `AsyncSession` for this scope alone.

        Returns:
            An async context manager that yields the `AsyncSession`.

        Raises:
            EngineNotChosenError: on the class, if no engine or several engines are tracked.
        """,
    )


@asynccontextmanager
async def _shared(
    maker: async_sessionmaker[AsyncSession], options: dict[str, Any]
) -> AsyncIterator[AsyncSession]:
    session = maker(**options)
    try:
        yield session
    finally:
        await _complete(session.close(), lambda: None)


@asynccontextmanager
async def _fresh(
    source: AsyncEngine, maker: async_sessionmaker[AsyncSession], options: dict[str, Any]
) -> AsyncIterator[AsyncSession]:
    own = _OwnPoolEngine(source.sync_engine)
    engine = AsyncEngine(own)
    session = maker(bind=engine, **options)

    async def close() -> None:
        if getattr(session.close, "__func__", None) is AsyncSession.close:
            await greenlet_spawn(close_both)  # half the way of two awaits
            return
        try:
            await session.close()
        finally:
            await engine.dispose()

    def close_both() -> None:
        try:
            session.sync_session.close()
        finally:
            own.dispose()

    def cut() -> None:
        # What failed or was cancelled is known already; left checked out, the connection would
        # be complained of by the garbage collector.
        with suppress(Exception):
            session.sync_session.invalidate()
        own.terminate()

    try:
        yield session
    finally:
        await _complete(close(), cut)


async def _complete(closing: Awaitable[None], cut: Callable[[], None]) -> None:
    """Await a closing to its end although the task that asks for it is cancelled."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=GRACE)
        raise
    finally:
        task.cancel()
        if not task.done() or task.cancelled() or task.exception() is not None:
            cut()


def _maker_of(source: Source) -> async_sessionmaker[AsyncSession]:
    if isinstance(source, AsyncSessionFactory):
        return source.maker
    if isinstance(source, async_sessionmaker):
        return source
    if isinstance(source, AsyncEngine):
        return async_sessionmaker(source)
    raise TypeError(
        f"expected an AsyncEngine, an async_sessionmaker or an AsyncSessionFactory,"
        f" not {_kind(source)}"
    )


def _checked(session_options: dict[str, Any]) -> dict[str, Any]:
    """Session options without the engine, which a scope chooses itself."""
    for name in ("bind", "binds"):
        if name in session_options:
            raise TypeError(
                f"{name}= cannot be given to a session scope, which binds the session itself;"
                " name the engine as the first argument: session_scope_fresh(engine)"
            )
    return session_options


def _engine_of(maker: async_sessionmaker[AsyncSession]) -> AsyncEngine:
    bind = maker.kw.get("bind")
    if isinstance(bind, AsyncConnection):
        bind = bind.engine
    if maker.kw.get("binds") or not isinstance(bind, AsyncEngine):
        raise EngineNotChosenError(
            "the async_sessionmaker does not name one engine (its `bind`);"
            " give the engine itself: session_scope_fresh(engine)"
        )
    return bind


def _kind(value: object) -> str:
    return type(value).__qualname__


# which engine ------------------------------------------------------------------------------


def choose_source() -> AsyncSessionFactory | AsyncEngine:
    """Choose the one engine that is tracked in this process.

    Returns:
        The factory of that engine if there is just one, else the engine.

    Raises:
        EngineNotChosenError: if no engine or several engines are tracked.

    Since version 0.1.0.
    """
    factories = list(_factories)
    engines = [factory.engine for factory in factories]
    engines += [AsyncEngine(engine) for engine in _watched_engines()]
    by_pool = _by_pool(engines) or _by_pool(engines_in_memory())
    if len(by_pool) != 1:
        raise EngineNotChosenError(_advice(by_pool.values()))
    return factories[0] if len(factories) == 1 else next(iter(by_pool.values()))


def _watched_engines() -> list[Engine]:
    """The engines that an installation of loopsentry has seen, if there is one."""
    installation = sys.modules.get(f"{__package__}.installation")
    installed = installation.current() if installation is not None else None
    engines: Iterable[Engine] = copy_of(installed.registry.engines.__iter__) if installed else ()
    return [engine for engine in engines if engine.dialect.is_async]


def _by_pool(engines: Iterable[AsyncEngine]) -> dict[Pool, AsyncEngine]:
    """One engine a pool: views with other execution options share their original's."""
    found: dict[Pool, AsyncEngine] = {}
    for engine in engines:
        if engine.sync_engine.pool not in _own_pools:
            found.setdefault(engine.sync_engine.pool, engine)
    return found


def _advice(engines: Iterable[AsyncEngine]) -> str:
    listed = sorted(masked(engine.url) for engine in engines)
    if not listed:
        return (
            "no async engine is known in this process; make one with"
            " AsyncSessionFactory(url), or name it: session_scope_fresh(engine)"
        )
    return (
        f"{len(listed)} async engines are known in this process: {', '.join(listed)};"
        " name one: session_scope_fresh(engine), or call the method on one AsyncSessionFactory"
    )
