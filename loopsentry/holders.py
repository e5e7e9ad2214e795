"""Who else has an object in hand: the tasks of this loop, looked at while they wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import perf_counter
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any

from . import _frames
from ._frames import Site, site_of
from .exceptions import is_a, text_of, variables_of
from .model import Operation, Place

SEARCH_SECONDS = 0.003
#: Where seconds were waited before, such as for a pool.
LONG_SEARCH_SECONDS = 0.1
FRAMES_SEEN = 400

_WAITING = frozenset({"__aexit__", "_run_to_completion"})  # the second since SQLAlchemy 2.1
_TASK_NAME = re.compile(r"name='([^']+)'")
# `_scheduled_tasks` was `_all_tasks` before CPython 3.12 (Lib/asyncio/tasks.py).
_NAME = "_scheduled_tasks" if hasattr(asyncio.tasks, "_scheduled_tasks") else "_all_tasks"
_PER_THREAD: bool = sys.version_info >= (3, 14)
_SCHEDULED: Iterable[asyncio.Task[Any]] = getattr(asyncio.tasks, _NAME, ())


def search_tasks(
    loop: asyncio.AbstractEventLoop,
    aliases: set[int],
    stands_for: Callable[[Any], Any] = lambda target: target,
) -> tuple[Operation, list[Site]] | None:
    """Find another task of the running loop that has an object in its frames.

    Args:
        loop: the loop of this thread; another thread's loop must not be looked at.
        aliases: identities under which the object may stand there.
        stands_for: gives what an object has to do with, as the connection of a prepared statement.

    Returns:
        What that task does and its frames, the outermost first; None if there is none or the time
        allowed ran out.
    """
    deadline = perf_counter() + SEARCH_SECONDS
    mine = asyncio.current_task(loop)
    shielded = mine is not None and _is_library_task(mine)
    for task in asyncio.all_tasks(loop):
        if perf_counter() > deadline:
            return None
        if task is mine:
            continue
        sites = list(sites_of(task))
        if not _hold(sites, aliases, stands_for):
            continue
        place = _frames.user_place(reversed(sites)) or _place_of_call(task, sites[0])
        if shielded and sites[-1].code.co_name in _WAITING:
            continue  # it waits for the present task, which a library started on its behalf
        operation = Operation(
            task=task.get_name(),
            function=place.function,
            file=place.file,
            line=place.line,
            state="cancelled" if task.cancelling() else "waiting",
        )
        return operation, sites
    return None


def find_hands(
    held_by: Callable[[Any], list[int]],
    wanted: set[int],
    loops: Iterable[asyncio.AbstractEventLoop],
) -> tuple[dict[int, tuple[str, Place | None]], bool]:
    """Find the tasks that have objects in hand, among their frames' variables.

    Args:
        held_by: identities of the objects that a value is or has; asked of each variable.
        wanted: those that are looked for.
        loops: whose tasks are searched, after those of the running loop.

    Returns:
        For each that was found its task's name, and the line of the frame that has it; and
        whether all tasks were searched: without a loop, or in too short a time, not.
    """
    found: dict[int, tuple[str, Place | None]] = {}
    running = _frames.running_loop()
    mine = asyncio.current_task(running) if running is not None else None
    searched = list(dict.fromkeys([running, *loops] if running is not None else loops))
    deadline = perf_counter() + LONG_SEARCH_SECONDS
    for task in _tasks_of(searched):
        if perf_counter() > deadline:
            return found, False
        if len(found) == len(wanted):
            break
        for site in sites_of(task) if task is not mine else reversed(list(_frames.walk_live())):
            if not _frames.is_user(site.frame):
                continue
            for value in _frames.variables_in(site.frame).values():
                for each in held_by(value):
                    if each in wanted:
                        found[each] = (task.get_name(), _frames.place_of(site))
    return found, bool(searched)


def _place_of_call(task: asyncio.Task[Any], outermost: Site) -> Place:
    """Where a library's coroutine, given to `gather()` as it is, is waited for, and its name."""
    called = _frames.place_of(outermost)
    waited = place_waiting_for(task)
    return replace(waited, function=called.function) if waited is not None else called


def place_waiting_for(future: asyncio.Future[Any] | None) -> Place | None:
    """The user's line in the nearest task that waits for a task or future, if one is found."""
    task = task_waiting_for(future) if future is not None else None
    for _ in range(TASKS_SEEN):
        if task is None:
            break
        place = _frames.user_place(reversed(list(sites_of(task))))
        if place is not None:
            return place
        task = task_waiting_for(task)
    return None


def place_of_submitter(sites: list[Site]) -> Place | None:
    """The user's line that handed the work of an executor's thread in; None if it has gone on.

    It is known while it waits for the result, in a thread or in a task, and while it hands it in.

    Args:
        sites: the stack of the executor's thread (Lib/concurrent/futures/thread.py).
    """
    work = (s for s in sites if _is_at(s.frame, _WORKING))
    item = next((_frames.first_argument(site.frame) for site in work), None)
    future = variables_of(item).get("future")
    if not is_a(future, concurrent.futures.Future):
        return None
    for frame in list(sys._current_frames().values()):
        stack = _frames.sites_of_stack(frame)
        if any(_is_for(site.frame, future) for site in stack):
            return _frames.user_place(stack)
    for callback in list(getattr(future, "_done_callbacks", ())):
        for each in _closed_over(callback):
            if is_a(each, asyncio.Future):
                # A library's coroutine may be all that its loop was given.
                around = _frames.thread_of(each.get_loop())
                return place_waiting_for(each) or _frames.user_place(around)
    return None


def _is_for(frame: FrameType, future: object) -> bool:
    """Whether a frame waits for a concurrent future, or has just made it."""
    if _is_at(frame, _WAITING_FOR):
        return _frames.first_argument(frame) is future
    return _is_at(frame, _SUBMITTING) and _frames.variables_in(frame).get("f") is future


def _is_at(frame: FrameType, places: frozenset[tuple[str, str]]) -> bool:
    return (_frames.module_of(frame), frame.f_code.co_name) in places


_WORKING = frozenset({("concurrent.futures.thread", "run")})
_SUBMITTING = frozenset({("concurrent.futures.thread", "submit")})
_WAITING_FOR = frozenset(
    {("concurrent.futures._base", "result"), ("concurrent.futures._base", "exception")}
)


def place_here(sites: list[Site]) -> Place | None:
    """The user's line that the present task works for: its own, or of the one that waits for it.

    Args:
        sites: the present stack, the innermost first.
    """
    inner, outer = _frames.split_at_loop(sites)
    task = _present_task()
    place = _frames.user_place(inner) or place_waiting_for(task)
    if place is None and (task is None or _is_main(task)):
        return _frames.user_place(outer)
    return place


def sites_waiting_here() -> list[Site]:
    """Where the task stands that waits for the present one, the innermost frame first.

    SQLAlchemy closes what a block leaves in a task of its own.
    """
    task = _present_task()
    waiting = task_waiting_for(task) if task is not None else None
    return list(sites_of(waiting))[::-1] if waiting is not None else []


def _present_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if _frames.running_loop() is not None else None


def place_in(sites: list[Site]) -> Place | None:
    """The user's line that a stack itself shows above its loop; None if there is none."""
    inner, _ = _frames.split_at_loop(sites)
    return _frames.user_place(inner)


def _is_main(task: asyncio.Task[Any]) -> bool:
    """Whether a task is what its loop was started for, so that the line that did so is its own.

    asyncio and uvloop stop the loop by a callback that is named after `run_until_complete`.
    """
    callbacks = (callback for callback, *_ in getattr(task, "_callbacks", None) or ())
    names = (text_of(getattr(each, "__qualname__", "")) for each in callbacks)
    return any("run_until_complete" in name for name in names)


TASKS_SEEN = 10


def task_waiting_for(task: asyncio.Future[Any]) -> asyncio.Task[Any] | None:
    """The task that a task or future will wake when it is done, also through futures in between.

    Callbacks are a task's own method, a TaskGroup's, or functions that close over the next future:
    `gather`, `shield`, `wait`, before 3.12 `wait_for` (Lib/asyncio/tasks.py, taskgroups.py);
    anyio's groups likewise.
    """
    futures: list[Any] = [task]
    for future in futures:
        if len(futures) > TASKS_SEEN:
            break
        for callback, *_ in getattr(future, "_callbacks", None) or ():
            for each in _closed_over(callback):
                if is_a(each, asyncio.Task) and each is not task:
                    return each
                if is_a(each, asyncio.Future) and each is not task:
                    futures.append(each)
    return None


def _closed_over(callback: Any) -> Iterator[Any]:
    """What a callback of asyncio's or anyio's will act upon; of a task group, who waits in it.

    The program's own callbacks may act upon anything: they are not looked into.
    """
    if is_a(callback, partial):
        yield from callback.args if _is_known(callback.func) else ()
    elif is_a(callback, FunctionType):
        cells = callback.__closure__ or () if _is_known(callback) else ()
        yield from (_waits_in(cell.cell_contents) for cell in cells if cell != _EMPTY)
    elif is_a(callback, MethodType) or is_a(callback, BuiltinMethodType):
        yield _waits_in(callback.__self__)


def _is_known(function: Any) -> bool:
    name = function.__module__ if is_a(function, FunctionType) else ""
    return text_of(name).startswith(_GROUPS)


def _waits_in(target: Any) -> Any:
    """The task that waits in a task group; anything else is given as it is."""
    if not text_of(type(target).__module__).startswith(_GROUPS):
        return target
    scope = getattr(target, "cancel_scope", None)  # anyio/_backends/_asyncio.py: TaskGroup
    return getattr(target, "_parent_task", None) or getattr(scope, "_host_task", None) or target


_GROUPS = ("asyncio.", "anyio.")
_EMPTY = CellType()


def _hold(sites: list[Site], aliases: set[int], stands_for: Callable[[Any], Any]) -> bool:
    for site in sites:
        if _frames.is_user(site.frame):
            continue
        target = _frames.first_argument(site.frame)
        if id(target) in aliases or id(stands_for(target)) in aliases:
            return True
    return False


def sites_of(task: asyncio.Task[Any]) -> Iterator[Site]:
    """The frames of a suspended task from the outermost inwards, across the greenlet bridge.

    SQLAlchemy's `greenlet_spawn` keeps the switched-out greenlet in its local `context`
    (sqlalchemy/util/concurrency.py, in 2.0 sqlalchemy/util/_concurrency_py3k.py).
    """
    awaited: Any = task.get_coro()
    for _ in range(FRAMES_SEEN):
        frame, awaited = _suspended(awaited)
        if frame is None:
            return
        yield site_of(frame)
        if frame.f_code.co_name == "greenlet_spawn":
            inner = getattr(_frames.variables_in(frame).get("context"), "gr_frame", None)
            yield from reversed(_frames.sites_of_stack(inner))


def _suspended(awaited: Any) -> tuple[FrameType | None, Any]:
    """The frame of something suspended, and what it awaits in turn."""
    if type(awaited) is CoroutineType:  # nearly all are, and thousands may be asked
        return awaited.cr_frame, awaited.cr_await
    while _is_wrapper(awaited):
        # Objects/genobject.c: what they wrap is no attribute, but the collector is told of it.
        inside = gc.get_referents(awaited)
        awaited = next((e for e in inside if is_a(e, *_SUSPENDED) or _is_wrapper(e)), None)
    for frame, inner in _NAMES:
        if hasattr(awaited, frame):
            return getattr(awaited, frame), getattr(awaited, inner, None)
    return None, None


def _is_wrapper(awaited: Any) -> bool:
    kind = type(awaited)
    return kind.__module__ == "builtins" and kind.__name__ in _WRAPPERS


#: What `__await__` of a coroutine gives, and what waits for the next value of a generator.
_WRAPPERS = frozenset(
    {"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
)
_SUSPENDED = (CoroutineType, GeneratorType, AsyncGeneratorType)
_NAMES = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def _is_library_task(task: asyncio.Task[Any]) -> bool:
    """Whether a task's own coroutine is a library's, such as a shielded close()."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and not _frames.is_user(frame)


def find_foreign_task(
    texts: Iterable[str], current: Any, loops: Iterable[asyncio.AbstractEventLoop] = ()
) -> asyncio.Task[Any] | None:
    """Find the task that asyncio's text names; asyncio throws the task itself away.

    The text only says which one to look for; its loop is read off the task. Since Python 3.14 each
    thread keeps its tasks itself, and only a loop can be asked for them.
    """
    names = {name for text in texts for name in _TASK_NAME.findall(text)}
    deadline = perf_counter() + SEARCH_SECONDS
    per_thread: Iterable[asyncio.Task[Any]] = _tasks_of(loops) if _PER_THREAD else ()
    for task in (*_SCHEDULED, *per_thread):
        if perf_counter() > deadline:
            return None
        if task.get_name() in names and task.get_loop() is not current:
            return task
    return None


def _tasks_of(loops: Iterable[asyncio.AbstractEventLoop]) -> Iterator[asyncio.Task[Any]]:
    for loop in loops:
        with suppress(RuntimeError):  # changed while it was read
            yield from asyncio.all_tasks(loop)
