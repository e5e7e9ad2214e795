"""What is going on now: every event loop, engine and connection, and who owns what.

Read from outside, as the watch does: nothing is held, called or changed, and no loop is asked.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from types import FrameType
from typing import Any

from . import _frames
from ._copies import copy_of
from .hangs import loop_in
from .holders import sites_of
from .model import Diagnosis, EngineInfo, Holder, LoopInfo, LoopState, Place
from .registry import Registry, kind_of, state_of

#: How long all tasks together may be looked at; the others are counted.
SEARCH_SECONDS = 0.25
#: How many tasks of one loop are listed.
TASKS_LISTED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """One task of an event loop.

    Attributes:
        name: the task's name.
        place: the user's line that it stands at, None where it is in no code of the user's.
        awaits: what is awaited there, as the reader would call it; "" where the task runs.
        state: "running", "ready" to go on, or "waiting".
    """

    name: str
    place: Place | None = None
    awaits: str = ""
    state: str = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStatus:
    """One event loop.

    Attributes:
        info: its number, kind, starter and state; its number is 0 where it was not recorded.
        thread: the thread that runs it, "" if none does.
        still: seconds that its thread has not moved, None where nobody watches.
        place: the user's line at which its thread is, None while it waits for sockets and timers.
        tasks: its tasks, the running one first, then by name, as many as are listed.
        more: how many tasks are not listed.
    """

    info: LoopInfo
    thread: str = ""
    still: float | None = None
    place: Place | None = None
    tasks: tuple[TaskStatus, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One connection or client.

    Attributes:
        label: what the reader calls it.
        loop: number of the loop that owns it, None where that is not known.
        loop_state: whether that loop runs.
        opened_at: the user's line that opened it.
        opened: when, in UTC.
        holder: who has it out of its pool; None for one that lies in its pool or has none.
        trouble: the code of the failure that left it unusable, if one did.
    """

    label: str
    loop: int | None = None
    loop_state: LoopState = "closed"
    opened_at: Place | None = None
    opened: datetime
    holder: Holder | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """One engine and its pool.

    Attributes:
        info: its masked URL, the variable that holds it, where it was made.
        pool: the pool's class.
        size: how many connections it keeps, None for a pool without a size.
        out: how many are checked out.
        idle: how many lie in the pool.
        connections: those whose opening was recorded.
    """

    info: EngineInfo
    pool: str
    size: int | None = None
    out: int = 0
    idle: int = 0
    connections: tuple[ConnectionStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeStatus:
    """One mistake that was told.

    Attributes:
        diagnosis: as it was told the first time.
        count: how often it happened.
    """

    diagnosis: Diagnosis
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is going on in this process.

    Attributes:
        version: loopsentry's.
        pid: the process.
        time: when this was read, in UTC.
        recorded: False where loopsentry is not installed: then only what is there now is known.
        loops: every event loop that runs, or was met and is not closed.
        engines: every async engine.
        others: connections and clients that belong to no engine.
        mistakes: the latest mistakes told, the oldest first.
    """

    version: str
    pid: int = field(default_factory=os.getpid)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    recorded: bool = True
    loops: tuple[LoopStatus, ...] = ()
    engines: tuple[EngineStatus, ...] = ()
    others: tuple[ConnectionStatus, ...] = ()
    mistakes: tuple[MistakeStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a status is read from.

    Attributes:
        registry: what was recorded.
        still: says how many seconds a thread, named by its number, has not moved.
        label_of: what the reader calls an object.
        engines: every engine, and what describes it.
    """

    registry: Registry
    still: Callable[[int], float | None]
    label_of: Callable[[Any], str | None]
    engines: Iterable[tuple[Any, EngineInfo]] = ()


def read_status(version: str, sources: Sources, *, recorded: bool) -> Status:
    """Read what is going on now.

    Args:
        version: loopsentry's.
        sources: where to read.
        recorded: whether loopsentry is installed.
    """
    registry = sources.registry
    taken: set[int] = set()
    engines = tuple(_engine(engine, info, sources, taken) for engine, info in sources.engines)
    return Status(
        version=version,
        recorded=recorded,
        loops=tuple(_loops(sources)),
        engines=engines,
        others=tuple(_connections(sources, lambda birth: birth.serial not in taken, ())),
        mistakes=tuple(
            MistakeStatus(diagnosis=each, count=registry.counts.get(each.id, 1))
            for each in list(registry.recent)
        ),
    )


# loops -----------------------------------------------------------------------------------------


def _loops(sources: Sources) -> Iterator[LoopStatus]:
    threads = {id(loop): ident for ident, loop in _running()}
    frames = sys._current_frames()
    known = [*sources.registry.living_loops(), *(loop for _, loop in _running())]
    loops = list({id(loop): loop for loop in known}.values())
    deadline = perf_counter() + SEARCH_SECONDS
    described = [(_info(loop, sources.registry), loop) for loop in loops]
    for info, loop in sorted(described, key=lambda pair: pair[0].id or sys.maxsize):
        ident = threads.get(id(loop))
        tasks, more = _tasks(loop, deadline)
        yield LoopStatus(
            info=info,
            thread=_thread_name(ident) if ident is not None else "",
            still=sources.still(ident) if ident is not None else None,
            place=_place_within(frames.get(ident), loop) if ident is not None else None,
            tasks=tasks,
            more=more,
        )


def _running() -> list[tuple[int, Any]]:
    """The loop that each thread runs, and the thread's number."""
    found = ((ident, loop_in(frame)) for ident, frame in sys._current_frames().items())
    return [(ident, loop) for ident, loop in found if loop is not None]


def _info(loop: Any, registry: Registry) -> LoopInfo:
    """What was recorded of a loop; of an older one, what its thread's stack tells."""
    record = registry.loops.get(loop)
    if record is not None:
        return record.snapshot()
    started = registry.started.get(loop)
    if started is None:
        started = registry.recognise(_frames.describe_all(_frames.thread_of(loop)))
    return LoopInfo(
        id=0,
        kind=kind_of(loop),
        runner=started.runner,
        started_by=started.started_by,
        run=started.run,
        state=state_of(loop, 0),
        thread=started.thread,
        pid=os.getpid(),
    )


def _place_within(frame: FrameType | None, loop: Any) -> Place | None:
    """The user's line at which a loop's thread is, in what runs on that loop."""
    sites = _frames.sites_of_stack(frame)
    within = []
    for site in sites:
        if _frames.loop_run_by(site) is loop:
            break
        within.append(site)
    return next((_frames.place_of(site) for site in within if _frames.is_user(site.frame)), None)


def _tasks(loop: Any, deadline: float) -> tuple[tuple[TaskStatus, ...], int]:
    tasks: list[Any] = []
    with suppress(RuntimeError):  # changed while it was read
        tasks = list(asyncio.all_tasks(loop))
    current = asyncio.current_task(loop)
    # By name, shorter ones first, so that Task-9 stands before Task-10.
    tasks.sort(key=lambda task: (task is not current, len(task.get_name()), task.get_name()))
    listed = []
    for task in tasks[:TASKS_LISTED]:
        if perf_counter() > deadline:
            break
        listed.append(_task(task, running=task is current))
    return tuple(listed), len(tasks) - len(listed)


def _task(task: Any, *, running: bool) -> TaskStatus:
    if running:
        return TaskStatus(name=task.get_name(), state="running")
    sites = list(sites_of(task))
    own = [index for index, site in enumerate(sites) if _frames.is_user(site.frame)]
    waiter = getattr(task, "_fut_waiter", None)
    state = "ready" if waiter is None or waiter.done() else "waiting"
    place = _frames.place_of(sites[own[-1]]) if own else _frames.user_place(reversed(sites))
    inner = sites[own[-1] + 1 :] if own else sites[:1]
    awaits = _call(inner[0]) if inner else _kind_of(waiter)
    return TaskStatus(name=task.get_name(), place=place, awaits=awaits, state=state)


def _call(site: _frames.Site) -> str:
    """What is called, as the reader would write it: of a method the object's class."""
    owner = _frames.first_argument(site.frame) if "." in site.code.co_qualname else None
    name = site.code.co_name if owner is not None else site.code.co_qualname
    return f"{type(owner).__qualname__}.{name}()" if owner is not None else f"{name}()"


def _kind_of(waiter: Any) -> str:
    if issubclass(type(waiter), asyncio.Task):
        return f"task {waiter.get_name()}"
    return "a future" if waiter is not None else ""


def _thread_name(ident: int) -> str:
    return next((each.name for each in threading.enumerate() if each.ident == ident), str(ident))


# engines and connections -----------------------------------------------------------------------


def _engine(engine: Any, info: EngineInfo, sources: Sources, taken: set[int]) -> EngineStatus:
    pool = engine.pool
    family = sources.registry.family_of(pool)
    holders = sources.registry.holders_of(pool)
    connections = tuple(_connections(sources, lambda birth: birth.family == family, holders))
    taken |= {
        birth.serial for birth in copy_of(sources.registry.births.values) if birth.family == family
    }
    return EngineStatus(
        info=info,
        pool=type(pool).__name__,
        size=_ask(pool, "size"),
        out=_ask(pool, "checkedout") or 0,
        idle=_ask(pool, "checkedin") or 0,
        connections=connections,
    )


def _ask(pool: Any, name: str) -> int | None:
    """A number that pools of some classes know."""
    method = getattr(pool, name, None)
    number = method() if callable(method) else None
    return number if isinstance(number, int) else None


def _connections(
    sources: Sources, wanted: Callable[[Any], bool], holders: tuple[Holder, ...]
) -> Iterator[ConnectionStatus]:
    """The living connections whose birth was recorded, by age."""
    registry = sources.registry
    holder_of = {holder.birth: holder for holder in holders}
    born = [(birth, target) for target, birth in copy_of(registry.births.items) if wanted(birth)]
    for birth, target in sorted(born, key=lambda pair: pair[0].serial):
        record = registry.loop(birth.loop)
        failure = registry.failures.get(birth.serial)
        yield ConnectionStatus(
            label=sources.label_of(target) or birth.kind,
            loop=birth.loop,
            loop_state=record.snapshot().state if record is not None else "closed",
            opened_at=birth.place,
            opened=birth.time,
            holder=holder_of.get(birth.serial),
            trouble=failure.code if failure is not None else None,
        )
