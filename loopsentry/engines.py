"""Engines, as messages name them: the harmless parts of their URL, the variable that holds them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from ._frames import is_user_file
from ._safely import safely
from .model import EngineInfo
from .registry import Registry

#: How long the user's modules may be searched for an engine's variable; once for each pool.
SEARCH_SECONDS = 0.02

_MAKERS = frozenset({"create_async_engine", "create_engine", "async_engine_from_config"})


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
    variable, module_file = _names_of(engine, registry)
    return EngineInfo(
        url=masked(engine.url),
        driver=engine.driver,
        variable=variable,
        module_file=module_file,
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
        for engine in list(registry.engines):
            if engine.pool is target or engine.dialect is target._dialect:
                return engine  # type: ignore[no-any-return]
    return None


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


def _names_of(engine: Engine, registry: Registry) -> tuple[str | None, str | None]:
    """The variable that holds an engine, and its module's file; searched once for each pool.

    By pool, because each `execution_options()` makes another view of one engine.
    """
    pool = engine.pool
    if pool not in registry.engine_names:
        registry.engine_names[pool] = _name_engine(engine) or (None, None)
    return registry.engine_names[pool]


@safely
def _name_engine(engine: Engine) -> tuple[str | None, str | None]:
    """Find the global variable that holds an engine, in the user's modules, one level deep.

    Where several modules have it, the others import it from the one that can make engines.
    """
    found: list[tuple[int, str, str | None]] = []
    deadline = perf_counter() + SEARCH_SECONDS
    for name, module in list(sys.modules.items()):
        names = _attributes_of(module)
        if not _is_own(names) and name != "__main__":
            continue
        if perf_counter() > deadline:
            break
        variable = _variable_in(names, engine)
        if variable is not None:
            made_here = not _MAKERS.isdisjoint(names)
            found.append((2 * made_here + (name != "__main__"), variable, names.get("__file__")))
    found.sort(key=lambda each: -each[0])
    return found[0][1:] if found else (None, None)


def _variable_in(names: dict[str, Any], engine: Engine) -> str | None:
    for variable, value in list(names.items()):
        if _holds(value, engine):
            return variable
        if _is_own(_attributes_of(sys.modules.get(type(value).__module__))):
            for attribute, inner in list(_attributes_of(value).items()):
                if _holds(inner, engine):
                    return f"{variable}.{attribute}"
    return None


def _attributes_of(target: Any) -> dict[str, Any]:
    """An object's own attributes, without running a `__getattr__` of it: modules may be lazy."""
    try:
        attributes = object.__getattribute__(target, "__dict__")
    except AttributeError:
        return {}
    return attributes if type(attributes) is dict else {}


def _is_own(names: dict[str, Any]) -> bool:
    """Whether these are the names of one of the user's own modules."""
    file = names.get("__file__")
    return isinstance(file, str) and is_user_file(file)


def _holds(value: Any, engine: Engine) -> bool:
    if issubclass(type(value), AsyncEngine):
        return value.sync_engine is engine
    return value is engine
