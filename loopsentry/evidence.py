"""From an exception and the records to `Evidence`: collecting, never judging."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from . import _frames
from ._frames import Site
from ._wording import excerpt, quote
from .exceptions import (
    arguments_of,
    is_a,
    message_of,
    traceback_of,
    walk_tree,
)
from .holders import find_foreign_task, search_tasks
from .model import (
    Birth,
    Clue,
    EngineInfo,
    Evidence,
    ObjectKind,
    Operation,
    Original,
    Place,
    Recognition,
    Sighting,
    Stack,
    Subject,
    Symptom,
)
from .registry import LoopRecord, Registry
from .roles import alive_then, contexts_of, followed_by, is_same, role_a, role_b
from .siblings import find_sibling
from .stages import is_collected, is_connecting, phase_of, stage_of

FRAMES_SEEN = 400
_SCOPES = frozenset({"__aenter__", "__aexit__"})
_COMMITS = frozenset({"commit", "_commit_impl", "do_commit", "_do_commit"})


@dataclass(frozen=True, slots=True)
class Complaint:
    """An exception that a probe read.

    Attributes:
        symptom: what it says.
        exc: the exception; never kept beyond one examination.
    """

    symptom: Symptom
    exc: BaseException


@dataclass(frozen=True, slots=True)
class Case:
    """What one examination comes to.

    Attributes:
        evidence: all that is known.
        complaint: the one complaint that it is about.
    """

    evidence: Evidence
    complaint: Complaint


@dataclass(slots=True)
class Found:
    """What one examination has gathered so far.

    Attributes:
        tree: the exceptions, the first raised first.
        sites: frames from the innermost outwards; the tracebacks' first, then the live stack's.
        traced: how many of the sites come from tracebacks.
        sightings: recognised objects, the innermost first.
        aliases: identities under which the subject may appear in other tasks' frames.
    """

    tree: list[BaseException]
    sites: list[Site]
    traced: int
    sightings: list[Sighting] = field(default_factory=list)
    aliases: set[int] = field(default_factory=set)


class Collector:
    """Gathers evidence with the help of the probes' shelf."""

    def __init__(
        self,
        registry: Registry,
        probes: Iterable[ModuleType],
        recognise: Callable[[Stack], list[Recognition]],
    ) -> None:
        probes = list(probes)
        self.registry = registry
        self.recognise = recognise
        self.readers = [probe.read for probe in probes if hasattr(probe, "read")]
        self.sighters = [probe.sight for probe in probes if hasattr(probe, "sight")]
        self.engines = [probe.engine_of for probe in probes if hasattr(probe, "engine_of")]
        self.operations = tuple(
            itertools.chain.from_iterable(getattr(probe, "OPERATIONS", ()) for probe in probes)
        )

    # symptoms ------------------------------------------------------------------------------

    def symptoms(self, tree: Iterable[BaseException]) -> list[tuple[Symptom, BaseException]]:
        """What the libraries complain of, and with which exception, the first raised first."""
        found = []
        for exc in tree:
            text = excerpt(message_of(exc))
            for read in self.readers:
                symptom = read(exc, text)
                if symptom is not None:
                    found.append((symptom, exc))
                    break
        return found

    def _counts(self, symptom: Symptom, exc: BaseException) -> bool:
        """A cancellation counts only where it cut a database operation short."""
        if symptom.kind != "cancelled":
            return True
        sites = _frames.walk_traceback(traceback_of(exc))
        modules = (_frames.module_of(site.frame) for site in sites)
        return any(module.startswith(self.operations) for module in modules)

    # collecting ----------------------------------------------------------------------------

    def collect(self, exc: BaseException, clue: Clue) -> Case | None:
        """Gather all that is known about an exception; None if nothing in it is a symptom."""
        tree = walk_tree(exc)
        told = [pair for pair in self.symptoms(tree) if self._counts(*pair)]
        symptoms = tuple(symptom for symptom, _ in told)
        complaints = [Complaint(s, node) for s, node in told if s.kind != "cancelled"]
        if not complaints:
            return None
        complaint = next((c for c in reversed(complaints) if not c.symptom.quoted), complaints[-1])
        complaining = [each.exc for each in complaints]
        found = Found(tree, *self._sites([*complaining, *tree]))
        self._sight_all(found, clue)
        current_loop, index = self._current_loop(found, symptoms)
        current = self._meet(current_loop, found, index)
        sighting = self._choose(found, symptoms, current_loop)
        birth = clue.birth if clue.birth is not None else self._birth_of(sighting, found)
        owner_loop = sighting.loop if sighting is not None else None
        owner = self.registry.loop(birth.loop) if birth else None
        owner = owner or self._meet_owner(owner_loop or _refusing_loop(found), found)
        place = self._place(found)
        recognised = self.recognise(_frames.describe_all(found.sites))
        operation = self._operation(found.sites)
        cancellation = self.registry.cancellation_of(s.target for s in found.sightings)
        engine = self._engine(clue, found)
        if _is_ordinary(engine, current, symptoms):
            return None
        alive = alive_then(owner, current, found.sites, index)
        same = is_same(owner, current, birth, sighting, clue)
        evidence = Evidence(
            symptoms=symptoms,
            subject=self._subject(sighting, birth, found, current),
            owner=role_a(owner, alive),
            current=role_b(current, owner),
            same_loop=same,
            owner_alive=alive,
            used_at=place,
            stack=_frames.user_stack(found.sites),
            task=_task_name(),
            operation=operation,
            phase=phase_of(operation, found.sites, clue),
            stage=stage_of(found.sites, operation),
            collected=is_collected(found.sites),
            other=self._other_operation(found, symptoms) if same is not False else None,
            first_failure=self.registry.failures.get(birth.serial) if birth else None,
            engine=engine,
            contexts=contexts_of(
                recognised, current, owner, forked=birth is not None and birth.pid != os.getpid()
            ),
            followed=followed_by(recognised, current),
            framework=clue.framework or self.registry.surroundings(),
            cancelled=cancellation is not None or any(s.kind == "cancelled" for s in symptoms),
            cancellation=cancellation.place if cancellation else None,
            closed=any(s.closed for s in found.sightings),
            loop_traced=index is not None,
            handled=clue.reaches_program and not clue.ignored,
            original=_original(complaint.symptom),
        )
        return Case(evidence, complaint)

    def _sites(self, tree: list[BaseException]) -> tuple[list[Site], int]:
        seen: set[tuple[int, int]] = set()
        sites: list[Site] = []
        for exc in tree:
            for site in _frames.walk_traceback(traceback_of(exc)):
                if (id(site.frame), site.line) not in seen and len(sites) < FRAMES_SEEN:
                    seen.add((id(site.frame), site.line))
                    sites.append(site)
        traced = len(sites)
        known = {id(site.frame) for site in sites}
        for site in _frames.walk_live(sys._getframe(1)):
            if id(site.frame) not in known and len(sites) < 2 * FRAMES_SEEN:
                sites.append(site)
        return sites, traced

    def _sight_all(self, found: Found, clue: Clue) -> None:
        targets: list[Any] = [clue.target] if clue.target is not None else []
        library = (site.frame for site in found.sites if not _frames.is_user(site.frame))
        targets.extend(map(_frames.first_argument, library))
        seen: set[int] = set()
        while targets:
            target = targets.pop(0)
            if target is None or id(target) in seen:
                continue
            seen.add(id(target))
            sighting = self.sight(target)
            if sighting is None:
                continue
            found.sightings.append(sighting)
            if sighting.kind in ("connection", "session"):
                found.aliases.update((id(target), id(sighting.target)))
            if sighting.inner is not None:
                targets.insert(0, sighting.inner)

    def sight(self, target: Any) -> Sighting | None:
        """Ask the probes what an object is."""
        for sight in self.sighters:
            sighting: Sighting | None = sight(target)
            if sighting is not None:
                return sighting
        return None

    # loops ---------------------------------------------------------------------------------

    def _current_loop(self, found: Found, symptoms: tuple[Symptom, ...]) -> tuple[Any, int | None]:
        """The loop it happened on: the innermost that a traceback left, else the running one.

        Where a loop was refused its start, the outermost: the inner one never ran.
        """
        sites = list(enumerate(found.sites[: found.traced]))
        if any(symptom.kind == "nested-run" for symptom in symptoms):
            running = asyncio._get_running_loop()
            if running is not None:
                return running, None
            sites.reverse()
        for index, site in sites:
            loop = _frames.loop_run_by(site)
            if loop is not None:
                return loop, index
        for site in found.sites[: found.traced]:
            # Lib/asyncio/mixins.py: _get_loop() refuses with the running loop in a local.
            if site.code.co_name == "_get_loop":
                loop = _frames.variables_in(site.frame).get("loop")
                if _frames.is_loop(loop):
                    return loop, None
        return asyncio._get_running_loop(), None

    def _meet(self, loop: Any, found: Found, index: int | None) -> LoopRecord | None:
        sites = found.sites if index is None else _frames.around(found.sites, index)
        return self.registry.meet(loop, lambda: _frames.describe_all(sites))

    def _meet_owner(self, loop: Any, found: Found) -> LoopRecord | None:
        """What is known of an owner that only its object names; its frames may be in the stack."""
        if not _frames.is_loop(loop):
            return None
        running = (i for i, site in enumerate(found.sites) if _frames.loop_run_by(site) is loop)
        index = next(running, None)
        sites = _frames.thread_of(loop) if index is None else _frames.around(found.sites, index)
        return self.registry.meet(loop, lambda: _frames.describe_all(sites))

    def _place(self, found: Found) -> Place | None:
        """The user's line that did it: on the loop, if there is one, not where that was started.

        A task that only a library started, as `AsyncSession.__aexit__` does to shield its close()
        (sqlalchemy/ext/asyncio/session.py), has no such line; the task that waits for it has.
        """
        inner, _ = _frames.split_at_loop(found.sites[: found.traced or None])
        place = _frames.user_place(inner or found.sites)
        if place is None:
            inner, outer = _frames.split_at_loop(found.sites)
            place = _frames.user_place(inner)
        if place is not None:
            return place
        loop = asyncio._get_running_loop()
        waiting = search_tasks(loop, found.aliases, waiting=True) if loop else None
        return waiting.place if waiting is not None else _frames.user_place(outer)

    # the subject ---------------------------------------------------------------------------

    def _choose(self, found: Found, symptoms: tuple[Symptom, ...], current: Any) -> Sighting | None:
        """The object it is about: a primitive of another loop, else the innermost of its kind."""
        kinds = {symptom.kind for symptom in symptoms}
        if "foreign-loop" in kinds:
            for sighting in found.sightings:
                foreign = sighting.loop is not None and sighting.loop is not current
                if sighting.kind in ("primitive", "future") and foreign:
                    return sighting
            if not any(s.kind in ("connection", "pool") for s in found.sightings):
                return self._foreign_future(found, current)
        if kinds & {"provisioning", "illegal-state"}:
            for sighting in found.sightings:
                if sighting.kind == "session":
                    return sighting
        for kind in ("connection", "pool", "session"):
            of_kind = [s for s in found.sightings if s.kind == kind]
            bound = [s for s in of_kind if s.loop is not None or s.tolerant]
            if of_kind and (kind != "pool" or bound):
                return (bound or of_kind)[0]
        return None

    def _foreign_future(self, found: Found, current: Any) -> Sighting | None:
        texts = [arg for exc in found.tree for arg in arguments_of(exc)[:1] if type(arg) is str]
        future = find_foreign_task(texts, current) or _named_future(found, current)
        return self.sight(future) if future is not None else None

    def _birth_of(self, sighting: Sighting | None, found: Found) -> Birth | None:
        if sighting is None:
            return None
        birth = self.registry.birth_of(sighting.target)
        if birth is None and sighting.kind == "connection":
            others = (s.target for s in found.sightings if s.kind == "connection")
            birth = next(filter(None, map(self.registry.birth_of, others)), None)
        if birth is not None or not _frames.is_loop(sighting.loop):
            return birth
        owner = self._meet_owner(sighting.loop, found)
        birth = self.registry.new_birth(
            sighting.kind,
            owner.info.id if owner else None,
            recorded=False,
            family=self.registry.family_of(sighting.target),
        )
        self.registry.bear(sighting.target, birth)
        return birth

    def _subject(
        self,
        sighting: Sighting | None,
        birth: Birth | None,
        found: Found,
        current: LoopRecord | None,
    ) -> Subject | None:
        if sighting is None:
            return None
        kind, label = sighting.kind, sighting.label
        if kind == "session":
            label = "AsyncSession"
        if kind == "primitive":
            kind, label = _owner_of_primitive(label, found)
        if kind == "connection" and birth is not None and current is not None:
            crossing = self.registry.crossings.get(birth.serial)
            checked_out_here = crossing is not None and crossing[0] == current.info.id
            sessions = [s for s in found.sightings if s.kind == "session"]
            carried = birth.loop != current.info.id and birth.recorded and not checked_out_here
            if carried and sessions and not is_connecting(found.sites):
                kind, label = "session", "AsyncSession"
        return Subject(
            kind=kind,
            label=label,
            birth=birth,
            tolerant=sighting.tolerant,
            primitive=sighting.kind == "primitive",
        )

    def _engine(self, clue: Clue, found: Found) -> EngineInfo | None:
        kinds = ("engine", "pool", "session", "connection")
        seen = [s.target for kind in kinds for s in found.sightings if s.kind == kind]
        return self.engine_of(clue, seen)

    def engine_of(self, clue: Clue, others: Iterable[Any] = ()) -> EngineInfo | None:
        """The engine that a clue names, or else that is behind one of the other objects."""
        for target in (clue.engine, clue.pool, *others):
            for engine_of in self.engines:
                info: EngineInfo | None = engine_of(target, self.registry)
                if info is not None:
                    return info
        return None

    # who else ------------------------------------------------------------------------------

    def _operation(self, sites: list[Site]) -> str | None:
        """The library's method that the user's innermost frame called."""
        called: str | None = None
        committed = False
        for site in sites:
            if _frames.is_user(site.frame):
                break
            module = _frames.module_of(site.frame)
            committed = committed or site.code.co_name in _COMMITS
            name = site.code.co_name
            if module.startswith(self.operations) and (name[0] != "_" or name in _SCOPES):
                called = name
        if called == "__aexit__":
            return "commit" if committed else "close"
        return {"__aenter__": "connect", "start": "connect"}.get(called or "", called)

    def _other_operation(self, found: Found, symptoms: tuple[Symptom, ...]) -> Operation | None:
        """Who else works with the subject: another task of this loop, or a recorded opening."""
        if not found.aliases:
            return None
        loop = asyncio._get_running_loop()
        if loop is not None:
            operation = search_tasks(loop, found.aliases)
            if operation is not None:
                return operation
        if any(symptom.kind in ("provisioning", "illegal-state") for symptom in symptoms):
            return self._opening(found)
        if loop is None and any(symptom.under_way for symptom in symptoms):
            return find_sibling(found.sites[: found.traced])
        return None

    def _opening(self, found: Found) -> Operation | None:
        mine = _frames.user_place(found.sites)
        for sighting in found.sightings:
            opening = (
                self.registry.openings.get(sighting.target) if sighting.kind == "session" else None
            )
            if opening is None or opening.place is None or opening.place == mine:
                continue
            return Operation(
                task=opening.task or "",
                function=opening.place.function,
                file=opening.place.file,
                line=opening.place.line,
                state="opening a connection",
            )
        return None


def _refusing_loop(found: Found) -> Any:
    """The closed loop that refused to be called (Lib/asyncio/base_events.py: _check_closed)."""
    for site in found.sites[: found.traced]:
        if site.code.co_name == "_check_closed":
            return _frames.first_argument(site.frame)
    return None


def _named_future(found: Found, current: Any) -> asyncio.Future[Any] | None:
    """A future of another loop that the awaiting function itself names."""
    for site in found.sites[: found.traced]:
        if _frames.is_user(site.frame):
            named = (site.frame.f_globals.get(name) for name in site.code.co_names)
            for value in (*_frames.variables_in(site.frame).values(), *named):
                if is_a(value, asyncio.Future) and value.get_loop() is not current:
                    return value
            return None
    return None


def _is_ordinary(
    engine: EngineInfo | None, current: LoopRecord | None, symptoms: tuple[Symptom, ...]
) -> bool:
    """Whether this is the failure of an ordinary program, without event loops or async engines."""
    if any(symptom.library != "sqlalchemy" for symptom in symptoms):
        return False
    return not engine.asynchronous if engine is not None else current is None


def _owner_of_primitive(label: str, found: Found) -> tuple[ObjectKind, str]:
    """A pool's own queue and first-connect lock are the pool's, to the reader."""
    for sighting in found.sightings:
        if sighting.kind == "pool":
            if any(s.code.co_name == "_exec_w_sync_on_first_run" for s in found.sites):
                return "pool", "the pool's first-connect lock"
            if any(s.code.co_name == "_do_get" for s in found.sites):
                return "pool", "the pool's queue"
    return "primitive", label


def _task_name() -> str | None:
    if asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        return task.get_name() if task else None
    return None


def _original(symptom: Symptom) -> Original:
    return Original(type=symptom.type, message=quote(symptom.text))
