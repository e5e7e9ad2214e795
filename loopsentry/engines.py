"""Engines, as messages name them: the harmless parts of their URL, the variable that holds them."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from ._copies import copy_of
from ._variables import find_variable
from .model import EngineInfo
from .registry import Registry

_MAKERS = frozenset({"create_async_engine", "create_engine", "async_engine_from_config"})
_SESSION_MAKERS = frozenset({"async_sessionmaker"})


def listen(target: Any, name: str, listener: Callable[..., Any]) -> Callable[[], None]:
    """Listen to an event of SQLAlchemy's; return what stops it, if nobody else has by then."""
    event.listen(target, name, listener)

    def undo() -> None:
        # A program may clear a class of its listeners, as SQLAlchemy's own tests do.
        if event.contains(target, name, listener):
            event.remove(target, name, listener)

    return undo


def engine_of(target: Any, registry: Registry) -> EngineInfo | None:
    """Describe the engine that is, or has, or made the given engine, pool or session."""
    engine = _find_engine(target, registry)
    if engine is None:
        return None
    registry.engines.add(engine)
    variable, module_file, sessions = _names_of(engine, registry)
    return EngineInfo(
        url=masked(engine.url),
        driver=engine.driver,
        variable=variable,
        module_file=module_file,
        sessions=sessions,
        created_at=registry.engine_places.get(engine),
        loops=registry.loops_of(engine.pool),
        asynchronous=engine.dialect.is_async,
        settings=_settings_of(engine.pool),
    )


def _settings_of(pool: Pool) -> tuple[str, ...]:
    names = [_POOLS[kind.__name__] for kind in type(pool).__mro__ if kind.__name__ in _POOLS]
    return (*names, *(("pre-ping",) if pool._pre_ping else ()))


_POOLS = {"NullPool": "null-pool", "LoopLocalPool": "loop-local-pool", "StaticPool": "static-pool"}


def _find_engine(target: Any, registry: Registry) -> Engine | None:
    if isinstance(target, AsyncSession):
        target = target.sync_session
    if isinstance(target, Session):
        target = target.bind
    if isinstance(target, AsyncEngine):
        target = target.sync_engine
    if isinstance(target, Connection | AsyncConnection):
        target = target.sync_engine if isinstance(target, AsyncConnection) else target.engine
    if isinstance(target, Engine):
        return target
    if isinstance(target, Pool):
        for engine in copy_of(registry.engines.__iter__):
            if engine.pool is target or engine.dialect is target._dialect:
                return engine  # type: ignore[no-any-return]
    return None


def engines_in_memory() -> list[AsyncEngine]:
    """Every asynchronous engine that there is, whether anything was seen of it or not."""
    # By type(), not isinstance(): that asks `__class__`, which runs the code of proxy objects.
    return [each for each in gc.get_objects() if issubclass(type(each), AsyncEngine)]


def masked(url: URL) -> str:
    """What of a URL can be no secret: driver, host, port, database, and known harmless options.

    Secrets come in too many places to list those: as user, in an option of any name, in a whole
    DSN inside an option (`odbc_connect`, `dsn`, `conninfo`), in a database name that is a DSN
    itself. So only what is known is shown; `***` says that there is more.
    """
    host = _harmless(url.host)
    if url.host and ":" in url.host:
        host = f"[{host}]"
    port = f":{url.port}" if url.port else ""
    options = [
        f"{name}={value}"
        for name, value in url.query.items()
        if name in _HARMLESS and isinstance(value, str) and _PLAIN.fullmatch(value)
    ]
    if len(options) < len(url.query):
        options.append("***")
    query = f"?{'&'.join(options)}" if options else ""
    return f"{_harmless(url.drivername)}://{host}{port}/{_harmless(url.database)}{query}"


def _harmless(part: str | None) -> str:
    return part if part and _PLAIN.fullmatch(part) else "***" if part else ""


_PLAIN = re.compile(r"[\w./:\\+\- ]{1,200}")
_HARMLESS = frozenset(
    {
        "application_name",
        "async_fallback",
        "charset",
        "command_timeout",
        "connect_timeout",
        "host",
        "loopsentry_on_mismatch",
        "mode",
        "plugin",
        "port",
        "prepared_statement_cache_size",
        "ssl",
        "sslmode",
        "target_session_attrs",
        "timeout",
        "uri",
    }
)


def _names_of(engine: Engine, registry: Registry) -> tuple[str | None, str | None, str | None]:
    """The variable that holds an engine, its module's file, and the variable of its sessionmaker.

    Searched once for each pool, because each `execution_options()` makes another view of an engine.
    """
    pool = engine.pool
    if pool not in registry.engine_names:
        own = find_variable(lambda value: _holds(value, engine), _MAKERS) or (None, None)
        sessions = find_variable(lambda value: _makes_sessions(value, engine), _SESSION_MAKERS)
        registry.engine_names[pool] = (*own, sessions[0] if sessions else None)
    return registry.engine_names[pool]


def _holds(value: Any, engine: Engine) -> bool:
    if issubclass(type(value), AsyncEngine):
        return value.sync_engine is engine
    return value is engine


def _makes_sessions(value: Any, engine: Engine) -> bool:
    return issubclass(type(value), async_sessionmaker) and _holds(value.kw.get("bind"), engine)
