"""Who starts event loops and threads, heard as it happens.

A loop is remembered with its starter though it may never open a connection: a lock, a queue or a
client may be bound to it. Without `sys.monitoring` (Python 3.11) only loops are heard of that a
runner makes for itself, as `asyncio.run` does; others are known from the first connection that is
opened on them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import CodeType, CoroutineType, FrameType
from typing import Any

from loopsentry._frames import (
    Site,
    describe_all,
    first_argument,
    is_loop,
    is_user,
    module_of,
    places_naming,
    site_of,
    user_place,
    variables_in,
    walk_live,
)
from loopsentry._monitoring import on_return, on_start
from loopsentry._safely import until_failure
from loopsentry.holders import place_of_submitter
from loopsentry.model import LoopInfo, Place, Reporter
from loopsentry.registry import Registry, Undo

PACKAGES = ("asyncio", "threading")
STACKS_KEPT = 256


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear of `BaseEventLoop.run_forever`, `asyncio.Runner` and `Thread.start`.

    uvloop's loops are compiled, but `uvloop.run` goes through `asyncio.Runner` (Lib/asyncio/
    base_events.py, runners.py; uvloop/__init__.py).

    Returns:
        What ends that.
    """
    starts = _Starts(registry)
    with ExitStack() as attached:
        attached.callback(on_start(asyncio.BaseEventLoop.run_forever, starts.loop_runs))
        attached.callback(
            on_return(getattr(asyncio.Runner, "_lazy_init", None), starts.loop_is_made)
        )
        attached.callback(on_start(threading.Thread.start, starts.thread_starts))
        if sys.version_info < (3, 12):
            attached.callback(_on_new_loop(starts.loop_is_new))
        return attached.pop_all().close


class _Starts:
    """What is heard of starts.

    The same line starts most loops of a program: what a stack tells is kept by its code and lines.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.threads: weakref.WeakKeyDictionary[threading.Thread, Place] = (
            weakref.WeakKeyDictionary()
        )
        self.known: dict[tuple[tuple[CodeType, int], ...], LoopInfo] = {}

    def loop_runs(self, frame: FrameType) -> None:
        """Hear that a loop begins to run."""
        loop = first_argument(frame)
        if is_loop(loop):
            self.registry.start(loop, lambda: self._describe(frame))

    def loop_is_made(self, frame: FrameType) -> None:
        """Hear that a Runner has made its loop."""
        loop = getattr(first_argument(frame), "_loop", None)
        if is_loop(loop):
            self.registry.start(loop, lambda: self._describe(frame))

    def loop_is_new(self, frame: FrameType) -> None:
        """Hear that a loop is being made; whoever makes one without a runner may not start it.

        A function that reads `run_until_complete` or `run_forever` on one line does.
        """
        loop = first_argument(frame)
        if not is_loop(loop):
            return
        info = self._describe(frame)
        if info.runner is None:
            place = _start_below(frame)
            info = replace(info, started_by=place)
        if info.started_by is not None or info.runner is not None:
            self.registry.start(loop, lambda: info)

    def thread_starts(self, frame: FrameType) -> None:
        """Hear that a thread is being started."""
        place = user_place(walk_live(frame))
        thread = first_argument(frame)
        if place is not None and issubclass(type(thread), threading.Thread):
            self.threads[thread] = place

    def _describe(self, frame: FrameType) -> LoopInfo:
        """What the stack below a loop, and the coroutine that it will run, tell of its start."""
        sites = list(walk_live(frame))
        sites[:0] = _coroutine_of(sites)
        key = tuple((site.code, site.line) for site in sites)
        info = self.known.get(key)
        if info is None:
            frames = describe_all(sites)
            info = self.registry.recognise(frames)
            if len(frames) == len(sites):  # what a waiting thread's stack tells holds only now
                if len(self.known) >= STACKS_KEPT:
                    self.known.clear()
                self.known[key] = info
        if info.started_by is not None:
            return info
        if _outlives(sites):
            return replace(info, started_by=place_of_submitter(sites))
        return replace(info, started_by=self.threads.get(threading.current_thread()))


def _start_below(frame: FrameType) -> Place | None:
    """The one line on which the user's function that makes a loop names what runs it."""
    maker = next((site for site in walk_live(frame) if is_user(site.frame)), None)
    if maker is None:
        return None
    places = places_naming(maker.code, _RUNS)
    return places[0] if len(places) == 1 else None


_RUNS = frozenset({"run_until_complete", "run_forever"})


def _on_new_loop(listener: Callable[[FrameType], None]) -> Undo:
    """Call back with the frame of each new loop's `__init__`.

    asyncio names the selector of each loop to its logger (Lib/asyncio/selector_events.py,
    proactor_events.py: `logger.debug`), and calls that for nothing else outside its debug mode. The
    method of this one logger is covered, and calls the logger's own.
    """
    logger = logging.getLogger("asyncio")
    covered = logger.debug
    before = vars(logger).get("debug")
    hear = until_failure(listener)

    def debug(message: object, *args: object, **options: Any) -> None:
        frame = sys._getframe(1)
        if frame.f_code.co_name == "__init__" and module_of(frame).startswith("asyncio."):
            hear(frame)
        options["stacklevel"] = options.get("stacklevel", 1) + 1
        covered(message, *args, **options)

    logger.debug = debug  # type: ignore[method-assign,assignment]

    def undo() -> None:
        if vars(logger).get("debug") is not debug:
            return  # somebody covers it in turn
        if before is None:
            del logger.debug
        else:
            logger.debug = before  # type: ignore[method-assign]

    return undo


def _outlives(sites: list[Site]) -> bool:
    """Whether a thread may have been started for another call: an executor's, if not a portal's.

    anyio starts one for each of its portals (anyio/from_thread.py: start_blocking_portal).
    """
    modules = {module_of(site.frame) for site in sites}
    return "concurrent.futures.thread" in modules and "anyio.from_thread" not in modules


def _coroutine_of(sites: list[Site]) -> list[Site]:
    """The coroutine that a runner was given, as a frame that has not begun."""
    for site in sites[1:3]:  # run_until_complete(), or Runner.run() around it
        given: Any = variables_in(site.frame)
        found: Any = next(
            (given[name] for name in ("future", "coro", "task") if name in given), None
        )
        coroutine = found.get_coro() if issubclass(type(found), asyncio.Task) else found
        if type(coroutine) is CoroutineType and coroutine.cr_frame is not None:
            return [site_of(coroutine.cr_frame)]
    return []
