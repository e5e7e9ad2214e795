"""A test or fixture on a loop that pytest-asyncio made."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "pytest-asyncio"
RANK = 70
PACKAGES = ("pytest_asyncio", "pytest", "_pytest", "pluggy", "xdist", "unittest")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the plugin's frames; the loop counts as started by the test or fixture on it."""
    if not any(frame.module.startswith("pytest_asyncio") for frame in stack):
        return None
    own = [frame.place for frame in stack if frame.coroutine and frame.user]
    return Recognition(context=NAME, runner="pytest-asyncio", started_by=own[-1] if own else None)
