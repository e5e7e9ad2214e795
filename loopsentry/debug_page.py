"""What a client gets in debug mode instead of a bare 500: a page, JSON or text, as it accepts."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._frames import is_user, place_of, walk_traceback
from .exceptions import traceback_of
from .model import Diagnosis

if TYPE_CHECKING:
    from starlette.types import Message

_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def answer(
    diagnosis: Diagnosis, exc: BaseException, headers: Iterable[tuple[bytes, bytes]]
) -> list[Message]:
    """The messages of an ASGI response with status 500 that tells a diagnosis.

    Args:
        diagnosis: what is told.
        exc: the exception that ended the request.
        headers: those of the request.
    """
    nonce = secrets.token_urlsafe(16)
    kind, text = _written(diagnosis, exc, _accepted(headers), nonce)
    body = text.encode("utf-8", "backslashreplace")
    answered = {
        "content-type": f"{kind}; charset=utf-8",
        "content-length": str(len(body)),
        "content-security-policy": _POLICY.format(nonce=nonce),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    raw = [(name.encode(), value.encode()) for name, value in answered.items()]
    return [
        {"type": "http.response.start", "status": 500, "headers": raw},
        {"type": "http.response.body", "body": body},
    ]


def _accepted(headers: Iterable[tuple[bytes, bytes]]) -> str:
    told = b",".join(value for name, value in headers if name.lower() == b"accept")
    return told.decode("latin-1").lower()


def _written(
    diagnosis: Diagnosis, exc: BaseException, accepted: str, nonce: str
) -> tuple[str, str]:
    from .renderers import html, json, plain

    if "text/html" in accepted:
        sites = walk_traceback(traceback_of(exc))
        frames = [place_of(site) for site in reversed(sites) if is_user(site.frame)]
        return "text/html", html.render(diagnosis, nonce=nonce, frames=frames)
    if "json" in accepted:
        return "application/json", json.render(diagnosis)
    return "text/plain", plain.render(diagnosis, verbose=True)
