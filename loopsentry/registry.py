"""What is remembered: loops, what was born on them, what was left unusable and when.

This is loopsentry's only state. It holds loops, connections and engines weakly, and never waits:
each step is one atomic dictionary operation, so that garbage collection, signal handlers and forks
in the middle of it cannot block.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from asyncio import AbstractEventLoop, _get_running_loop
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from ._copies import copy_of
from ._sockets import sharer_of
from .model import (
    Birth,
    Diagnosis,
    FirstFailure,
    Holder,
    LoopInfo,
    LoopState,
    Mode,
    ObjectKind,
    Place,
    Sighting,
    Stack,
)

T = TypeVar("T")

# One for the whole process, so that numbers stay distinct across an uninstall and a new install.
_serials = itertools.count(1)

DEAD_LOOPS_KEPT = 1_000
MISTAKES_KEPT = 1_000
DIAGNOSES_KEPT = 100

#: Takes back what was asked for; calling it again does nothing.
Undo = Callable[[], None]
Describer = Callable[[], Mapping[str, str] | None]


@dataclass(slots=True, eq=False)
class LoopRecord:
    """One loop: what was seen when it was first met, and a weak reference to it.

    Attributes:
        info: as it was recorded.
        reference: the loop, weakly.
    """

    info: LoopInfo
    reference: weakref.ref[AbstractEventLoop]

    def snapshot(self, label: str = "") -> LoopInfo:
        """The loop as it is now."""
        return replace(self.info, label=label, state=state_of(self.reference(), self.info.pid))


@dataclass(slots=True, eq=False)
class Opening:
    """A connection being opened for a session.

    Attributes:
        place: the user's line that needed it.
        task: the task it happens in.
        loop: number of the loop.
        started: when, in UTC.
        ended: when it was open, None if it never was.
    """

    place: Place | None
    task: str | None
    loop: int | None
    started: datetime
    ended: datetime | None = None


@dataclass(slots=True, eq=False)
class Cancellation:
    """An operation that was cancelled while the driver was at it.

    Attributes:
        place: the user's line that waited for it.
    """

    place: Place | None


def state_of(loop: AbstractEventLoop | None, pid: int) -> LoopState:
    """State of a loop; one that was collected counts as closed, so does one of a parent process."""
    if loop is None or loop.is_closed() or (pid and pid != os.getpid()):
        return "closed"
    return "running" if loop.is_running() else "stopped"


class Registry:
    """The records of one process."""

    def __init__(self) -> None:
        self.sight: Callable[[Any], Sighting | None] = lambda _target: None
        self.recognise: Callable[[Stack], LoopInfo] = lambda _stack: LoopInfo(id=0)
        self.on_mismatch: Mode = "annotate"
        self._describers: list[Describer] = []
        self._loop_listeners: list[Callable[[AbstractEventLoop], None]] = []
        self._start_listeners: list[Callable[[AbstractEventLoop], None]] = []
        self._look_listeners: list[Callable[[], None]] = []
        self._logger_listeners: list[Callable[[str], None]] = []
        self._mode_listeners: list[Callable[[], None]] = []
        self._fork_listeners: list[Callable[[], None]] = []
        self._holder_finders: list[Callable[[Any], tuple[Holder, ...]]] = []
        self._birth_finders: list[Callable[[Any], Birth | None]] = []
        self.logger_names: set[str] = set()
        self.serials = _serials
        self.loops: weakref.WeakKeyDictionary[AbstractEventLoop, LoopRecord] = (
            weakref.WeakKeyDictionary()
        )
        self.loop_records: OrderedDict[int, LoopRecord] = OrderedDict()
        self.starts: Counter[tuple[str | None, Place | None]] = Counter()
        self.started: weakref.WeakKeyDictionary[AbstractEventLoop, LoopInfo] = (
            weakref.WeakKeyDictionary()
        )
        self.births: weakref.WeakKeyDictionary[Any, Birth] = weakref.WeakKeyDictionary()
        # Who had a pool's connections when it had none left, by the exception that says so.
        self.shortages: weakref.WeakKeyDictionary[BaseException, tuple[Holder, ...]] = (
            weakref.WeakKeyDictionary()
        )
        self.families: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.engines: weakref.WeakSet[Any] = weakref.WeakSet()
        self.engine_names: weakref.WeakKeyDictionary[
            Any, tuple[str | None, str | None, str | None]
        ] = weakref.WeakKeyDictionary()
        self.engine_places: weakref.WeakKeyDictionary[Any, Place | None] = (
            weakref.WeakKeyDictionary()
        )
        self.openings: weakref.WeakKeyDictionary[Any, Opening] = weakref.WeakKeyDictionary()
        self.failures: OrderedDict[int, FirstFailure] = OrderedDict()
        self.troubles: weakref.WeakKeyDictionary[Any, FirstFailure] = weakref.WeakKeyDictionary()
        self.crossings: OrderedDict[int, tuple[int, Place | None]] = OrderedDict()
        self.closings: weakref.WeakKeyDictionary[Any, Place] = weakref.WeakKeyDictionary()
        self.cancellations: weakref.WeakKeyDictionary[Any, Cancellation] = (
            weakref.WeakKeyDictionary()
        )
        self.counts: OrderedDict[str, int] = OrderedDict()
        self.recent: deque[Diagnosis] = deque(maxlen=DIAGNOSES_KEPT)

    # who listens ---------------------------------------------------------------------------

    def on_loop(self, listener: Callable[[AbstractEventLoop], None]) -> Undo:
        """Call back with each loop when it is first met."""
        return _listen(self._loop_listeners, listener)

    def on_start(self, listener: Callable[[AbstractEventLoop], None]) -> Undo:
        """Call back each time a loop is started for the first time, before anything runs on it."""
        return _listen(self._start_listeners, listener)

    def on_look(self, listener: Callable[[], None]) -> Undo:
        """Call back when there may be more to listen to: the program may have imported it."""
        return _listen(self._look_listeners, listener)

    def look(self) -> None:
        """Tell that the program may have imported more; each loop's start tells that too."""
        for listener in list(self._look_listeners):
            listener()

    def on_logger(self, listener: Callable[[str], None]) -> Undo:
        """Call back with the name of each pool's logger, the known ones' at once."""
        for name in list(self.logger_names):
            listener(name)
        return _listen(self._logger_listeners, listener)

    def on_mode(self, listener: Callable[[], None]) -> Undo:
        """Call back when the mode of the process was set, perhaps to what it was."""
        return _listen(self._mode_listeners, listener)

    def set_mode(self, mode: Mode) -> None:
        """Set what a crossing leads to in this process, also for engines that exist already."""
        self.on_mismatch = mode
        for listener in list(self._mode_listeners):
            listener()

    def on_fork(self, listener: Callable[[], None]) -> Undo:
        """Call back before each fork of this process."""
        return _listen(self._fork_listeners, listener)

    def fork(self) -> None:
        """Tell that this process is about to fork."""
        for listener in list(self._fork_listeners):
            listener()

    def on_lost_birth(self, finder: Callable[[Any], Birth | None]) -> Undo:
        """Ask for the birth of what takes no weak reference."""
        return _listen(self._birth_finders, finder)

    def on_holders(self, finder: Callable[[Any], tuple[Holder, ...]]) -> Undo:
        """Ask who has a pool's connections; of a pool that it does not know it names nobody."""
        return _listen(self._holder_finders, finder)

    def shortage_of(self, exc: BaseException) -> tuple[Holder, ...]:
        """Who had the connections of a pool when it raised an exception for want of one."""
        try:
            return self.shortages.get(exc, ())
        except TypeError:
            return ()  # Python's own exceptions take no weak reference

    def holders_of(self, pool: Any) -> tuple[Holder, ...]:
        """Who has the connections of a pool, as far as that can be found out now."""
        asked = (find(pool) for find in list(self._holder_finders))
        return next(filter(None, asked), ())

    def on_surroundings(self, describer: Describer, *, first: bool = False) -> Undo:
        """Ask what of a framework is running; `first` is asked before those of before."""
        return _listen(self._describers, describer, at=0 if first else None)

    # loops ---------------------------------------------------------------------------------

    def meet(self, loop: AbstractEventLoop | None, stack: Callable[[], Stack]) -> LoopRecord | None:
        """Return what is known of a loop; one that is new is recorded from the given stack."""
        if loop is None:
            return None
        known = self.loops.get(loop)
        return self._record_loop(loop, self.recognise(stack())) if known is None else known

    def start(self, loop: AbstractEventLoop, describe: Callable[[], LoopInfo]) -> None:
        """Remember who starts a loop that is about to run, until it is met or collected."""
        known = self.started.get(loop)
        if known is None or known.started_by is None:
            info = replace(describe(), thread=threading.current_thread().name)
            self.started[loop] = self._number(info)
            self.look()
            for listener in list(self._start_listeners):
                listener(loop)

    def _number(self, info: LoopInfo) -> LoopInfo:
        """Count a loop of this starter."""
        if info.started_by is None:
            return info
        start = (info.runner, info.started_by)
        self.starts[start] += 1
        return replace(info, run=self.starts[start])

    def _with_start(self, loop: AbstractEventLoop, info: LoopInfo) -> LoopInfo:
        """What a stack tells of a loop, and where that is silent what its start told."""
        start = self.started.get(loop)
        if start is None or (info.started_by not in (None, start.started_by)):
            return self._number(info)
        return replace(
            start,
            runner=(start if start.started_by else info).runner or start.runner or info.runner,
            scope=info.scope or start.scope,
            contexts=tuple(dict.fromkeys((*info.contexts, *start.contexts))),
            followed=info.followed or start.followed,
        )

    def _record_loop(self, loop: AbstractEventLoop, info: LoopInfo) -> LoopRecord:
        info = self._with_start(loop, info)
        here = threading.current_thread().name if loop is _get_running_loop() else info.thread
        info = replace(
            info, id=next(self.serials), kind=kind_of(loop), pid=os.getpid(), thread=here
        )
        record = LoopRecord(info, weakref.ref(loop))
        self.loops[loop] = record
        self.loop_records[info.id] = record
        if len(self.loop_records) > DEAD_LOOPS_KEPT:
            self._forget_dead_loops()
        for listener in list(self._loop_listeners):
            listener(loop)
        return record

    def _forget_dead_loops(self) -> None:
        for number, record in copy_of(self.loop_records.items):
            if len(self.loop_records) <= DEAD_LOOPS_KEPT:
                return
            if record.reference() is None or record.snapshot().state == "closed":
                self.loop_records.pop(number, None)

    def living_loops(self) -> list[AbstractEventLoop]:
        """The loops that were met or heard of starting, and are not closed."""
        known = {*copy_of(self.loops.keys), *copy_of(self.started.keys)}
        return [loop for loop in known if state_of(loop, 0) != "closed"]

    def loop(self, number: int | None) -> LoopRecord | None:
        """The loop of that number, if it is remembered."""
        return None if number is None else self.loop_records.get(number)

    def owner_of(self, target: Any) -> AbstractEventLoop | None:
        """The loop that an object says it is bound to, asked of the probe that knows its kind."""
        sighting = self.sight(target)
        owner = sighting.loop if sighting is not None else None
        return owner if issubclass(type(owner), AbstractEventLoop) else None

    # births --------------------------------------------------------------------------------

    def bear(self, target: Any, birth: Birth) -> None:
        """Remember where an object came from, weakly."""
        try:
            self.births[target] = birth
        except TypeError:  # no weak reference possible: whoever has the object knows its birth
            return

    def birth_of(self, target: Any) -> Birth | None:
        """Where an object came from, if it was recorded."""
        try:
            return self.births.get(target)
        except TypeError:
            return next((birth for find in self._birth_finders if (birth := find(target))), None)

    def family_of(self, pool: Any) -> int | None:
        """A number for all that is born of one pool, engine or the like."""
        if pool is None:
            return None
        try:
            return self.families.setdefault(pool, next(self.serials))
        except TypeError:
            return None

    def meet_logger(self, name: str | None) -> None:
        """Tell those who watch log records of a logger that is new."""
        if name and name not in self.logger_names:
            self.logger_names.add(name)
            for listener in list(self._logger_listeners):
                listener(name)

    def loops_of(self, pool: Any) -> tuple[int, ...]:
        """The loops that own a pool's living connections: none, one, or several."""
        family = self.family_of(pool)
        births = [birth for birth in copy_of(self.births.values) if birth.family == family]
        return tuple(sorted({birth.loop for birth in births if birth.loop is not None}))

    def new_birth(self, kind: ObjectKind, loop: int | None, **known: Any) -> Birth:
        """Make a birth with the next number."""
        framework = self.surroundings() if known.get("recorded", True) else None
        return Birth(serial=next(self.serials), kind=kind, loop=loop, framework=framework, **known)

    def adopt(
        self, target: Any, kind: ObjectKind, owner: LoopRecord | None, family: int | None
    ) -> Birth:
        """Make up the birth of an object that is older than the records.

        One whose socket the parent process holds too was opened before a fork, by the parent.
        """
        parent = sharer_of(target) if kind == "connection" else None
        if parent is not None and owner is not None:
            owner = replace(owner, info=replace(owner.info, pid=parent))
            self.loop_records[owner.info.id] = owner
            loop = owner.reference()
            if loop is not None:
                self.loops[loop] = owner
        number = owner.info.id if owner is not None else None
        pid = parent or os.getpid()
        birth = self.new_birth(kind, number, recorded=False, family=family, pid=pid)
        self.bear(target, birth)
        return birth

    def surroundings(self) -> Mapping[str, str] | None:
        """What of a framework is running here: the first answer of those who describe it."""
        return next((found for ask in list(self._describers) if (found := ask())), None)

    # what went wrong -----------------------------------------------------------------------

    def note_failure(self, birth: Birth, diagnosis: Diagnosis) -> None:
        """Remember the first failure that left an object unusable; later ones are its echoes."""
        self.failures.setdefault(birth.serial, _first(diagnosis))
        _keep_last(self.failures)

    def note_trouble(self, targets: Iterable[Any], diagnosis: Diagnosis) -> None:
        """Remember what invalidated a unit of work, whose connection may be gone by then."""
        for target in targets:
            with suppress(TypeError):  # no weak reference possible
                self.troubles.setdefault(target, _first(diagnosis))

    def trouble_of(self, targets: Iterable[Any]) -> FirstFailure | None:
        """What invalidated the unit of work that one of these objects is."""
        return _first_known(self.troubles, targets)

    def note_crossing(self, birth: Birth, loop: int, place: Place | None) -> None:
        """Remember that an object was taken out on another loop."""
        self.crossings[birth.serial] = (loop, place)
        _keep_last(self.crossings)

    def note_closing(self, target: Any, place: Place | None) -> None:
        """Remember where the program closed a connection."""
        if place is not None:
            self.closings[target] = place

    def closing_of(self, targets: Iterable[Any]) -> Place | None:
        """Where the program closed one of these objects, if it was recorded."""
        return _first_known(self.closings, targets)

    def note_cancellation(self, targets: Iterable[Any], place: Place | None) -> None:
        """Remember that an operation on these objects was cancelled."""
        for target in targets:
            if target is not None:
                self.cancellations[target] = Cancellation(place)

    def cancellation_of(self, targets: Iterable[Any]) -> Cancellation | None:
        """The cancellation recorded for one of these objects."""
        return _first_known(self.cancellations, targets)

    def count(self, diagnosis: Diagnosis) -> int:
        """Count one occurrence of a mistake; return how many there were."""
        count = self.counts.pop(diagnosis.id, 0) + 1
        self.counts[diagnosis.id] = count
        _keep_last(self.counts, MISTAKES_KEPT)
        if count == 1:
            self.recent.append(diagnosis)
        return count


def _first_known(known: weakref.WeakKeyDictionary[Any, T], targets: Iterable[Any]) -> T | None:
    for target in targets:
        with suppress(TypeError):  # no weak reference possible
            found = known.get(target)
            if found is not None:
                return found
    return None


def _first(diagnosis: Diagnosis) -> FirstFailure:
    return FirstFailure(
        time=datetime.now(UTC),
        code=diagnosis.code,
        place=diagnosis.used_at,
        original=diagnosis.original,
        diagnosis=diagnosis,
    )


def _keep_last(remembered: OrderedDict[Any, Any], limit: int = DEAD_LOOPS_KEPT) -> None:
    while len(remembered) > limit:
        with suppress(KeyError):  # another thread was faster
            remembered.popitem(last=False)


def _listen(listeners: list[T], listener: T, at: int | None = None) -> Undo:
    listeners.insert(len(listeners) if at is None else at, listener)

    def undo() -> None:
        if listener in listeners:
            listeners.remove(listener)

    return undo


def kind_of(loop: AbstractEventLoop) -> str:
    """Name the implementation: "asyncio", "uvloop" or the package of another implementation."""
    return type(loop).__module__.partition(".")[0]
