"""The ASGI middleware."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

from ._safely import safely
from .installation import Installation, current, install, switched_off
from .model import Clue

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("loopsentry")


class LoopSentryMiddleware:
    """Explains loop failures of an ASGI application: http, websocket and lifespan.

    `app.add_middleware(LoopSentryMiddleware)`. It examines an exception that passes and raises it
    again; requests, responses and bodies are not touched, but for one thing: where the application
    runs in debug mode (`Starlette(debug=True)`, `FastAPI(debug=True)`) and has not begun to answer,
    the client is shown the diagnosis, as a page, JSON or text by its Accept header.

    If `install()` has not been called when the first request arrives, it installs, and logs once
    that earlier loops are not recorded.

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
        if known is None or not known.live:
            self._meet_installation()
        # A list, and no context manager below: both are on the path of every request.
        going_on = [scope]
        token = _request.set(going_on)
        in_debug = scope["type"] == "http" and getattr(scope.get("app"), "debug", False) is True
        answer = _Answer(send) if in_debug else None
        try:
            await self.app(scope, receive, answer or send)
        except Exception as exc:
            _examine(exc, scope)
            if answer is not None:
                await answer.show(exc, scope)
            raise
        finally:
            going_on.clear()
            try:  # noqa: SIM105 - three times faster than suppress()
                _request.reset(token)
            except ValueError:  # closed from another context than it was begun in
                pass

    def _meet_installation(self) -> None:
        """Install if nobody has; let diagnoses that are made below know of the request."""
        if not self._ready:
            self._ready = True
            _install_late()
        installation = current()
        if installation is not None:
            self._known = weakref.ref(installation)
            _tell_surroundings(installation)


class _Answer:
    """Sends what the application sends, and notes whether it has begun to answer.

    An answer that is sent here comes before that of Starlette's ServerErrorMiddleware, which
    raises the exception again all the same, and sends none when one has begun
    (starlette/middleware/errors.py).
    """

    def __init__(self, send: Send) -> None:
        self.send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        self.begun = self.begun or message["type"] == "http.response.start"
        await self.send(message)

    async def show(self, exc: Exception, scope: Scope) -> None:
        """Show a diagnosed failure to the client, if nothing was sent yet."""
        for message in () if self.begun else _messages(exc, scope) or ():
            await self.send(message)


@safely
def _messages(exc: Exception, scope: Scope) -> list[Message]:
    from .annotation import diagnosis_of
    from .debug_page import answer

    diagnosis = diagnosis_of(exc)
    return answer(diagnosis, exc, scope["headers"]) if diagnosis is not None else []


#: The scope of the request that is going on, while it goes on. Contexts are copied, into tasks and
#: by connections that outlive the request, and whatever stands in a variable lives as long as they
#: do: the list is emptied at the request's end, so that the program's state is let go of.
_request: ContextVar[list[Scope] | None] = ContextVar("loopsentry.request", default=None)
_told: weakref.WeakSet[Installation] = weakref.WeakSet()


@safely
def _tell_surroundings(installation: Installation) -> None:
    if installation not in _told:
        _told.add(installation)
        installation.registry.on_surroundings(_describe_current, first=True)


def _describe_current() -> dict[str, str] | None:
    going_on = _request.get()
    return describe_scope(going_on[0]) if going_on else None


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

    FastAPI leaves the route in the scope, Litestar its pattern (litestar/_asgi/asgi_router.py);
    Starlette leaves the endpoint (starlette/routing.py), which is named instead; Quart leaves
    nothing there.
    """
    kind = str(scope.get("type", ""))
    found = {"name": kind}
    pattern = getattr(scope.get("route"), "path", None) or scope.get("path_template")
    endpoint = getattr(scope.get("endpoint"), "__name__", None)
    what = pattern or (f"{endpoint}()" if endpoint else None) or _rule_in_context()
    if what is not None:
        found["route"] = f"{scope.get('method', kind.upper())} {what}"
    return found


def _rule_in_context() -> str | None:
    """The pattern of Quart's present request, from its context variables (quart/globals.py)."""
    known = {variable.name: value for variable, value in copy_context().items()}
    requests = (
        getattr(known.get("quart.request_ctx"), "request", None),
        getattr(known.get("quart.app_ctx"), "_request", None),  # since Quart 0.23
    )
    rules = (getattr(request, "url_rule", None) for request in requests)
    return next((rule.rule for rule in rules if rule is not None), None)
