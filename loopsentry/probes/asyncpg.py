"""asyncpg: its complaints, and what its connections and pools say of their own loop."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from loopsentry._frames import raised_outside
from loopsentry.exceptions import type_name_of
from loopsentry.model import Sighting, Symptom, SymptomKind

PACKAGES = ("asyncpg",)
OPERATIONS = ("asyncpg.connection", "asyncpg.pool", "asyncpg.transaction", "asyncpg.cursor")

# asyncpg/protocol/protocol.pyx (_check_state) refuses before a byte is sent; transaction.py and
# connection.py likewise.
_TEXTS: tuple[tuple[str, SymptomKind, bool | None], ...] = (
    ("cannot perform operation: another operation is in progress", "busy", False),
    ("cannot use Connection.transaction() in a manually started", "stale-transaction", False),
    ("connection has been released back to the pool", "released", False),
    ("connection was closed in the middle of operation", "disconnected", True),
    ("underlying connection is closed", "disconnected", False),
    ("connection is closed", "disconnected", False),
    ("; another operation (", "busy", None),
    ("terminating connection due to", "disconnected", None),
    ("connection_lost() called", "disconnected", None),
)

_TYPES = ("asyncpg.", "sqlalchemy.dialects.postgresql.asyncpg.")
_OWN = ("asyncpg", "sqlalchemy", "concurrent.futures")
_SERVER_WORD = "terminating connection due to"


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of asyncpg, native or as SQLAlchemy's adapter repeats it."""
    name = type_name_of(exc)
    if not name.startswith(_TYPES):
        return None
    quoted = raised_outside(exc, _OWN)
    for part, kind, sent in _TEXTS:
        if part in text:
            under_way = kind == "busy" and _refused_by_section(exc)
            return Symptom(
                kind=kind,
                library="asyncpg",
                type=name,
                text=part if quoted else text,
                quoted=quoted,
                sent=sent,
                under_way=under_way,
                by_server=_SERVER_WORD in text,
            )
    return None


def _refused_by_section(exc: BaseException) -> bool:
    """Whether the connection's exclusive section refused: somebody is inside it at that moment.

    `asyncpg/connection.py: _Atomic` is left on every way out, a cancellation's too, so that it
    cannot be occupied by what is over, as the protocol's own state can.
    """
    traceback: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(exc)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    frame = traceback.tb_frame
    return frame.f_code.co_name == "__enter__" and "_acquired" in frame.f_code.co_names


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, one borrowed from a pool, or a pool, by its own recorded loop."""
    asyncpg = sys.modules.get("asyncpg")
    if asyncpg is None:
        return None
    if issubclass(type(target), asyncpg.pool.PoolConnectionProxy):
        target = getattr(target, "_con", None)
    if issubclass(type(target), asyncpg.connection.Connection):
        return Sighting(
            kind="connection",
            label="asyncpg connection",
            library="asyncpg",
            target=target,
            loop=getattr(target, "_loop", None),
            closed=target.is_closed(),
        )
    if issubclass(type(target), asyncpg.pool.Pool):
        return Sighting(
            kind="pool",
            label="asyncpg pool",
            library="asyncpg",
            target=target,
            loop=getattr(target, "_loop", None),
        )
    return None
