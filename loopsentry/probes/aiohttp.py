"""aiohttp: a session on another loop than its own, which it notices in its time-outs."""

from __future__ import annotations

from loopsentry._frames import raised_outside
from loopsentry.exceptions import type_name_of
from loopsentry.model import Reporter, Symptom
from loopsentry.registry import Registry, Undo

from ._clients import hear_made, sighter

PACKAGES = ("aiohttp", "aiosignal", "aiohappyeyeballs")
OPERATIONS = ("aiohttp.client",)

# aiohttp/helpers.py, TimerContext: the session's own loop has no current task.
_TEXT = "Timeout context manager should be used inside a task"

sight = sighter("aiohttp", "ClientSession", "BaseConnector")


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate the one complaint that aiohttp itself has of a foreign loop."""
    if _TEXT not in text or not issubclass(type(exc), RuntimeError):
        return None
    quoted = raised_outside(exc, PACKAGES)
    return Symptom(
        kind="foreign-loop",
        library="aiohttp",
        type=type_name_of(exc),
        text=_TEXT,
        quoted=quoted,
        about=None if quoted else "client",
    )


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear where sessions are made."""
    return hear_made(registry, "aiohttp", "ClientSession")
