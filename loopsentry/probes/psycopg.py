"""psycopg: its complaints, and its connections, bound to no loop between operations."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry._frames import first_argument, raised_outside, walk_traceback
from loopsentry.exceptions import traceback_of, type_name_of
from loopsentry.model import Sighting, Symptom, SymptomKind

PACKAGES = ("psycopg", "psycopg_pool")
OPERATIONS = ("psycopg.connection_async", "psycopg.cursor_async", "psycopg_pool.pool_async")

# psycopg/_connection_base.py, generators.py, waiting.py; libpq's and the server's own words.
# psycopg/waiting.py: the socket of a connection that waits is only closed from this side. The
# second are the operating system's words, which older versions repeat.
_SOCKET_CLOSED = ("connection socket closed", "Bad file descriptor")

_TEXTS: tuple[tuple[str, SymptomKind], ...] = (
    ("terminating connection due to", "disconnected"),
    ("server closed the connection unexpectedly", "disconnected"),
    ("the connection is lost", "disconnected"),
    ("the connection is closed", "disconnected"),
    (_SOCKET_CLOSED[0], "cut-off"),
    (_SOCKET_CLOSED[1], "cut-off"),
    ("the cursor is closed", "released"),
    ("is already closed", "released"),  # psycopg_pool/base.py: PoolClosed
)
_SERVER_WORDS = ("terminating connection due to", "server closed the connection unexpectedly")
_OWN = ("psycopg", "psycopg_pool", "sqlalchemy", "concurrent.futures")


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of psycopg or psycopg_pool."""
    name = type_name_of(exc)
    if not name.startswith(("psycopg.", "psycopg_pool.")):
        return None
    if name == "psycopg_pool.PoolTimeout":
        return Symptom(kind="exhausted", library="psycopg", type=name, text=text)
    for part, kind in _TEXTS:
        if part in text:
            quoted = raised_outside(exc, _OWN)
            at_work = part in _SOCKET_CLOSED
            return Symptom(
                kind="released" if not at_work and _was_closed_here(exc) else kind,
                library="psycopg",
                type=name,
                text=part if quoted else text,
                quoted=quoted,
                by_program=at_work,
                by_server=any(words in text for words in _SERVER_WORDS),
            )
    return None


def _was_closed_here(exc: BaseException) -> bool:
    """Whether the program itself closed the connection: it is closed, and nothing broke it."""
    for site in walk_traceback(traceback_of(exc)):
        target = first_argument(site.frame)
        if _is_connection(target):
            return bool(target.closed and not target.broken)
    return False


def _is_connection(target: Any) -> bool:
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and issubclass(type(target), psycopg.AsyncConnection)


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, which survives a change of loop while it is idle, or a cursor's."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is not None and issubclass(type(target), psycopg.AsyncCursor):
        target = target.connection
    if not _is_connection(target):
        return None
    # A pool's connections have this, which is None in the pool (psycopg/_connection_base.py).
    pooled = hasattr(target, "_pool")
    return Sighting(
        kind="connection",
        label="psycopg connection",
        library="psycopg",
        target=target,
        tolerant=True,
        closed=target.closed,
        block="pool.connection()" if pooled else "await psycopg.AsyncConnection.connect(dsn)",
    )
