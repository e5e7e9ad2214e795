"""aiohttp: a session on another loop than its own, which it notices in its time-outs."""

from __future__ import annotations

from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

from ._clients import hear_made, reader, sighter

PACKAGES = ("aiohttp", "aiosignal", "aiohappyeyeballs")
OPERATIONS = ("aiohttp.client",)

# aiohttp/helpers.py, TimerContext: the session's own loop has no current task.
read = reader("Timeout context manager should be used inside a task", PACKAGES)
sight = sighter("aiohttp", "ClientSession", "BaseConnector")


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear where sessions are made."""
    return hear_made(registry, "aiohttp", "ClientSession")
