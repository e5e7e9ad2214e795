"""The ASGI middleware."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ._safely import safely
from .installation import current, install, switched_off
from .model import Clue

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("loopsentry")


class LoopSentryMiddleware:
    """Explains loop failures of an ASGI application: http, websocket and lifespan.

    `app.add_middleware(LoopSentryMiddleware)`. It examines an exception that passes and raises it
    again; requests, responses and bodies are not touched. If `install()` has not been called when
    the first request arrives, it installs, and logs once that earlier loops are not recorded.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; on an exception, explain it and let it go on."""
        if not self.ready:
            self.ready = True
            _install_late()
            _tell_surroundings()
        token = _scope.set(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as exc:
            _examine(exc, scope)
            raise
        finally:
            _scope.reset(token)


_scope: ContextVar[Scope | None] = ContextVar("loopsentry.scope", default=None)


@safely
def _tell_surroundings() -> None:
    """Let a diagnosis that is made below the middleware know of the request."""
    installation = current()
    if installation is not None and _describe_current not in installation.registry.describers:
        installation.registry.describers.insert(0, _describe_current)


def _describe_current() -> dict[str, str] | None:
    scope = _scope.get()
    return describe_scope(scope) if scope is not None else None


@safely
def _install_late() -> None:
    if current() is None and not switched_off():
        install()
        logger.warning(
            "loopsentry was installed by its middleware: event loops and connections from before"
            " are not recorded. Call loopsentry.install() beside create_async_engine()."
        )


@safely
def _examine(exc: Exception, scope: Scope) -> None:
    installation = current()
    if installation is not None:
        installation.examiner.report(exc, Clue(framework=describe_scope(scope)))


def describe_scope(scope: Scope) -> dict[str, str]:
    """What was asked for: the method and the route's pattern, never the path with its values.

    FastAPI leaves the route in the scope; Starlette leaves the endpoint (starlette/routing.py),
    which is named instead.
    """
    kind = str(scope.get("type", ""))
    found = {"name": kind}
    pattern = getattr(scope.get("route"), "path", None)
    endpoint = getattr(scope.get("endpoint"), "__name__", None)
    what = pattern or (f"{endpoint}()" if endpoint else None)
    if what is not None:
        found["route"] = f"{scope.get('method', kind.upper())} {what}"
    return found
