"""The exception handler of each recorded event loop: callbacks and tasks nobody awaits."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from loopsentry._safely import safely
from loopsentry.model import Reporter

_handled: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = (
    weakref.WeakKeyDictionary()
)
_greetings: list[tuple[list[Any], Any]] = []


def attach(report: Reporter, registry: Any) -> None:
    """Put a handler on each loop when it is first met."""
    examine = safely(report)

    def greet(loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed() and loop not in _handled:
            _handle(loop, examine)

    guarded = safely(greet)
    registry.met.append(guarded)
    _greetings.append((registry.met, guarded))


def _handle(loop: asyncio.AbstractEventLoop, examine: Any) -> None:
    previous = loop.get_exception_handler()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, Exception):
            examine(exc)
        if previous is not None:
            previous(loop, context)
        else:
            loop.default_exception_handler(context)

    _handled[loop] = (handler, previous)
    loop.set_exception_handler(handler)


def detach() -> None:
    """Take the handlers off, unless the program has set its own since."""
    greetings, guarded = _greetings.pop()
    greetings.remove(guarded)
    for loop, (handler, previous) in list(_handled.items()):
        if loop.get_exception_handler() is handler:
            loop.set_exception_handler(previous)
    _handled.clear()
