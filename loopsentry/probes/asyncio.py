"""asyncio and the loops that stand in for its own: their complaints and their objects."""

from __future__ import annotations

import asyncio
import dis
from typing import Any

from loopsentry._frames import module_of
from loopsentry.exceptions import traceback_of, type_name_of
from loopsentry.model import ObjectKind, Sighting, Symptom, SymptomKind

PACKAGES = ("asyncio", "uvloop", "nest_asyncio")

# Objects with asyncio.mixins._LoopBoundMixin keep their loop in `_loop` from the first wait on.
_PRIMITIVES = (
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.Semaphore,
    asyncio.Queue,
    asyncio.Barrier,
)

# CPython: futures.py, tasks.py, mixins.py, base_events.py, runners.py; uvloop: handles/handle.pyx.
_TEXTS: tuple[tuple[str, SymptomKind], ...] = (
    ("attached to a different loop", "foreign-loop"),
    ("is bound to a different event loop", "foreign-loop"),
    ("belongs to a different loop", "foreign-loop"),
    ("belong to different loops", "foreign-loop"),
    ("event loop other than the current one", "foreign-loop"),
    ("Event loop is closed", "loop-closed"),
    ("; the handler is closed", "loop-closed"),
    ("cannot be called from a running event loop", "nested-run"),
    ("This event loop is already running", "nested-run"),
    ("Cannot run the event loop while another loop is running", "nested-run"),
)


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of asyncio or uvloop."""
    if issubclass(type(exc), (asyncio.CancelledError, TimeoutError)):
        return _symptom("cancelled", exc, "")
    if not issubclass(type(exc), (RuntimeError, ValueError)):
        return None
    for part, kind in _TEXTS:
        if part in text:
            return _symptom(kind, exc, text)
    return None


# The two checks of CPython that can only be about one kind of object: tasks.py, mixins.py.
_ABOUT: tuple[tuple[str, ObjectKind], ...] = (
    ("attached to a different loop", "future"),
    ("future belongs to a different loop", "future"),
    ("is bound to a different event loop", "primitive"),
)


def _symptom(kind: SymptomKind, exc: BaseException, text: str) -> Symptom:
    about = next((kind for part, kind in _ABOUT if part in text), None)
    if about is not None and _said_by_others(exc):
        about = None
    return Symptom(kind=kind, library="asyncio", type=type_name_of(exc), text=text, about=about)


def _said_by_others(exc: BaseException) -> bool:
    """Whether a `raise` statement of somebody else's uses asyncio's words.

    A refused wait is thrown into the coroutine by the task (Lib/asyncio/tasks.py, Task.__step), so
    that its innermost frame stands at an `await`; a lock refuses in asyncio's own modules. What
    came from another process is raised by `concurrent.futures`.
    """
    innermost = traceback_of(exc)
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    frame, at = innermost.tb_frame, innermost.tb_lasti
    if module_of(frame).startswith(("asyncio", "concurrent.futures")):
        return False
    return frame.f_code.co_code[at : at + 1] == _RAISE


_RAISE = bytes([dis.opmap["RAISE_VARARGS"]])


def sight(target: Any) -> Sighting | None:
    """Recognise a lock, event, condition, semaphore, queue, barrier, future or task."""
    if issubclass(type(target), _PRIMITIVES):
        label = f"asyncio.{type(target).__name__}"
        loop = getattr(target, "_loop", None)
        return Sighting(kind="primitive", label=label, library="asyncio", target=target, loop=loop)
    if issubclass(type(target), asyncio.Future):
        label = "asyncio.Task" if issubclass(type(target), asyncio.Task) else "asyncio.Future"
        return Sighting(
            kind="future", label=label, library="asyncio", target=target, loop=target.get_loop()
        )
    return None
