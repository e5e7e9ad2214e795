"""A request or a lifespan handler on uvicorn's loop."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "uvicorn"
RANK = 50
PACKAGES = ("uvicorn", "h11", "httptools", "websockets", "watchfiles")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise uvicorn's server loop, however it was started."""
    if any(frame.module == "uvicorn.server" for frame in stack):
        return Recognition(context=NAME, runner="uvicorn.run")
    return None
