"""The exception handler of each recorded event loop: callbacks and tasks nobody awaits."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from loopsentry._safely import safely
from loopsentry.model import Reporter

# The handler is held by its loop alone: whatever the program's own handler refers to, the loop
# perhaps, must not be kept alive from here.
_handled: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_greetings: list[tuple[list[Any], Any]] = []


class _Handler:
    """Examines an exception, then does what would have been done without it."""

    def __init__(self, examine: Any, previous: Any) -> None:
        self.examine = examine
        self.previous = previous

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle one report of the loop (Lib/asyncio/base_events.py: call_exception_handler)."""
        exc = context.get("exception")
        if isinstance(exc, Exception):
            self.examine(exc)
        if self.previous is not None:
            self.previous(loop, context)
        else:
            loop.default_exception_handler(context)


def attach(report: Reporter, registry: Any) -> None:
    """Put a handler on each loop when it is first met."""
    examine = safely(report)

    def greet(loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed() and loop not in _handled:
            _handled.add(loop)
            loop.set_exception_handler(_Handler(examine, loop.get_exception_handler()))

    guarded = safely(greet)
    registry.met.append(guarded)
    _greetings.append((registry.met, guarded))


def detach() -> None:
    """Take the handlers off, unless the program has set its own since."""
    greetings, guarded = _greetings.pop()
    greetings.remove(guarded)
    for loop in list(_handled):
        handler = loop.get_exception_handler()
        if isinstance(handler, _Handler):
            loop.set_exception_handler(handler.previous)
    _handled.clear()
