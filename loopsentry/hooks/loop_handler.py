"""The exception handler of each recorded event loop: callbacks and tasks nobody awaits."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from loopsentry._copies import copy_of
from loopsentry._safely import until_failure
from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo


class _Handler:
    """Examines an exception, then does what would have been done without it."""

    def __init__(self, reporters: list[Reporter], previous: Any) -> None:
        self.reporters = reporters
        self.previous = previous

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle one report of the loop (Lib/asyncio/base_events.py: call_exception_handler)."""
        exc = context.get("exception")
        if isinstance(exc, Exception):
            for report in self.reporters:
                report(exc)
        if self.previous is not None:
            self.previous(loop, context)
        else:
            loop.default_exception_handler(context)


def attach(report: Reporter, registry: Registry) -> Undo:
    """Put a handler on each loop when it is first met.

    Returns:
        What takes the handlers off. The program may have put one of its own on top, which goes on
        calling ours: from then on ours only passes on.
    """
    # A handler is held by its loop alone: whatever the program's own handler refers to, the loop
    # perhaps, must not be kept alive from here.
    handled: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
    reporters: list[Reporter] = [until_failure(report)]

    @until_failure
    def greet(loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed() and loop not in handled:
            handled.add(loop)
            loop.set_exception_handler(_Handler(reporters, loop.get_exception_handler()))

    stop_greeting = registry.on_loop(greet)

    def undo() -> None:
        stop_greeting()
        reporters.clear()
        for loop in copy_of(handled.__iter__):
            handler = loop.get_exception_handler()
            if isinstance(handler, _Handler) and handler.reporters is reporters:
                loop.set_exception_handler(handler.previous)

    return undo
