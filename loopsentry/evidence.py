"""From an exception and the records to `Evidence`: collecting, never judging."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FrameType, ModuleType
from typing import Any

from . import _frames
from ._frames import Site
from ._safely import safely
from ._starts import find_start
from ._variables import definition_of, find_variable
from ._wording import excerpt, quote
from .closings import closed_before, may_be_ended_elsewhere
from .exceptions import field_of, is_a, message_of, traceback_of, variables_of
from .holders import place_here, search_tasks, sites_waiting_here
from .incidents import Complaint, Incident, find_incidents
from .model import (
    COLLECT,
    REFUSALS,
    Birth,
    Clue,
    Ending,
    EngineInfo,
    Evidence,
    Face,
    FirstFailure,
    Hang,
    Holder,
    ObjectKind,
    Operation,
    Original,
    Place,
    Recognition,
    Sighting,
    Stack,
    Subject,
    Symptom,
    says,
)
from .registry import LoopRecord, Registry, state_of
from .roles import alive_then, contexts_of, followed_by, is_same, role_a, role_b
from .siblings import find_sharer, find_sibling, holds_cancelled
from .stages import collected_at, dropped_at, is_connecting, phase_of, stage_of
from .subjects import Found, Subjects, refusing_loop

_SCOPES = frozenset({"__aenter__", "__aexit__"})
_ABORTS = frozenset({"terminate"})
_COMMITS = frozenset({"commit", "_commit_impl", "do_commit", "_do_commit"})


@dataclass(frozen=True, slots=True)
class Case:
    """What one examination comes to.

    Attributes:
        evidence: all that is known of one incident.
        complaint: the one complaint that it is about.
        units: the library's units of work in its call, such as an SQLAlchemy connection.
        sessions: the sessions in its call.
    """

    evidence: Evidence
    complaint: Complaint
    units: tuple[Any, ...] = ()
    sessions: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """On which event loop something happened, as far as that can be told.

    Attributes:
        loop: the loop, None where there was none or where it is not known.
        index: where its runner stands among the frames, None if it does not.
        known: whether that is certain; if it is, and there is no loop, none was running.
    """

    loop: Any
    index: int | None = None
    known: bool = True


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
        self.subjects = Subjects(registry, self.sight)
        self.recognise = recognise
        self.readers = [probe.read for probe in probes if hasattr(probe, "read")]
        self.sighters = [probe.sight for probe in probes if hasattr(probe, "sight")]
        self.faces = [probe.face_of for probe in probes if hasattr(probe, "face_of")]
        self.engines = [probe.engine_of for probe in probes if hasattr(probe, "engine_of")]
        self.operations = tuple(
            itertools.chain.from_iterable(getattr(probe, "OPERATIONS", ()) for probe in probes)
        )

    # complaints ----------------------------------------------------------------------------

    def read(self, exc: BaseException) -> Symptom | None:
        """What an exception complains of, in the words of the library that knows it."""
        text = excerpt(message_of(exc))
        cancelled: Symptom | None = None
        for read in self.readers:
            symptom: Symptom | None = read(exc, text)
            if symptom is not None and symptom.kind != "cancelled":
                return symptom
            cancelled = cancelled or symptom  # a library may know what the time was up for
        return cancelled if cancelled is not None and self._counts(cancelled, exc) else None

    def _counts(self, symptom: Symptom, exc: BaseException) -> bool:
        """A cancellation counts only where it cut a database operation short."""
        if symptom.kind != "cancelled":
            return True
        sites = _frames.walk_traceback(traceback_of(exc))
        modules = (_frames.module_of(site.frame) for site in sites)
        return any(module.startswith(self.operations) for module in modules)

    # collecting ----------------------------------------------------------------------------

    def collect(self, exc: BaseException, clue: Clue) -> list[Case]:
        """Gather what is known about each incident in an exception; none if nothing complains."""
        incidents = find_incidents(exc, self.read, self._identities)
        found = (self._examine(incident, clue) for incident in incidents)
        return [case for case in found if case is not None]

    def _examine(self, incident: Incident, clue: Clue) -> Case | None:
        symptoms = incident.symptoms
        collected = collected_at(incident.library)
        end = collected + 1 if collected is not None else None
        found = Found(incident, incident.library[:end])
        if clue.target is not None and len(found.library) < incident.traced and not incident.before:
            # The program's own code stands between the complaint and the connection.
            clue = replace(clue, target=None, birth=None)
        self._sight_all(found, clue)
        surfaced = self._surfaced(found, symptoms)
        sighting = self.subjects.choose(found, symptoms, surfaced.loop)
        birth = clue.birth if clue.birth is not None else self._birth_of(sighting, found)
        owner_loop = sighting.loop if sighting is not None else None
        owner = self.registry.loop(birth.loop) if birth else None
        owner = owner or self._meet_owner(owner_loop or refusing_loop(found), found)
        happened = self._happened(surfaced, symptoms, birth, owner, clue)
        index = happened.index
        current = self._meet(happened.loop, found, index)
        recognised = self.recognise(_frames.describe_all(found.sites))
        operation, leaving = self._operation(found.sites)
        if collected is not None:
            operation = COLLECT
        cancellation = self.registry.cancellation_of(s.target for s in found.sightings)
        engine = self._engine(clue, found)
        if _is_ordinary(engine, self._meet(surfaced.loop, found, surfaced.index), symptoms):
            return None
        for record in (owner, current):
            _complete(record)
        alive = alive_then(owner, current, found.sites, index, live=clue.live)
        bound = sighting is not None and (birth is None or birth.loop is not None)
        refused = any(s.kind == "foreign-loop" and not s.quoted for s in symptoms)
        same = is_same(owner if bound else None, current, known=happened.known, refused=refused)
        units = tuple(s.target for s in found.sightings if s.kind == "connection")
        sessions = tuple(s.target for s in found.sightings if s.kind == "session")
        busy_session = sessions if says(symptoms, *REFUSALS) else ()
        failure = self._first_failure(birth, (*units, *busy_session))
        other, apart = None, False
        if same is not False:
            other, apart = self._other_operation(found, symptoms)
        busy = says(symptoms, "busy")
        cut = busy and other is None and same is not False and holds_cancelled(found.traced)
        if busy and same and not (other or cut or cancellation or failure):
            other = find_sibling(found.traced)
        shared = self._is_shared(found, symptoms) if same is not False and not apart else False
        if shared and other is None:
            other = find_sibling(found.traced)
        forked = birth is not None and birth.pid != os.getpid()
        closing, closed_at = self._closing(found, symptoms, units, live=clue.live)
        evidence = Evidence(
            symptoms=symptoms,
            subject=self._subject(sighting, birth, found, current),
            owner=role_a(owner, alive or same),
            current=role_b(current, owner),
            same_loop=same,
            owner_alive=alive,
            nowhere=_thread_of(found, clue) if happened.known and current is None else None,
            used_at=self._place(found),
            stack=_frames.user_stack(found.sites),
            task=_frames.task_name(),
            operation=operation,
            phase=phase_of(operation, found.library, clue),
            stage=stage_of(found.library, operation),
            other=other,
            apart=apart,
            shared=shared,
            first_failure=failure,
            engine=engine,
            face=self._face(found),
            contexts=contexts_of(
                recognised,
                current,
                owner,
                forked=forked,
                nested=says(symptoms, "nested-run"),
            ),
            followed=followed_by(recognised, current),
            framework=clue.framework or self.registry.surroundings(),
            cancelled=cut or cancellation is not None or says(symptoms, "cancelled"),
            cancellation=cancellation.place if cancellation else None,
            closed=any(s.closed for s in found.sightings),
            closing=closing,
            closed_at=closed_at,
            leaving=operation == "commit" and leaving,
            loop_traced=index is not None,
            handled=clue.reaches_program and not clue.ignored,
            original=_original(incident.complaint.symptom),
            holders=self._holders(sighting, incident),
        )
        if collected is not None:
            # Nothing used it: what was at work then has no part in it.
            evidence = replace(
                evidence,
                collected=True,
                used_at=dropped_at(found.sites, collected),
                stack=(),
                task=None,
                framework=clue.framework,
                contexts=contexts_of([], owner, current, forked=forked),
            )
        return Case(evidence, incident.complaint, units, sessions)

    def collect_hang(
        self, loop: Any, hang: Hang, sites: list[Site], inside: tuple[Any, ...]
    ) -> Evidence:
        """Gather what is known of a loop that stands still, from the stack of its thread."""
        record = self.registry.meet(loop, lambda: _frames.describe_all(_frames.thread_of(loop)))
        recognised = self.recognise(_frames.describe_all(sites))
        current = role_b(record, None)
        first = hang.waits[0]
        seen = next(filter(None, map(self.sight, inside)), None)
        pool = seen if hang.kind == "pool-exhausted" else None
        birth = self.registry.birth_of(pool.target) if pool is not None else None
        return Evidence(
            symptoms=(),
            subject=self._subject(pool, birth, Found(Incident([], sites=[]), []), None),
            holders=self.registry.holders_of(pool.target) if pool is not None else (),
            current=replace(current, thread=first.thread) if current is not None else None,
            used_at=first.place,
            stack=_frames.user_stack(sites),
            task=first.task,
            contexts=contexts_of(recognised, record, None, forked=False),
            followed=followed_by(recognised, record),
            hang=hang,
            engine=self.engine_of(Clue(), inside),
        )

    def _closing(
        self, found: Found, symptoms: tuple[Symptom, ...], units: tuple[Any, ...], *, live: bool
    ) -> tuple[Ending, Place | None]:
        """Whether the program closed the connection that says so, and where."""
        cut = says(symptoms, "cut-off")
        recorded = self.registry.closing_of(units)
        driven = [s for s in found.sightings if s.kind == "connection" and s.inner is None]
        asked = bool(driven) and (cut or says(symptoms, "disconnected"))
        read = None
        if asked:
            read = closed_before(found.traced, lambda value: self._holds(value, driven))
        tidied = cut and read is None and recorded is not None and _is_within(recorded, found)
        if recorded is not None and not tidied:
            return "recorded", recorded
        told = any(symptom.by_program for symptom in symptoms)
        if read is not None or told or (cut and live and driven and driven[0].closed):
            return "read", read
        return (
            self._unrecorded(found, symptoms, driven[0]) if asked and not cut else "unknown"
        ), None

    def _unrecorded(self, found: Found, symptoms: tuple[Symptom, ...], driven: Sighting) -> Ending:
        """Whether anything of the program's can have closed a connection whose life none records.

        asyncpg answers what a graceful close interrupts with another text, so that only `terminate`
        comes in question for what was at work (asyncpg/connection.py).
        """
        birth = self.registry.birth_of(driven.target)
        raw = all(s.library == driven.library for s in found.sightings)
        if not raw or (birth is not None and birth.recorded):
            return "unknown"
        at_work = any(symptom.sent for symptom in symptoms)
        if at_work and not driven.aborted:
            return "none"
        if not any(_frames.is_user(site.frame) for site in found.traced):
            return "unknown"
        if at_work:
            return "read" if may_be_ended_elsewhere(found.traced, _ABORTS) else "none"
        return "unknown" if may_be_ended_elsewhere(found.traced) else "none"

    def _holds(self, value: Any, driven: list[Sighting]) -> bool:
        """Whether an object is one of the driver's connections, its pool, or keeps one of them."""
        if value is None:
            return False
        targets = [each.target for each in driven]
        seen = self.sight(value)
        if seen is not None:
            return seen.kind == "pool" or any(seen.target is target for target in targets)
        inside = variables_of(value).values()
        return any(each is target for each in inside for target in targets)

    def _first_failure(self, birth: Birth | None, units: Iterable[Any]) -> FirstFailure | None:
        known = self.registry.failures.get(birth.serial) if birth is not None else None
        return known or self.registry.trouble_of(units)

    def _identities(self, sites: list[Site]) -> set[int]:
        """The objects in a traceback's library frames, and those inside them."""
        found = Found(Incident([], sites=sites), [s for s in sites if not _frames.is_user(s.frame)])
        self._sight_all(found, Clue())
        return {id(sighting.target) for sighting in found.sightings}

    def _sight_all(self, found: Found, clue: Clue) -> None:
        targets: list[Any] = [clue.target] if clue.target is not None else []
        targets.extend(_frames.first_argument(site.frame) for site in found.library)
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

    def _stands_for(self, target: Any) -> Any:
        sighting = self.sight(target) if target is not None else None
        return sighting.target if sighting is not None else None

    def sight(self, target: Any) -> Sighting | None:
        """Ask the probes what an object is."""
        for sight in self.sighters:
            sighting: Sighting | None = sight(target)
            if sighting is not None:
                return sighting
        return None

    # loops ---------------------------------------------------------------------------------

    def _surfaced(self, found: Found, symptoms: tuple[Symptom, ...]) -> Whereabouts:
        """The loop on which a complaint surfaced: the innermost that a traceback left, else here.

        Where a loop was refused its start, the outermost: the inner one never ran. It is not
        certain that the complaint was made there where a thread or another task handed it over.
        """
        segment = found.segment[: found.incident.traced]
        sites = list(enumerate(segment))
        running = asyncio._get_running_loop()
        if says(symptoms, "nested-run"):
            if running is not None:
                return Whereabouts(running)
            sites.reverse()
        for index, site in sites:
            loop = _frames.loop_run_by(site)
            if loop is not None:
                return Whereabouts(loop, index)
        for site in segment:
            # Lib/asyncio/mixins.py: _get_loop() refuses with the running loop in a local.
            if site.code.co_name == "_get_loop":
                loop = _frames.variables_in(site.frame).get("loop")
                if _frames.is_loop(loop):
                    return Whereabouts(loop)
        if found.incident.segment < found.incident.traced or running is None:
            return Whereabouts(None, known=not _in_coroutine(segment))
        return Whereabouts(running)

    def _happened(
        self,
        surfaced: Whereabouts,
        symptoms: tuple[Symptom, ...],
        birth: Birth | None,
        owner: LoopRecord | None,
        clue: Clue,
    ) -> Whereabouts:
        """The loop on which it happened, which need not be the one on which it surfaced.

        `wrap_future(run_coroutine_threadsafe(…))` brings an exception from one loop to another and
        leaves no frame of that. So where the two could differ, something has to show that they do
        not: a live hook, a recorded use, or a complaint that cannot be made on the owner's loop.
        """
        if clue.live:
            return Whereabouts(asyncio._get_running_loop(), surfaced.index)
        record = self.registry.loops.get(surfaced.loop) if surfaced.loop is not None else None
        if owner is None or surfaced.loop is None or record is owner:
            return surfaced
        said = says(symptoms, "foreign-loop", "loop-closed", "refused")
        over = state_of(owner.reference(), owner.info.pid) == "closed"
        taken = self.registry.crossings.get(birth.serial) if birth is not None else None
        taken_here = record is not None and taken is not None and taken[0] == record.info.id
        if said or over or taken_here or (birth is not None and birth.pid != os.getpid()):
            return surfaced
        return Whereabouts(None, known=False)

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

        A task of a library's coroutine, given to `gather()` or shielded by `AsyncSession.__aexit__`
        (sqlalchemy/ext/asyncio/session.py), has no such line; the task that waits for it has.
        """
        inner, _ = _frames.split_at_loop(found.traced or found.sites)
        return _frames.user_place(inner or found.sites) or place_here(found.sites)

    # the subject ---------------------------------------------------------------------------

    def _birth_of(self, sighting: Sighting | None, found: Found) -> Birth | None:
        if sighting is None:
            return None
        birth = self.registry.birth_of(sighting.target)
        if birth is None and sighting.kind == "connection":
            others = (s.target for s in found.sightings if s.kind == "connection")
            birth = next(filter(None, map(self.registry.birth_of, others)), None)
        if birth is not None or not _frames.is_loop(sighting.loop) or sighting.kind == "client":
            return birth
        owner = self._meet_owner(sighting.loop, found)
        family = self.registry.family_of(sighting.target)
        return self.registry.adopt(sighting.target, sighting.kind, owner, family)

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
            if carried and sessions and not is_connecting(found.library):
                kind, label = "session", "AsyncSession"
        named = kind in ("primitive", "client")
        held = find_variable(lambda value: value is sighting.target) if named else None
        return Subject(
            kind=kind,
            label=label,
            variable=held[0] if held and kind == "primitive" else None,
            made=definition_of(*held) if held else None,
            block=sighting.block,
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

    def _operation(self, sites: list[Site]) -> tuple[str | None, bool]:
        """The library's method that the user's innermost frame called; whether it left a block."""
        called: str | None = None
        committed = False
        beginning = False  # of a transaction: a driver's own is a block too
        leaving = False
        for site in sites:
            if _frames.is_user(site.frame):
                break
            module = _frames.module_of(site.frame)
            committed = committed or site.code.co_name in _COMMITS
            name = site.code.co_name
            leaving = leaving or name == "__aexit__"
            inner = "<locals>" in site.code.co_qualname
            public = name in _SCOPES or not (inner or name.startswith("_"))
            if module.startswith(self.operations) and public:
                called = name
                beginning = module.endswith(".transaction")
        # sqlalchemy/ext/asyncio/engine.py: begin() is a generator, which is at work all the while.
        if called == "__aexit__" or (called == "begin" and leaving):
            called = "commit" if committed else "close"
        elif called in ("__aenter__", "start"):
            called = "begin" if beginning else "connect"
        return called, leaving

    def _other_operation(
        self, found: Found, symptoms: tuple[Symptom, ...]
    ) -> tuple[Operation | None, bool]:
        """Who else works with the subject: another task of this loop, or a recorded opening.

        And whether that task does so through a session of its own.
        """
        if not found.aliases:
            return None, False
        loop = asyncio._get_running_loop()
        working = None
        if loop is not None:
            working = search_tasks(loop, found.aliases, self._stands_for)
        if working is not None:
            operation, sites = working
            here = {id(s.target) for s in found.sightings if s.kind == "session"}
            there = self._sessions_in(sites)
            return operation, bool(here and there and here.isdisjoint(there))
        shared = says(symptoms, *REFUSALS)
        doubtful = says(symptoms, "ended", "taken")  # one task alone can be told these
        opening = self._opening(found, ended=not doubtful) if shared else None
        if opening is None and doubtful:
            return None, False
        if opening is None and (shared or any(symptom.under_way for symptom in symptoms)):
            return find_sibling(found.traced), False
        return opening, False

    def _is_shared(self, found: Found, symptoms: tuple[Symptom, ...]) -> bool:
        """Whether the program itself started several tasks at once that use the object."""
        subject = {id(s.target) for s in found.sightings if s.kind in ("session", "connection")}
        if not subject or not says(symptoms, "busy", *REFUSALS):
            return False
        # A scoped session is none itself; it was asked, and asked the session that refused.
        asked = (_frames.first_argument(site.frame) for site in found.library)
        subject.update(id(target) for target in asked if target is not None)

        def stands_for(value: object) -> int | None:
            meant = value if id(value) in subject else self._stands_for(value)
            return id(meant) if meant is not None else None

        traced = any(_frames.is_user(site.frame) for site in found.traced)
        sites = found.traced if traced else sites_waiting_here()
        sharer = find_sharer(sites, stands_for, subject)
        return sharer is not None and not self._failed_before(found, sharer)

    def _failed_before(self, found: Found, frame: FrameType) -> bool:
        """Whether a function was already leaving, with a failure that no library complained of."""
        before = field_of(found.incident.complaints[0].exc, "__context__")
        if not is_a(before, BaseException) or self.read(before) is not None:
            return False
        passed = _frames.walk_traceback(traceback_of(before))
        return any(site.frame is frame for site in passed)

    def _sessions_in(self, sites: list[Site]) -> set[int]:
        targets = (_frames.first_argument(s.frame) for s in sites if not _frames.is_user(s.frame))
        seen = (self.sight(target) for target in targets if target is not None)
        return {id(s.target) for s in seen if s is not None and s.kind == "session"}

    def _holders(self, sighting: Sighting | None, incident: Incident) -> tuple[Holder, ...]:
        """Who had the connections in the moment of the failure, else who has them now."""
        if sighting is None or not says(incident.symptoms, "exhausted"):
            return ()
        then = self.registry.shortage_of(incident.complaint.exc)
        return then or self.registry.holders_of(sighting.target)

    def _face(self, found: Found) -> Face | None:
        symptom = found.incident.complaint.symptom
        told: Iterable[Face | None] = (face_of(symptom, found.segment) for face_of in self.faces)
        return next(filter(None, told), None)

    def _opening(self, found: Found, *, ended: bool) -> Operation | None:
        """The connection that another task was opening for the session.

        The same line can have opened one before. Which task is failing is known while its loop
        runs; later, an opening that never ended is another task's: its own would not complain.

        Args:
            found: what was found.
            ended: whether one that ended may count, as it may have ended since.
        """
        mine = _frames.user_place(found.sites)
        task = _frames.task_name()
        for sighting in found.sightings:
            opening = (
                self.registry.openings.get(sighting.target) if sighting.kind == "session" else None
            )
            if opening is None or opening.place is None:
                continue
            if opening.ended is not None and not ended:
                continue
            apart = opening.task != task if task is not None else opening.ended is None
            if opening.place == mine and not apart:
                continue
            return Operation(
                task=opening.task or "",
                function=opening.place.function,
                file=opening.place.file,
                line=opening.place.line,
                state="opening a connection",
            )
        return None


def _complete(record: LoopRecord | None) -> None:
    """Look for who started a loop of which nothing was heard but what its connections told."""
    loop = record.reference() if record is not None else None
    if record is not None and loop is not None and record.info.started_by is None:
        record.info = replace(record.info, started_by=safely(find_start)(loop))


def _is_within(place: Place, found: Found) -> bool:
    """Whether a place stands in one of the program's functions that a traceback leads through."""
    own = (_frames.place_of(site) for site in found.traced if _frames.is_user(site.frame))
    return any((each.file, each.function) == (place.file, place.function) for each in own)


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


def _in_coroutine(sites: list[Site]) -> bool:
    return any(_frames.is_coroutine(site.frame) for site in sites)


def _thread_of(found: Found, clue: Clue) -> str:
    """The thread in which it happened, where no loop ran."""
    if clue.live or found.incident.segment >= found.incident.traced:
        return threading.current_thread().name
    return "of a worker"


def _original(symptom: Symptom) -> Original:
    return Original(type=symptom.type, message=quote(symptom.text))
