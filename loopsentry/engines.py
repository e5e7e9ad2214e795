"""Engines, as messages name them: by their masked URL and by the variable that holds them."""

from __future__ import annotations

import re
import sys
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from ._frames import is_user_file
from ._safely import safely
from .model import EngineInfo
from .registry import Registry

_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)


def engine_of(target: Any, registry: Registry) -> EngineInfo | None:
    """Describe the engine that is, or has, or made the given engine, pool or session."""
    engine = _find_engine(target, registry)
    if engine is None:
        return None
    registry.engines.add(engine)
    if engine not in registry.engine_names:
        registry.engine_names[engine] = _name_engine(engine) or (None, None)
    variable, module_file = registry.engine_names[engine]
    return EngineInfo(
        url=masked(engine.url),
        driver=engine.driver,
        variable=variable,
        module_file=module_file,
        created_at=registry.engine_places.get(engine),
        loops=registry.loops_of(engine.pool),
        asynchronous=engine.dialect.is_async,
    )


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
    """A URL without its password and without anything secret in its query."""
    hidden = {name: "***" for name in url.query if _SECRET.search(name)}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


@safely
def _name_engine(engine: Engine) -> tuple[str | None, str | None]:
    """Find the global variable that holds an engine, in the user's modules, one level deep."""
    for name, module in list(sys.modules.items()):
        names = _attributes_of(module)
        file = names.get("__file__")
        if not _is_own(names) and name != "__main__":
            continue
        for variable, value in list(names.items()):
            if _holds(value, engine):
                return variable, file
            if _is_own(_attributes_of(sys.modules.get(type(value).__module__))):
                for attribute, inner in list(_attributes_of(value).items()):
                    if _holds(inner, engine):
                        return f"{variable}.{attribute}", file
    return None, None


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
