"""Which of the objects met in a failed call it is about."""

from __future__ import annotations

import asyncio
import sys
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from . import _frames
from ._copies import copy_of
from ._frames import Site
from .exceptions import arguments_of, is_a, variables_of
from .holders import find_foreign_task
from .incidents import Incident
from .model import REFUSALS, ObjectKind, Sighting, Symptom
from .registry import Registry


@dataclass(slots=True)
class Found:
    """What the examination of one incident has gathered so far.

    Attributes:
        incident: what is examined.
        library: the frames of the library's call that failed, the innermost first.
        sightings: objects recognised in them, the innermost first.
        aliases: identities under which the subject may appear in other tasks' frames.
    """

    incident: Incident
    library: list[Site]
    sightings: list[Sighting] = field(default_factory=list)
    aliases: set[int] = field(default_factory=set)

    @property
    def sites(self) -> list[Site]:
        """All frames, the innermost first."""
        return self.incident.sites

    @property
    def segment(self) -> list[Site]:
        """Those that ran in one task or thread."""
        return self.incident.sites[: self.incident.segment]

    @property
    def traced(self) -> list[Site]:
        """Those that come from tracebacks."""
        return self.incident.sites[: self.incident.traced]


class Subjects:
    """Chooses the subject of a failure."""

    def __init__(self, registry: Registry, sight: Callable[[Any], Sighting | None]) -> None:
        self.registry = registry
        self.sight = sight

    def choose(self, found: Found, symptoms: tuple[Symptom, ...], current: Any) -> Sighting | None:
        """The object it is about: a primitive of another loop, else the innermost of its kind."""
        kinds = {symptom.kind for symptom in symptoms}
        if "exhausted" in kinds:
            return next((s for s in found.sightings if s.kind == "pool"), None)
        if "foreign-loop" in kinds:
            foreign = self._foreign(found, current)
            if foreign is not None or not _has_connection(found):
                return foreign
        ranked: tuple[ObjectKind, ...] = ("connection", "pool", "session")
        if kinds & set(REFUSALS):
            ranked = ("session", *ranked)
        for kind in ranked:
            of_kind = [s for s in found.sightings if s.kind == kind]
            bound = [s for s in of_kind if s.loop is not None or s.tolerant]
            if of_kind and (kind != "pool" or bound):
                return (bound or of_kind)[0]
        if "busy" in kinds:
            return self._busy_client(found)
        return self._client(found, current) if "loop-closed" in kinds else None

    def _foreign(self, found: Found, current: Any) -> Sighting | None:
        """The primitive, future or client of another loop; None if it is what a driver has."""
        for sighting in found.sightings:
            foreign = sighting.loop is not None and sighting.loop is not current
            if sighting.kind in ("primitive", "future") and foreign:
                return self._client_with(sighting, found) or sighting
        awaiting = next(iter(found.segment), None)
        if awaiting is not None and _frames.is_user(awaiting.frame):
            return self._foreign_future(found, current)  # no library was awaited
        if _has_connection(found):
            return None
        return self._client(found, current) or self._foreign_future(found, current)

    def _busy_client(self, found: Found) -> Sighting | None:
        """Another library's client whose stream two tasks read at once."""
        package = _package_called(found.library)
        stream = next((s for s in found.sightings if s.kind == "client"), None)
        if stream is None:
            return None
        package, label = _named(package)
        return replace(stream, label=label, library=package)

    def _client_with(self, sighting: Sighting, found: Found) -> Sighting | None:
        """The client of another library inside which a lock or a queue of another loop was met."""
        known = any(s.kind in ("connection", "pool", "session") for s in found.sightings)
        package = None if known else _package_called(found.library)
        if sighting.kind != "primitive" or package is None:
            return None
        return replace(sighting, kind="client", label=f"{package} client", library=package)

    def _client(self, found: Found, current: Any) -> Sighting | None:
        """Another library's client, known by its stream or by the closed loop that refused it."""
        package = _package_called(found.library)
        streams = [s for s in found.sightings if s.kind == "client"]
        said = (*(s.loop for s in streams), refusing_loop(found))
        loops = [loop for loop in said if _frames.is_loop(loop)]
        foreign = next((loop for loop in loops if loop is not current), None)
        if package is None and not streams:
            return None
        package, label = _named(package)
        if foreign is None or current is None:
            return None
        opened = (s.target for s in streams if s.loop is foreign)
        known = (target for target in opened if self.registry.birth_of(target) is not None)
        return Sighting(
            kind="client",
            label=label,
            library=package,
            target=next(known, found.incident),
            loop=foreign,
        )

    def _foreign_future(self, found: Found, current: Any) -> Sighting | None:
        excs = [each.exc for each in found.incident.complaints]
        texts = [arg for exc in excs for arg in arguments_of(exc)[:1] if type(arg) is str]
        loops = (*copy_of(self.registry.loops.keys), *copy_of(self.registry.started.keys))
        future = find_foreign_task(texts, current, loops) or _named_future(found, current)
        return self.sight(future) if future is not None else None


def _named(package: str | None) -> tuple[str, str]:
    """The library of a client and what it is called; without one the program made it of streams."""
    return (package, f"{package} client") if package else ("asyncio", "asyncio stream")


def _has_connection(found: Found) -> bool:
    return any(s.kind in ("connection", "pool") for s in found.sightings)


def refusing_loop(found: Found) -> Any:
    """The closed loop that refused to be called (Lib/asyncio/base_events.py: _check_closed)."""
    for site in found.segment:
        if site.code.co_name == "_check_closed":
            return _frames.first_argument(site.frame)
    return None


def _package_called(library: list[Site]) -> str | None:
    """The library whose function the program called, if it is neither asyncio nor standard."""
    modules = (_frames.module_of(site.frame).partition(".")[0] for site in reversed(library))
    others = (name for name in modules if name not in _PLUMBING and name not in _STANDARD)
    return next(others, None)


_PLUMBING = frozenset(
    {"", "uvloop", "anyio", "sniffio", "greenlet", "loopsentry", "pytest_asyncio"}
)
_STANDARD = sys.stdlib_module_names


def _named_future(found: Found, current: Any) -> asyncio.Future[Any] | None:
    """A future of another loop that the awaiting function itself names."""
    for site in found.segment:
        if _frames.is_user(site.frame):
            given = _frames.variables_in(site.frame)
            own = variables_of(_frames.first_argument(site.frame))
            known = ChainMap(dict(given), own, site.frame.f_globals)
            here = _frames.names_at(site)
            names = (*sorted(here.all), *given, *site.code.co_names)
            for value in (known.get(name) for name in names):
                if is_a(value, asyncio.Future) and value.get_loop() is not current:
                    return value
            return None
    return None
