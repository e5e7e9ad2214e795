"""From an exception and the records to `Evidence`: collecting, never judging."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from types import ModuleType
from typing import Any

from . import _frames
from ._frames import Site
from .model import (
    Birth,
    Clue,
    EngineInfo,
    Evidence,
    LoopInfo,
    ObjectKind,
    Operation,
    Original,
    Phase,
    Recognition,
    Sighting,
    Stack,
    Stage,
    Subject,
    Symptom,
)
from .registry import LoopRecord, Registry, state_of

EXCEPTIONS_SEEN = 200
FRAMES_SEEN = 400
SEARCH_SECONDS = 0.003
_CLEANUP = frozenset(
    {"close", "dispose", "rollback", "aclose", "close_all", "terminate", "release", "invalidate"}
)
_COMMITS = frozenset({"commit", "_commit_impl", "do_commit", "_do_commit"})


def walk_tree(exc: BaseException) -> list[BaseException]:
    """An exception with its causes, contexts, group members and driver originals, first raised first.

    Bounded, and safe against cycles and against classes that misbehave: only the fields that
    BaseException itself keeps are read.
    """
    found: list[BaseException] = []
    stack: list[tuple[BaseException, bool]] = [(exc, False)]
    seen: set[int] = set()
    while stack and len(found) < EXCEPTIONS_SEEN:
        node, expanded = stack.pop()
        if expanded:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((inner, False) for inner in _inner(node))
    return found


def _inner(exc: BaseException) -> list[BaseException]:
    get = BaseException.__getattribute__
    inner = [get(exc, "__cause__"), get(exc, "__context__")]
    if isinstance(exc, BaseExceptionGroup):
        inner.extend(BaseExceptionGroup.exceptions.__get__(exc))
    inner.append(get(exc, "__dict__").get("orig"))
    return [node for node in inner if isinstance(node, BaseException)]


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """An exception's arguments, whatever its class says of `args`."""
    args = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    return args if isinstance(args, tuple) else ()


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

    def symptoms(self, tree: Iterable[BaseException]) -> tuple[Symptom, ...]:
        """What the libraries complain of, the first raised first."""
        found = []
        for exc in tree:
            for read in self.readers:
                symptom = read(exc)
                if symptom is not None:
                    found.append(symptom)
                    break
        return tuple(found)

    # collecting ----------------------------------------------------------------------------

    def collect(self, exc: BaseException, clue: Clue) -> Evidence | None:
        """Gather all that is known about an exception; None if nothing in it is a symptom."""
        tree = walk_tree(exc)
        symptoms = self.symptoms(tree)
        if all(symptom.kind == "cancelled" for symptom in symptoms):
            return None
        found = Found(tree, *self._sites(tree))
        self._sight_all(found, clue)
        current_loop, index = self._current_loop(found)
        current = self._meet(current_loop, found, index)
        sighting = self._choose(found, symptoms, current_loop)
        birth = clue.birth if clue.birth is not None else self._birth_of(sighting, found)
        owner_loop = sighting.loop if sighting is not None else None
        owner = self.registry.loop(birth.loop) if birth else self._meet_owner(owner_loop, found)
        place = _frames.user_place(found.sites)
        operation = self._operation(found.sites)
        evidence = Evidence(
            symptoms=symptoms,
            subject=self._subject(sighting, birth, found, current),
            owner=owner.snapshot("A") if owner else None,
            current=self._role_b(current, owner),
            same_loop=_same(owner, current, birth, sighting),
            owner_alive=self._alive(owner, found, index),
            used_at=place,
            task=_task_name(found),
            operation=operation,
            phase=_phase(operation, found.sites, clue),
            stage=_stage(found.sites, operation),
            collected=clue.collected,
            other=self._other_operation(found, sighting, symptoms),
            first_failure=self.registry.failures.get(birth.serial) if birth else None,
            engine=self._engine(clue, found),
            contexts=self._contexts(found, current, owner),
            framework=clue.framework,
            cancelled_at=None,
            handled=clue.reaches_program,
            original=_original(tree, symptoms, exc),
        )
        return evidence

    def _sites(self, tree: list[BaseException]) -> tuple[list[Site], int]:
        seen: set[tuple[int, int]] = set()
        sites: list[Site] = []
        for exc in tree:
            for site in _frames.walk_traceback(BaseException.__traceback__.__get__(exc)):
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
        for site in found.sites:
            if not _frames.is_user(site.frame):
                targets.append(_frames.first_argument(site.frame))
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

    def _current_loop(self, found: Found) -> tuple[Any, int | None]:
        """The loop it happened on: the innermost that a traceback left, else the running one."""
        for index, site in enumerate(found.sites[: found.traced]):
            loop = _loop_in(site)
            if loop is not None:
                return loop, index
        return asyncio._get_running_loop(), None

    def _meet(self, loop: Any, found: Found, index: int | None) -> LoopRecord | None:
        sites = found.sites if index is None else _around(found.sites, index, 0)
        return self.registry.meet(loop, lambda: [_frames.describe(site) for site in sites])

    def _meet_owner(self, loop: Any, found: Found) -> LoopRecord | None:
        """What is known of an owner that only its object names; its frames may be in the stack."""
        if not isinstance(loop, asyncio.AbstractEventLoop):
            return None
        running = (i for i, site in enumerate(found.sites) if _loop_in(site) is loop)
        index = next(running, None)
        sites = [] if index is None else _around(found.sites, index)
        return self.registry.meet(loop, lambda: [_frames.describe(site) for site in sites])

    def _role_b(self, current: LoopRecord | None, owner: LoopRecord | None) -> LoopInfo | None:
        if current is None:
            return None
        return current.snapshot("A" if current is owner or owner is None else "B")

    def _alive(self, owner: LoopRecord | None, found: Found, index: int | None) -> bool | None:
        if owner is None:
            return None
        loop = owner.reference()
        if state_of(loop, owner.info.pid) != "closed":
            return True
        # The exception came out of one loop into the other, so that one was still running.
        inner = index if index is not None else -1
        return any(_loop_in(site) is loop for site in found.sites[inner + 1 :] if loop is not None)

    # the subject ---------------------------------------------------------------------------

    def _choose(
        self, found: Found, symptoms: tuple[Symptom, ...], current: Any
    ) -> Sighting | None:
        """The object it is about: a primitive of another loop, else the innermost of its kind."""
        kinds = {symptom.kind for symptom in symptoms}
        if "foreign-loop" in kinds:
            for sighting in found.sightings:
                foreign = sighting.loop is not None and sighting.loop is not current
                if sighting.kind == "primitive" and foreign:
                    return sighting
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

    def _birth_of(self, sighting: Sighting | None, found: Found) -> Birth | None:
        if sighting is None:
            return None
        birth = self.registry.birth_of(sighting.target)
        if birth is None and sighting.kind == "connection":
            others = (s.target for s in found.sightings if s.kind == "connection")
            birth = next(filter(None, map(self.registry.birth_of, others)), None)
        if birth is not None or not isinstance(sighting.loop, asyncio.AbstractEventLoop):
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
        kind, label, carried = sighting.kind, sighting.label, False
        if kind == "primitive":
            kind, label = _owner_of_primitive(label, found)
        if kind == "connection" and birth is not None and current is not None:
            crossing = self.registry.crossings.get(birth.serial)
            checked_out_here = crossing is not None and crossing[0] == current.info.id
            sessions = [s for s in found.sightings if s.kind == "session"]
            carried = birth.loop != current.info.id and birth.recorded and not checked_out_here
            connecting = _connecting(found.sites)
            if carried and sessions and not connecting:
                kind, label = "session", "AsyncSession"
            carried = carried and not connecting
        return Subject(
            kind=kind, label=label, birth=birth, tolerant=sighting.tolerant, carried=carried
        )

    def _engine(self, clue: Clue, found: Found) -> EngineInfo | None:
        targets = [clue.engine, clue.pool]
        for kind in ("engine", "pool", "session", "connection"):
            targets.extend(s.target for s in found.sightings if s.kind == kind)
        for target in targets:
            for engine_of in self.engines:
                info: EngineInfo | None = engine_of(target, self.registry)
                if info is not None:
                    return info
        return None

    def _contexts(
        self, found: Found, current: LoopRecord | None, owner: LoopRecord | None
    ) -> tuple[str, ...]:
        live = [r.context for r in self.recognise([_frames.describe(s) for s in found.sites])]
        known = [*(current.info.contexts if current else ()), *live]
        known.extend(owner.info.contexts if owner else ())
        return tuple(dict.fromkeys(known))

    # who else ------------------------------------------------------------------------------

    def _operation(self, sites: list[Site]) -> str | None:
        """The library's method that the user's innermost frame called."""
        called: str | None = None
        committed = False
        for site in sites:
            if _frames.is_user(site.frame):
                break
            module = str(site.frame.f_globals.get("__name__", ""))
            committed = committed or site.code.co_name in _COMMITS
            if module.startswith(self.operations):
                called = site.code.co_name
        if called == "__aexit__":
            return "commit" if committed else "close"
        return {"__aenter__": "connect", "start": "connect"}.get(called or "", called)

    def _other_operation(
        self, found: Found, sighting: Sighting | None, symptoms: tuple[Symptom, ...]
    ) -> Operation | None:
        """Who else works with the subject: another task of this loop, or a recorded opening."""
        if not found.aliases:
            return None
        loop = asyncio._get_running_loop()
        if loop is not None:
            operation = self._search_tasks(loop, found.aliases)
            if operation is not None:
                return operation
        if any(symptom.kind in ("provisioning", "illegal-state") for symptom in symptoms):
            return self._opening(found)
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

    def _search_tasks(self, loop: Any, aliases: set[int]) -> Operation | None:
        deadline = perf_counter() + SEARCH_SECONDS
        mine = asyncio.current_task(loop)
        for task in asyncio.all_tasks(loop):
            if task is mine:
                continue
            if perf_counter() > deadline:
                return None
            sites = list(_task_sites(task))
            if any(
                id(_frames.first_argument(s.frame)) in aliases
                for s in sites
                if not _frames.is_user(s.frame)
            ):
                place = _frames.user_place(reversed(sites))
                if place is not None:
                    state = "cancelled" if task.cancelling() else "waiting"
                    return Operation(
                        task=task.get_name(),
                        function=place.function,
                        file=place.file,
                        line=place.line,
                        state=state,
                    )
        return None


def _task_sites(task: asyncio.Task[Any]) -> Iterator[Site]:
    """The frames of a suspended task from the outermost inwards, across the greenlet bridge.

    SQLAlchemy's `greenlet_spawn` keeps the switched-out greenlet in its local `context`
    (sqlalchemy/util/_concurrency_py3k.py).
    """
    awaited: Any = task.get_coro()
    for _ in range(FRAMES_SEEN):
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frame = frame or getattr(awaited, "ag_frame", None)
        if frame is None:
            return
        yield Site(frame, frame.f_lineno)
        if frame.f_code.co_name == "greenlet_spawn":
            inner = getattr(frame.f_locals.get("context"), "gr_frame", None)
            sites = []
            while inner is not None:
                sites.append(Site(inner, inner.f_lineno))
                inner = inner.f_back
            yield from reversed(sites)
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )


def _loop_in(site: Site) -> Any:
    """The event loop that a frame runs, if the frame is one of a loop's own runners."""
    if site.code.co_name not in ("run_until_complete", "run_forever", "run"):
        return None
    target = _frames.first_argument(site.frame)
    if isinstance(target, asyncio.Runner):
        target = getattr(target, "_loop", None)
    return target if isinstance(target, asyncio.AbstractEventLoop) else None


def _around(sites: list[Site], index: int, start: int | None = None) -> list[Site]:
    """The part of a stack that belongs to the loop whose runner stands at `index`.

    It ends where the next coroutine begins: that one runs on the loop outside.
    """
    coroutines = [i for i, site in enumerate(sites) if _frames.is_coroutine(site.frame)]
    if start is None:
        start = max((i for i in coroutines if i < index), default=0)
    return sites[start : min((i for i in coroutines if i > index), default=len(sites))]


def _same(
    owner: LoopRecord | None,
    current: LoopRecord | None,
    birth: Birth | None,
    sighting: Sighting | None,
) -> bool | None:
    if owner is None or sighting is None or (birth is not None and birth.loop is None):
        return None
    return owner is current


def _owner_of_primitive(label: str, found: Found) -> tuple[ObjectKind, str]:
    """A pool's own queue and first-connect lock are the pool's, to the reader."""
    for sighting in found.sightings:
        if sighting.kind == "pool":
            if any(s.code.co_name == "_exec_w_sync_on_first_run" for s in found.sites):
                return "pool", "the pool's first-connect lock"
            if any(s.code.co_name == "_do_get" for s in found.sites):
                return "pool", "the pool's queue"
    return "primitive", label


def _connecting(sites: list[Site]) -> bool:
    """Whether a connection was being taken out of its pool."""
    return any(site.code.co_name in ("_checkout", "_do_get", "checkout") for site in sites)


def _stage(sites: list[Site], operation: str | None) -> Stage:
    """How far the database work had come, from the functions on the stack."""
    names = {site.code.co_name for site in sites}
    if names & {"_do_ping_w_event", "_async_ping"}:
        return "ping"
    if "_start_transaction" in names:
        return "begin"
    return "commit" if operation == "commit" else "statement"


def _phase(operation: str | None, sites: list[Site], clue: Clue) -> Phase:
    if clue.cleanup or clue.collected or operation in _CLEANUP:
        return "cleanup"
    return "connect" if _connecting(sites) or operation == "connect" else "use"


def _task_name(found: Found) -> str | None:
    if asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        return task.get_name() if task else None
    return None


def _original(
    tree: list[BaseException], symptoms: tuple[Symptom, ...], exc: BaseException
) -> Original:
    if symptoms:
        last = next((s for s in reversed(symptoms) if s.kind != "cancelled"), symptoms[-1])
        return Original(type=last.type, message=str(last.text))
    args = arguments_of(exc)
    text = args[0] if args and isinstance(args[0], str) else ""
    return Original(type=f"{type(exc).__module__}.{type(exc).__qualname__}", message=text)


