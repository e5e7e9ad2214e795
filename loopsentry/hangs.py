"""Who waits for what when an event loop stands still: read from outside, never asked of the loop.

Nothing is held, called or changed. What is said here holds because of what was seen more than once,
by the identity of the objects themselves: a number or an `id()` comes back in a busy program.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dis
import gc
import inspect
import sys
import threading
from asyncio import runners
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import _base as futures_base
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import dropwhile, islice, takewhile
from types import FrameType, FunctionType
from typing import Any, Literal

from . import _frames
from ._endless import is_in_endless_loop
from ._frames import first_argument, user_place, variables_in, walk_back
from ._locks import LOCK, is_held_in, lock_wanted
from .exceptions import is_a
from .holders import sites_of, task_waiting_for
from .model import Certainty, Hang, Holder, Place, Wait

FRAMES_SEEN = 200

_RUN_FOREVER = asyncio.BaseEventLoop.run_forever.__code__
_RUNNER = asyncio.Runner.run.__code__
_CANCEL_ALL = vars(runners)["_cancel_all_tasks"].__code__
_RESULT = {futures_base.Future.result.__code__, futures_base.Future.exception.__code__}
_JOIN = threading.Thread.join.__code__
_SELECTORS = ("selectors", "asyncio.windows_events", "asyncio.proactor_events")


@dataclass(slots=True)
class Standstill:
    """A thread in which an event loop stands still, and what was seen there first.

    Attributes:
        loop: the loop.
        ident: the thread's.
        frame: its innermost frame.
        seen: what has to be the same the next time.
        inside: what the library's functions are about in which it waits, the innermost first.
        holders_of: says who has the connections of a pool, where all of them are out.
        stuck: the loops that are told of with this one.
        late: whether this look is the last one before it is told, for what takes long.
    """

    loop: Any
    ident: int
    frame: FrameType
    seen: tuple[Any, ...] = field(default=())
    inside: tuple[Any, ...] = field(default=())
    holders_of: Callable[[Any], tuple[Holder, ...]] = field(default=lambda _: ())
    stuck: tuple[Any, ...] = field(default=())
    late: bool = False


def loop_in(frame: FrameType | None) -> Any:
    """The innermost event loop that runs in a thread, from the thread's innermost frame."""
    for depth, each in enumerate(walk_back(frame)):
        if depth > FRAMES_SEEN:
            break
        if each.f_code is _RUN_FOREVER:
            return first_argument(each)
        if each.f_code is _RUNNER:  # of a loop without frames of its own, such as uvloop's
            task = variables_in(each).get("task")
            return task.get_loop() if is_a(task, asyncio.Task) else None
    return None


def look(standstill: Standstill) -> Hang | None:
    """Say what a loop that stands still waits for, if that can be known; else None.

    `seen` is filled with what has to be the very same objects at the next look.
    """
    standstill.seen = ()
    found = _lost_wakeup(standstill)
    if found is None and not _sleeps(standstill.frame):
        found = _self_deadlock(standstill)
    return found or _starved(standstill) or _unfinished(standstill) or _drained(standstill)


def _sleeps(frame: FrameType) -> bool:
    """Whether a loop's thread waits for sockets and timers, as an idle loop does."""
    return _frames.module_of(frame).startswith(_SELECTORS) and frame.f_code.co_name in (
        "select",
        "_poll",
    )


# a wake-up that was lost ---------------------------------------------------------------------


def _lost_wakeup(standstill: Standstill) -> Hang | None:
    """A loop that sleeps although something is ready to run on it.

    `_run_once` sleeps for no time at all where anything is ready (Lib/asyncio/base_events.py), and
    takes every entry off before it looks again: the same entry at the head, and the loop still in
    `select`, means that it was put there by somebody who woke nobody.
    """
    loop, ready = standstill.loop, getattr(standstill.loop, "_ready", None)
    if not _sleeps(standstill.frame):
        return None
    if not ready:
        return _unheard_stop(standstill)
    try:
        first = ready[0]
    except IndexError:
        return None
    standstill.seen = (first,)
    task = getattr(getattr(first, "_callback", None), "__self__", None)
    task = task if is_a(task, asyncio.Task) else _waiting_for(loop, first)
    unseen: Literal["not-started"] | None = "not-started" if _is_to_start(task) else None
    words = "its first step, since it was made" if unseen else "what is done already"
    waiting = _wait_of(task, standstill, words) if task is not None else None
    standstill.inside = _library_of(task) if task is not None else ()
    return Hang(
        kind="lost-wakeup",
        certainty="proven",
        waits=(waiting or Wait(thread=_name_of(standstill.ident), awaits="a wake-up"),),
        unseen=unseen,
    )


def _is_to_start(task: Any) -> bool:
    """Whether a task has not taken its first step."""
    coroutine = task.get_coro() if task is not None else None
    return inspect.iscoroutine(coroutine) and (
        inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    )


def _unheard_stop(standstill: Standstill) -> Hang | None:
    """A loop that sleeps although it is to stop.

    `_run_once` sleeps for no time at all where `_stopping` is set, and `run_forever` looks at it
    after each round (Lib/asyncio/base_events.py).
    """
    if getattr(standstill.loop, "_stopping", None) is not True:
        return None
    standstill.seen = (standstill.loop,)
    wait = Wait(thread=_name_of(standstill.ident), awaits="a wake-up, in order to stop")
    return Hang(kind="lost-wakeup", certainty="proven", waits=(wait,), unseen="stopping")


def _library_of(task: Any) -> tuple[Any, ...]:
    """What a library works on, if a function of its own, not of the user's, waits in a task."""
    inwards = list(sites_of(task))
    outwards = (site.frame for site in reversed(inwards))
    waiting = dropwhile(lambda frame: _frames.module_of(frame).startswith("asyncio."), outwards)
    return tuple(map(first_argument, takewhile(lambda frame: not _frames.is_user(frame), waiting)))


def _waiting_for(loop: Any, handle: Any) -> Any:
    """The task that a ready callback would go on with: that of a future it has in hand."""
    # The callback of `gather` and the like completes the future that it closes over.
    given = [*(getattr(handle, "_args", None) or ()), *_closed_over(handle._callback)]
    tasks = _tasks_of(loop)
    return next((t for t in tasks for arg in given if getattr(t, "_fut_waiter", None) is arg), None)


# a loop that waits for itself ------------------------------------------------------------------


def _self_deadlock(standstill: Standstill) -> Hang | None:
    """A loop's thread that is blocked until work is done which only this loop can do."""
    who = _Who(standstill)
    if who.can_move_thread(standstill.ident):
        return None
    standstill.seen = tuple(who.met)
    standstill.stuck = tuple(who.stuck_loops())
    blocked = _blocked_on(standstill.frame)
    thread = _name_of(standstill.ident)
    place = user_place(_frames.sites_of_stack(standstill.frame))
    task = asyncio.current_task(standstill.loop)
    words = "a thread" if is_a(blocked, threading.Thread) else "the result of a coroutine"
    lock = is_a(blocked, LOCK)
    words = "a lock that a waiting task holds" if lock else words
    first = Wait(
        task=task.get_name() if task is not None else None,
        thread=thread,
        place=place,
        awaits=f"{words}, blocking",
    )
    waits = (first, *who.waits())
    return Hang(kind="self-deadlock", certainty="proven", waits=waits, blocking=True, lock=lock)


def _starved(standstill: Standstill) -> Hang | None:
    """A loop whose tasks wait for its executor, all of whose threads wait for this loop."""
    executor: Any = getattr(standstill.loop, "_default_executor", None)
    queue = getattr(executor, "_work_queue", None)
    if queue is None or not queue.qsize() or not _sleeps(standstill.frame):
        return None
    who = _Who(standstill)
    for task in _tasks_of(standstill.loop):
        source = _source_of(getattr(task, "_fut_waiter", None))
        if source is None or who.can_move_task(task):
            continue
        standstill.seen = (task, source, *who.met)
        waiting = _wait_of(task, standstill, "a free thread of the loop's executor")
        return Hang(kind="self-deadlock", certainty="proven", waits=(waiting, *who.waits()))
    return None


class _Who:
    """Who can still move: everything that is not known to be stuck can."""

    def __init__(self, standstill: Standstill) -> None:
        self.home = standstill
        self.threads = sys._current_frames()
        running = ((ident, loop_in(frame)) for ident, frame in self.threads.items())
        self.idents = {loop: ident for ident, loop in running if loop is not None}
        self.met: list[Any] = []
        self._asked: list[Any] = []

    def can_move_thread(self, ident: int) -> bool:
        """Whether a thread can go on; one that waits for what cannot move cannot."""
        if ident in self._asked:
            return False
        frame = self.threads.get(ident)
        blocked = _blocked_on(frame)
        if blocked is None:
            return True
        self._asked.append(ident)
        self.met.append(blocked)
        if is_a(blocked, threading.Thread):
            return blocked.ident is None or self.can_move_thread(blocked.ident)
        if is_a(blocked, LOCK):
            return self.can_be_released(blocked)
        return self.can_move_future(blocked)

    def can_move_future(self, future: Any) -> bool:
        """Whether somebody can still complete a thread's future."""
        if future.done():
            return True
        for loop in self.idents:
            task = _task_behind(loop, future)
            if task is _NOT_BEGUN:
                return self._can_run(loop)
            if task is not None:
                return self.can_move_task(task)
        return True

    def can_be_released(self, lock: Any) -> bool:
        """Whether the one that is seen to hold a lock, inside a `with` block, can go on."""
        for loop in self.idents:
            for task in _tasks_of(loop):
                if any(is_held_in(site, lock) for site in sites_of(task)):
                    self.met.append(task)
                    return self.can_move_task(task)
        return True

    def can_move_task(self, task: Any) -> bool:
        """Whether a task can go on."""
        if any(task is each for each in self._asked):
            return False
        self._asked.append(task)
        if not self._can_run(task.get_loop()):
            return False
        waiter = getattr(task, "_fut_waiter", None)
        if waiter is None or waiter.done():
            return True
        if is_a(waiter, asyncio.Task):
            return self.can_move_task(waiter)
        source = _source_of(waiter)
        return source is None or self._can_be_begun(source, task.get_loop())

    def _can_run(self, loop: Any) -> bool:
        """Whether a loop's own thread can go on: it sleeps, or what blocks it can move."""
        ident = self.idents.get(loop)
        frame = self.threads.get(ident) if ident is not None else None
        return frame is None or _sleeps(frame) or self.can_move_thread(ident or 0)

    def _can_be_begun(self, source: Any, loop: Any) -> bool:
        """Whether work that waits for a thread of a loop's executor can get one."""
        executor: Any = getattr(loop, "_default_executor", None)
        if source.running() or source.done() or not _is_queued(executor, source):
            return True
        threads = list(executor._threads)
        if len(threads) < executor._max_workers:
            return True
        return any(self.can_move_thread(thread.ident or 0) for thread in threads)

    def stuck_loops(self) -> Iterator[Any]:
        """The loops whose threads were found to be stuck."""
        return (loop for loop, ident in self.idents.items() if ident in self._asked)

    def waits(self) -> Iterator[Wait]:
        """The other threads that were found to be stuck."""
        for ident in self._asked:
            if isinstance(ident, int) and ident != self.home.ident:
                place = user_place(_frames.sites_of_stack(self.threads.get(ident)))
                awaits = "the result of a coroutine"
                yield Wait(thread=_name_of(ident), place=place, awaits=awaits)


def _blocked_on(frame: FrameType | None) -> Any:
    """What a thread's innermost call waits for: a thread's future, a thread, a lock, or None."""
    for each in walk_back(frame):
        if each.f_code in _RESULT or each.f_code is _JOIN:
            return first_argument(each)
        if not _frames.module_of(each).startswith(("threading", "concurrent.futures")):
            return lock_wanted(_frames.site_of(each)) if each is frame else None
    return None


_NOT_BEGUN = object()


def _task_behind(loop: Any, future: Any) -> Any:
    """The task that completes a future of `run_coroutine_threadsafe`; None if it is another's.

    Its closure holds the future, in the loop's queue until it is begun, then among the task's
    callbacks (Lib/asyncio/tasks.py, futures.py: _chain_future).
    """
    for handle in _entries(getattr(loop, "_ready", None)):
        if any(each is future for each in _closed_over(getattr(handle, "_callback", None))):
            return _NOT_BEGUN
    for task in _tasks_of(loop):
        for callback, *_ in getattr(task, "_callbacks", None) or ():
            if any(each is future for each in _closed_over(callback)):
                return task
    return None


def _source_of(waiter: Any) -> Any:
    """The thread's future that an awaited one is chained to, as that of `run_in_executor`."""
    for callback, *_ in getattr(waiter, "_callbacks", None) or ():
        for each in _closed_over(callback):
            if is_a(each, concurrent.futures.Future):
                return each
    return None


def _closed_over(callback: Any) -> list[Any]:
    if not is_a(callback, FunctionType) or callback.__module__ not in (
        "asyncio.tasks",
        "asyncio.futures",
    ):
        return []
    found = []
    for cell in callback.__closure__ or ():
        with suppress(ValueError):  # empty
            found.append(cell.cell_contents)
    return found


def _is_queued(executor: Any, source: Any) -> bool:
    """Whether a future's work waits in an executor's queue, which cannot be looked into directly.

    It is not asked of the future, which knows nothing of its executor.
    """
    if not is_a(executor, concurrent.futures.ThreadPoolExecutor):
        return False
    queue = executor._work_queue
    items = [each for each in gc.get_referrers(source) if type(each).__name__ == "_WorkItem"]
    for item in items:
        for holder in gc.get_referrers(item):
            if holder is queue or any(each is queue for each in gc.get_referrers(holder)):
                return True
    return False


# a pool that nothing comes back to -------------------------------------------------------------


def _drained(standstill: Standstill) -> Hang | None:
    """A pool whose connections are all with tasks that wait for it too, or with nothing at work.

    Without a time-out, asyncpg's default, a task waits for ever then (asyncpg/pool.py: acquire).
    """
    if not _sleeps(standstill.frame):
        return None
    waiting = _waiting_for_pools(standstill)
    if not waiting:
        return None
    pool = waiting[0][1]
    tasks = [task for task, wanted in waiting if wanted is pool]
    standstill.seen = (pool, *tasks)
    if not standstill.late:
        return Hang(kind="pool-exhausted", certainty="likely", waits=())
    holders = standstill.holders_of(pool)
    names = {task.get_name() for task in tasks}
    if not holders or any(h.task not in names and (h.task or not h.searched) for h in holders):
        return None
    standstill.inside = (pool,)
    for_ever = all(holder.task in names for holder in holders)
    waits = (_wait_of(task, standstill, "a connection of the pool") for task in tasks)
    certainty: Certainty = "proven" if for_ever else "likely"
    return Hang(kind="pool-exhausted", certainty=certainty, waits=tuple(waits))


def _waiting_for_pools(standstill: Standstill) -> list[tuple[Any, Any]]:
    """The tasks of a loop that wait in a pool's queue, without a time-out, each with its pool."""
    found = []
    for task in _tasks_of(standstill.loop):
        waiter = getattr(task, "_fut_waiter", None)
        if waiter is None or waiter.done() or _has_timer(task, standstill.loop):
            continue
        frames = [site.frame for site in sites_of(task)]
        if not frames or _frames.module_of(frames[-1]) != "asyncio.queues":
            continue
        pools = (each for each in _library_of(task) if "Pool" in type(each).__name__)
        pool = next(pools, None)
        if pool is not None:
            found.append((task, pool))
    return found


# a cancellation that was swallowed -------------------------------------------------------------


def is_ending(frame: FrameType) -> bool:
    """Whether a thread's loop waits, at its end, for the tasks that were cancelled for that."""
    return _sleeps(frame) and any(
        each.f_code is _CANCEL_ALL for each in islice(walk_back(frame), _DEPTH_OF_END)
    )


#: Frames between `_cancel_all_tasks` and `select`, and some more.
_DEPTH_OF_END = 10


def look_at_end(standstill: Standstill) -> Hang | None:
    """Say which cancelled tasks go round for ever in a loop that moves, but is being ended."""
    standstill.seen = ()
    stuck = [task for task in _swallowers(standstill) if _is_endless(task)]
    if not stuck:
        return None
    standstill.seen = tuple(stuck)
    return _unfinished_in(stuck, standstill, "likely")


def _unfinished(standstill: Standstill) -> Hang | None:
    """A loop that waits for tasks which were cancelled, and went on waiting.

    It is being ended, or a task of its own awaits what it cancelled.
    """
    if not _sleeps(standstill.frame):
        return None
    ending = is_ending(standstill.frame)
    stuck = [task for task in _swallowers(standstill) if _stays(task, standstill, ending=ending)]
    if not stuck:
        return None
    standstill.seen = (*stuck, *(getattr(task, "_fut_waiter", None) for task in stuck))
    for_ever = ending and all(_waits_for_others(task) for task in stuck)
    return _unfinished_in(stuck, standstill, "proven" if for_ever else "likely")


def _stays(task: Any, standstill: Standstill, *, ending: bool) -> bool:
    """Whether somebody waits for a cancelled task that nothing in sight will end."""
    if ending and not _has_timer(task, standstill.loop):
        return True
    return _is_endless(task) and (ending or task_waiting_for(task) is not None)


def _swallowers(standstill: Standstill) -> list[Any]:
    """The tasks that were cancelled and wait in ordinary code again."""
    tasks = _tasks_of(standstill.loop)
    return [task for task in tasks if task.cancelling() and not task.done() and _swallowed(task)]


def _unfinished_in(stuck: list[Any], standstill: Standstill, certainty: Certainty) -> Hang:
    waits = (_wait_of(task, standstill, f"more in {_called(task)}, cancelled") for task in stuck)
    own = all(map(_is_swallowed_by_program, stuck))
    return Hang(kind="unfinished-cancellation", certainty=certainty, waits=tuple(waits), own=own)


def _is_swallowed_by_program(task: Any) -> bool:
    """Whether it is the program's own code that goes round again, not a library's worker."""
    sites = list(sites_of(task))
    around = [site for site in sites if is_in_endless_loop(site.code, site.at)] or sites[:1]
    return any(_frames.is_user(site.frame) for site in around[-1:])


def _has_timer(task: Any, loop: Any) -> bool:
    """Whether a task's own timer will wake it, or end a block of limited time around it."""
    waiter = getattr(task, "_fut_waiter", None)
    timers = _entries(getattr(loop, "_scheduled", None))
    args = (arg for each in timers for arg in each._args or ())
    if waiter is not None and any(waiter is arg for arg in args):
        return True
    limits = (getattr(each._callback, "__self__", None) for each in timers)
    return any(task in _limited_by(limit) for limit in limits)


def _limited_by(limit: Any) -> list[Any]:
    """The tasks that a block of limited time will cancel.

    Lib/asyncio/timeouts.py: Timeout; anyio/_backends/_asyncio.py: CancelScope.
    """
    if is_a(limit, asyncio.Timeout):
        return [getattr(limit, "_task", None)]
    if type(limit).__name__ == "CancelScope":
        return [getattr(limit, "_host_task", None), *(getattr(limit, "_tasks", None) or ())]
    return []


def _is_endless(task: Any) -> bool:
    """Whether a task can only be ended by an exception, as a worker with `while True:`."""
    return any(is_in_endless_loop(site.code, site.at) for site in sites_of(task))


def _called(task: Any) -> str:
    """The task's own coroutine, as the reader would call it."""
    return f"{getattr(task.get_coro(), '__qualname__', 'its coroutine')}()"


def _waits_for_others(task: Any) -> bool:
    """Whether a task waits on a queue, a lock or the like, which only another task would end."""
    innermost = list(sites_of(task))[-1:]
    modules = ("asyncio.queues", "asyncio.locks")
    return any(_frames.module_of(site.frame).startswith(modules) for site in innermost)


def _swallowed(task: Any) -> bool:
    """Whether a task waits in ordinary code again, not in what tidies up after a cancellation.

    What runs in an `except` or `finally` still handles the cancellation: `ensure_future` and the
    like cannot tell, but the compiler's table of handlers can.
    """
    return not any(_is_in_handler(site.code, site.at) for site in sites_of(task))


def _is_in_handler(code: Any, at: int) -> bool:
    """Whether an instruction stands in a handler, with an exception on the stack below it.

    Each handler is itself guarded by an entry with `lasti` that restores the exception's context
    (CPython: InternalDocs/exception_handling.md, compile.c).
    """
    parse = getattr(dis, "_parse_exception_table", None)
    entries = parse(code) if parse is not None else ()
    guards = (entry.target for entry in entries if entry.lasti and entry.start <= at < entry.end)
    return any(code.co_code[target] == _COPY for target in guards)


#: What such an entry leads to; that of a `with` block leads to PUSH_EXC_INFO.
_COPY = dis.opmap["COPY"]


# what both need --------------------------------------------------------------------------------


def _tasks_of(loop: Any) -> list[Any]:
    with suppress(RuntimeError):  # changed while it was read
        return sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return []


def _entries(ready: Any) -> list[Any]:
    with suppress(RuntimeError, TypeError):
        return list(ready)
    return []


def _wait_of(task: Any, standstill: Standstill, awaits: str) -> Wait:
    place: Place | None = user_place(reversed(list(sites_of(task))))
    return Wait(task=task.get_name(), thread=_name_of(standstill.ident), place=place, awaits=awaits)


def _name_of(ident: int) -> str:
    named: Iterable[threading.Thread] = threading.enumerate()
    return next((each.name for each in named if each.ident == ident), str(ident))
