"""A thread that looks, a few times a second, whether an event loop has stopped moving.

It costs a few microseconds a look. Only for a loop whose thread stands where it stood is anything
more read; and only what is seen unchanged for a while, by the identity of the objects, is told.
"""

from __future__ import annotations

import sys
import threading
import weakref
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, sleep
from types import FrameType
from typing import Any

from . import _frames
from ._safely import safely
from .hangs import Standstill, is_ending, look, look_at_end, loop_in
from .model import Hang, Holder

#: Seconds between two looks, at most.
PERIOD = 0.25
#: A look that comes later than this many periods says that the whole process had stood still.
LATE = 2.0
#: How often the same has to be seen, one period after another.
SIGHTINGS = 4
#: What a thread needs to be gone after its last line; forking warns of any that is left.
GONE_SECONDS = 0.002

#: Takes a loop that stands still, why, the frames of its thread, and the objects that a library
#: works on in which it waits; both the innermost first.
Teller = Callable[[Any, Hang, list[_frames.Site], tuple[Any, ...]], None]


class Watchdog:
    """Watches the event loops of all threads of this process.

    The thread is none of `threading`'s, so that no program finds one more among its own. It ends
    before the process forks: CPython warns of forks with threads (Modules/posixmodule.c).

    Args:
        seconds: how long a loop has to stand still before it is told.
        tell: takes what was found.
        holders_of: says who has the connections of a pool.
    """

    def __init__(
        self,
        seconds: float,
        tell: Teller,
        holders_of: Callable[[Any], tuple[Holder, ...]] = lambda _: (),
    ) -> None:
        self.seconds = seconds
        self.holders_of = holders_of
        self.period = min(PERIOD, seconds / SIGHTINGS)
        self.tell = tell
        self._pause = allocate_lock()
        self._gone = allocate_lock()
        self._running = False
        self._places: dict[int, tuple[int, int, float]] = {}
        self._seen: dict[int, tuple[tuple[Any, ...], float, int]] = {}
        self._told: weakref.WeakSet[Any] = weakref.WeakSet()

    def start(self) -> None:
        """Begin to watch; where it has begun nothing happens."""
        if self._running:
            return
        self._running = True
        self._pause = allocate_lock()
        self._pause.acquire()
        self._gone = allocate_lock()
        self._gone.acquire()
        self._places.clear()
        start_new_thread(self._run, (self._pause, self._gone))

    def stop(self) -> None:
        """End the thread, and wait until it is gone."""
        if self._running:
            self._running = False
            self._pause.release()
            if self._gone.acquire(timeout=1.0):
                sleep(GONE_SECONDS)

    def still(self, ident: int) -> float | None:
        """Seconds that a thread has been seen where it stands; None where nobody watches."""
        known = self._places.get(ident) if self._running else None
        return monotonic() - known[2] if known is not None else None

    def _run(self, pause: Any, gone: Any) -> None:
        try:
            before = monotonic()
            while not pause.acquire(timeout=self.period):
                now = monotonic()
                if now - before > LATE * self.period:
                    self._places.clear()  # stopped by a signal or a debugger, or starved
                    self._seen.clear()
                safely(self._poll)(now)
                before = monotonic()
        finally:
            gone.release()

    def _poll(self, now: float) -> None:
        threads = sys._current_frames()
        places = {}
        for ident, frame in threads.items():
            at, where = id(frame), frame.f_lasti
            known = self._places.get(ident)
            since = known[2] if known is not None and known[:2] == (at, where) else now
            places[ident] = (at, where, since)
            if now - since >= self.period and ident != threading.get_ident():
                self._suspect(ident, frame, now)
            elif is_ending(frame):
                self._suspect(ident, frame, now, look_at_end)
            else:
                self._seen.pop(ident, None)
        self._places = places

    def _suspect(
        self,
        ident: int,
        frame: FrameType,
        now: float,
        look: Callable[[Standstill], Hang | None] = look,
    ) -> None:
        """Look closer at a thread that does not get on; tell what stays for long enough."""
        loop = loop_in(frame)
        if loop is None or loop in self._told:
            return
        known = self._seen.get(ident)
        late = known is not None and self._is_long(now, known[1], known[2] + 1)
        standstill = Standstill(loop, ident, frame, holders_of=self.holders_of, late=late)
        hang = look(standstill)
        if hang is None or not standstill.seen:
            self._seen.pop(ident, None)
            return
        same = known is not None and _are_same(known[0], standstill.seen)
        first, times = (known[1], known[2] + 1) if known is not None and same else (now, 1)
        self._seen[ident] = (standstill.seen, first, times)
        if not late or not self._is_long(now, first, times):
            return
        for each in (loop, *standstill.stuck):
            self._told.add(each)
        self._seen.pop(ident, None)
        waits = tuple(replace(wait, seconds=now - first) for wait in hang.waits)
        sites = _frames.sites_of_stack(frame)
        self.tell(loop, replace(hang, waits=waits), sites, standstill.inside)

    def _is_long(self, now: float, first: float, times: int) -> bool:
        return now - first >= self.seconds - self.period and times >= SIGHTINGS


def _are_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
