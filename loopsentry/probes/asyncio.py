"""asyncio and the loops that stand in for its own: their complaints and their objects."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import re
from types import FrameType
from typing import Any

from loopsentry._frames import (
    first_argument,
    raised_outside,
    variables_in,
)
from loopsentry._monitoring import on_start
from loopsentry._sockets import layers_of
from loopsentry._wording import LONGEST
from loopsentry.exceptions import type_name_of
from loopsentry.model import ObjectKind, Reporter, Sighting, Symptom, SymptomKind
from loopsentry.registry import Registry, Undo
from loopsentry.trails import Trail

from ._births import birth_here

PACKAGES = ("asyncio", "uvloop", "nest_asyncio")
# What came from another process is raised by `concurrent.futures`.
_OWN = ("asyncio", "concurrent.futures")

# Objects with asyncio.mixins._LoopBoundMixin keep their loop in `_loop` from the first wait on.
_PRIMITIVES = (
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.Semaphore,
    asyncio.Queue,
    asyncio.Barrier,
)

# CPython: futures.py, tasks.py, mixins.py, streams.py, base_events.py, runners.py; uvloop:
# handles/handle.pyx.
_TEXTS: tuple[tuple[str, SymptomKind], ...] = (
    ("attached to a different loop", "foreign-loop"),
    ("is bound to a different event loop", "foreign-loop"),
    ("belongs to a different loop", "foreign-loop"),
    ("belong to different loops", "foreign-loop"),
    ("event loop other than the current one", "foreign-loop"),
    ("while another coroutine is already waiting for incoming data", "busy"),
    ("Event loop is closed", "loop-closed"),
    ("; the handler is closed", "loop-closed"),
    ("cannot be called from a running event loop", "nested-run"),
    ("This event loop is already running", "nested-run"),
    ("Cannot run the event loop while another loop is running", "nested-run"),
)


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of asyncio or uvloop."""
    if issubclass(type(exc), (asyncio.CancelledError, TimeoutError)):
        return _symptom("cancelled", exc, "", "")
    if not issubclass(type(exc), (RuntimeError, ValueError)):
        return None
    for part, kind in _TEXTS:
        if part in text:
            return _symptom(kind, exc, text, part)
    return None


# The two checks of CPython that can only be about one kind of object: tasks.py, mixins.py.
_ABOUT: tuple[tuple[str, ObjectKind], ...] = (
    ("attached to a different loop", "future"),
    ("future belongs to a different loop", "future"),
    ("is bound to a different event loop", "primitive"),
)


def _symptom(kind: SymptomKind, exc: BaseException, text: str, part: str) -> Symptom:
    about = next((kind for words, kind in _ABOUT if words in text), None)
    # A refused wait is thrown into the coroutine by its task, so that the innermost frame stands
    # at an `await` (Lib/asyncio/tasks.py, Task.__step); a lock refuses in asyncio's own modules.
    quoted = kind != "cancelled" and raised_outside(exc, _OWN)
    return Symptom(
        kind=kind,
        library="asyncio",
        type=type_name_of(exc),
        text=part if quoted else _shorten(text, part),
        quoted=quoted,
        about=None if quoted else about,
        # Lib/asyncio/streams.py, StreamReader._wait_for_data: somebody is in it at that moment.
        under_way=kind == "busy" and not quoted,
    )


def _shorten(text: str, part: str) -> str:
    """Asyncio's words without the objects that it shows: their `repr` holds the program's data.

    A queue shows its items, a task its coroutine and result (Lib/asyncio/queues.py,
    base_tasks.py).
    """
    if part == "attached to a different loop" and "got Future" in text:
        return f"Task ... got Future ... {part}"
    if part == "is bound to a different event loop":
        shown = re.match(r"<([\w.]+)", text)
        return f"{shown[1] if shown else 'it'} ... {part}"
    return text if len(text) <= LONGEST else part


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
    if issubclass(type(target), _STREAMS):
        loop = getattr(target, "_loop", None)
        # The transport at the bottom is what was heard of when it was made.
        bottom = (layers_of(target) or [target])[-1]
        return Sighting(kind="client", label="stream", library="asyncio", target=bottom, loop=loop)
    return None


# What other clients read from and write to; each keeps its loop (Lib/asyncio/streams.py,
# selector_events.py, proactor_events.py, sslproto.py).
_STREAMS = (
    asyncio.StreamReader,
    asyncio.StreamWriter,
    asyncio.StreamReaderProtocol,
    asyncio.BaseTransport,
)


# where sockets are opened --------------------------------------------------------------------


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear of each connection that a client of some library opens on asyncio's own loop.

    From Python 3.12, not on uvloop, whose transports are compiled (Lib/asyncio/selector_events.py).

    Returns:
        What ends that.
    """

    def is_made(frame: FrameType) -> None:
        given = variables_in(frame)
        if given.get("server") is not None:
            return  # accepted by a server: of those there are many, and nobody keeps them
        birth = birth_here(registry, "client", given.get("loop"), Trail(frame))
        registry.bear(first_argument(frame), birth)

    kind = getattr(asyncio.selector_events, "_SelectorSocketTransport", None)
    return on_start(getattr(kind, "__init__", None), is_made)
