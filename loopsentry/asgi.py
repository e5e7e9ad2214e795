"""The ASGI middleware."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ._safely import safely
from .installation import Installation, current, install, switched_off
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
        self._ready = False
        self._known: Callable[[], Installation | None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; on an exception, explain it and let it go on."""
        known = self._known()
        if known is None or known is not current():
            self._meet_installation()
        request = _Request(scope)
        token = _request.set(request)
        try:
            await self.app(scope, receive, send)
        except Exception as exc:
            _examine(exc, scope)
            raise
        finally:
            request.scope = None
            with suppress(ValueError):  # closed from another context than it was begun in
                _request.reset(token)

    def _meet_installation(self) -> None:
        """Install if nobody has; let diagnoses that are made below know of the request."""
        if not self._ready:
            self._ready = True
            _install_late()
        installation = current()
        if installation is not None:
            self._known = weakref.ref(installation)
            _tell_surroundings(installation)


class _Request:
    """What is going on, while it goes on.

    Contexts are copied, into tasks and by connections that outlive the request; whatever stands in
    a variable lives as long as they do. So the scope, with all the program's state, is let go of.
    """

    __slots__ = ("scope",)

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope


_request: ContextVar[_Request | None] = ContextVar("loopsentry.request", default=None)
_told: weakref.WeakSet[Installation] = weakref.WeakSet()


@safely
def _tell_surroundings(installation: Installation) -> None:
    if installation not in _told:
        _told.add(installation)
        installation.registry.on_surroundings(_describe_current, first=True)


def _describe_current() -> dict[str, str] | None:
    request = _request.get()
    return describe_scope(request.scope) if request is not None and request.scope else None


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
