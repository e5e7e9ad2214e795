"""An application below Starlette's TestClient, which runs it on a loop in a thread of its own."""

from __future__ import annotations

from typing import Any

from loopsentry.model import Recognition, Stack

NAME = "testclient"
RANK = 80
PACKAGES = ("starlette", "fastapi", "httpx", "httpx2", "litestar")

_CLIENTS = ("starlette.testclient", "litestar.testing")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the client's frames in the thread that waits for the answer."""
    own = [frame.target for frame in stack if frame.module.startswith(_CLIENTS)]
    if not own:
        return None
    followed = ("testclient-context",) if any(map(_is_entered, own)) else ()
    return Recognition(context=NAME, runner="TestClient", followed=followed)


def _is_entered(target: Any) -> bool:
    """Whether the client is inside `with`: it keeps its portal then (starlette/testclient.py).

    Its transport and its websocket sessions, which may stand in the stack instead, have the
    client's bound method that gives a portal.
    """
    if not any(_is_own(kind) for kind in type(target).__mro__):
        return False
    client = getattr(getattr(target, "portal_factory", None), "__self__", target)
    named = any(kind.__name__ == "TestClient" for kind in type(client).__mro__)
    return named and getattr(client, "portal", None) is not None


def _is_own(kind: type) -> bool:
    """Whether a class is the client's library's; of any other object nothing must be asked."""
    return type(kind.__module__) is str and kind.__module__.startswith(_CLIENTS)
