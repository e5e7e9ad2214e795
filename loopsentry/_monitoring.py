"""Hearing of calls of single functions, without replacing them: `sys.monitoring`, Python 3.12.

Events are set on the code objects of the functions that are watched, and nowhere else, so that no
other code runs slower (PEP 669). Where there is no `sys.monitoring`, or no tool id is free, nothing
is heard, and whoever wanted to hear does without.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any

from ._safely import until_failure

logger = logging.getLogger("loopsentry")

#: Free for any tool; 0 to 2 and 5 are debuggers', coverage's, profilers' and optimizers'.
TOOL_IDS = (3, 4)

#: Takes the frame of the call; an exception that it returns is raised in the place of the call.
Handler = Callable[[FrameType], Exception | None]
Undo = Callable[[], None]

_monitoring: Any = getattr(sys, "monitoring", None)


class _Tool:
    """The one tool id of this process, held while somebody listens."""

    def __init__(self) -> None:
        self.id: int | None = None
        self.handlers: dict[tuple[int, CodeType], list[Handler]] = {}
        self.lock = threading.RLock()
        self.said = False

    def add(self, event: int, code: CodeType, handler: Handler) -> bool:
        """Call a handler at an event of one code object; return whether that is possible."""
        with self.lock:
            if self.id is None and not self._take_id():
                return False
            self.handlers.setdefault((event, code), []).append(handler)
            self._set_events(code)
            return True

    def remove(self, event: int, code: CodeType, handler: Handler) -> None:
        """Call a handler no more; without any, give the id back."""
        with self.lock:
            left = self.handlers.get((event, code), [])
            if handler in left:
                left.remove(handler)
            if not left:
                self.handlers.pop((event, code), None)
            if self.id is not None:
                self._set_events(code)
            if self.id is not None and not self.handlers:
                for each in _CALLBACKS:
                    _monitoring.register_callback(self.id, each, None)
                _monitoring.free_tool_id(self.id)
                self.id = None

    def _take_id(self) -> bool:
        free = (each for each in TOOL_IDS if _monitoring.get_tool(each) is None)
        self.id = next(free, None) if _monitoring is not None else None
        if self.id is None:
            if not self.said:
                self.said = True
                logger.debug("%s: not recorded is %s", why_not(), "who started each event loop")
            return False
        _monitoring.use_tool_id(self.id, "loopsentry")
        for event, callback in _CALLBACKS.items():
            _monitoring.register_callback(self.id, event, callback)
        return True

    def _set_events(self, code: CodeType) -> None:
        events = sum({event for event, each in self.handlers if each is code})
        _monitoring.set_local_events(self.id, code, events)

    def hear(self, event: int, code: CodeType, frame: FrameType | None) -> None:
        """Call the handlers of an event; raise what one of them returns."""
        for handler in tuple(self.handlers.get((event, code), ())):
            refusal = handler(frame) if frame is not None else None
            if refusal is not None:
                raise refusal


_tool = _Tool()


def _started(code: CodeType, _offset: int) -> None:
    _tool.hear(_START, code, sys._getframe(1))


def _returned(code: CodeType, _offset: int, _value: object) -> None:
    _tool.hear(_RETURN, code, sys._getframe(1))


_START: int = _monitoring.events.PY_START if _monitoring is not None else 0
_RETURN: int = _monitoring.events.PY_RETURN if _monitoring is not None else 0
_CALLBACKS: dict[int, Any] = {_START: _started, _RETURN: _returned}


def why_not() -> str:
    """Why nothing can be heard; "" where it can."""
    if _monitoring is None:
        return "Python before 3.12 has no sys.monitoring"
    free = any(_monitoring.get_tool(number) is None for number in TOOL_IDS)
    return "" if free or _tool.id is not None else "both tool ids of sys.monitoring are taken"


def on_start(function: Any, handler: Handler) -> Undo:
    """Call back when a function begins, a coroutine function when it first runs.

    Args:
        function: a Python function; of anything else nothing is heard.
        handler: takes the function's frame, whose arguments are set. It is switched off after its
            first failure; what it returns is raised in the function, before its first line.

    Returns:
        What ends that.
    """
    return _listen(_START, function, handler)


def on_return(function: Any, handler: Handler) -> Undo:
    """Call back when a function returns, with its frame, as `on_start` does."""
    return _listen(_RETURN, function, handler)


def _listen(event: int, function: Any, handler: Handler) -> Undo:
    if type(function) is not FunctionType:  # compiled, or somebody has replaced it
        return _nothing
    code = function.__code__
    guarded = until_failure(handler)
    if not _tool.add(event, code, guarded):
        return _nothing

    def undo() -> None:
        _tool.remove(event, code, guarded)

    return undo


def _nothing() -> None:
    """Undo what was not done."""
