"""An application below Starlette's TestClient, which runs it on a loop in a thread of its own."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "testclient"
RANK = 80
PACKAGES = ("starlette", "fastapi", "httpx", "httpx2", "litestar")

_CLIENTS = ("starlette.testclient", "litestar.testing")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the client's frames in the thread that waits for the answer."""
    if any(frame.module.startswith(_CLIENTS) for frame in stack):
        return Recognition(context=NAME, runner="TestClient")
    return None
