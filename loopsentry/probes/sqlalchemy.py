"""SQLAlchemy, once the program has imported it: what a suite of asyncpg alone never pays for."""

from __future__ import annotations

from typing import Any

from loopsentry._frames import Site
from loopsentry._imports import is_imported
from loopsentry.model import EngineInfo, Face, Reporter, Sighting, Symptom
from loopsentry.registry import Registry, Undo

from ._births import when_there

PACKAGES = ("sqlalchemy", "sqlmodel", "greenlet")
OPERATIONS = ("sqlalchemy.ext.asyncio",)


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of SQLAlchemy's own; its wrappers only repeat the driver's."""
    probe = _probe()
    return probe.read(exc, text) if probe is not None else None


def sight(target: Any) -> Sighting | None:
    """Recognise sessions, connections, pools and engines; a transaction is what it belongs to."""
    probe = _probe()
    return probe.sight(target) if probe is not None else None


def face_of(symptom: Symptom, sites: list[Site]) -> Face | None:
    """Which form a missing greenlet or a nested loop has, from the frames of SQLAlchemy's call."""
    probe = _probe()
    return probe.face_of(symptom, sites) if probe is not None else None


def engine_of(target: Any, registry: Registry) -> EngineInfo | None:
    """Describe the engine that is, or has, or made the given engine, pool or session."""
    probe = _probe()
    return probe.engine_of(target, registry) if probe is not None else None


def attach(report: Reporter, registry: Registry) -> Undo:
    """Listen to every pool and engine of the process, as soon as there can be one.

    Returns:
        What ends that; the flags that SQLAlchemy sets for listeners stay set.
    """
    return when_there(registry, "sqlalchemy", lambda _library: _probe().attach(report, registry))


def _probe() -> Any:
    if not is_imported("sqlalchemy"):
        return None
    from . import _sqlalchemy

    return _sqlalchemy
