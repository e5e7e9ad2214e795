"""asyncpg: its complaints, what its objects say of their own loop, and where they are made."""

from __future__ import annotations

import sys
import weakref
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any

from loopsentry._frames import (
    describe_all,
    first_argument,
    is_inside_block,
    module_of,
    raised_outside,
    running_loop,
    split_at_loop,
    user_place,
    variables_in,
    walk_live,
    walk_traceback,
)
from loopsentry._monitoring import on_return, on_start
from loopsentry.exceptions import traceback_of, type_name_of
from loopsentry.holders import find_hands
from loopsentry.mismatch import LoopMismatchError
from loopsentry.model import Birth, Clue, Holder, Reporter, Sighting, Symptom, SymptomKind
from loopsentry.registry import Registry, Undo
from loopsentry.trails import Trail

from ._births import birth_here, when_there

PACKAGES = ("asyncpg",)
OPERATIONS = ("asyncpg.connection", "asyncpg.pool", "asyncpg.transaction", "asyncpg.cursor")

_RELEASED = "connection has been released back to the pool"
_NO_TRANSACTION = "cursor cannot be created outside of a transaction"

# asyncpg/protocol/protocol.pyx (_check_state) refuses before a byte is sent; transaction.py and
# connection.py likewise.
_TEXTS: tuple[tuple[str, SymptomKind, bool | None], ...] = (
    ("cannot perform operation: another operation is in progress", "busy", False),
    ("cannot use Connection.transaction() in a manually started", "stale-transaction", False),
    (_RELEASED, "released", False),
    ("pool is closed", "released", False),
    ("pool is closing", "released", False),
    ("connection was closed in the middle of operation", "disconnected", True),
    ("underlying connection is closed", "disconnected", False),
    ("connection is closed", "disconnected", False),
    (_NO_TRANSACTION, "released", False),
    # The state after an error that no operation awaits: the server ended it (coreproto.pyx).
    ("; another operation (2)", "disconnected", None),
    ("; another operation (", "busy", None),
    ("terminating connection due to", "disconnected", None),
    # SQLAlchemy numbers its savepoints: two tasks' do not nest.
    ('savepoint "sa_savepoint_', "taken", True),
    ("canceling statement due to user request", "cut-off", True),
    ("connection_lost() called", "disconnected", None),
)

_TYPES = ("asyncpg.", "sqlalchemy.dialects.postgresql.asyncpg.")
_OWN = ("asyncpg", "sqlalchemy", "concurrent.futures")
_SERVER_WORD = "terminating connection due to"


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of asyncpg, native or as SQLAlchemy's adapter repeats it."""
    if issubclass(type(exc), TimeoutError):
        return _waited_for_pool(exc)
    name = type_name_of(exc)
    if not name.startswith(_TYPES):
        return None
    for part, kind, sent in _TEXTS:
        if part in text and (part != _NO_TRANSACTION or _outlived_transaction(exc)):
            quoted = raised_outside(exc, _OWN)
            lost = part == _RELEASED and _is_still_inside(exc)
            under_way = kind == "busy" and _refused_by_section(exc)
            return Symptom(
                kind="disconnected" if lost else kind,
                library="asyncpg",
                type=name,
                text=part if quoted else text,
                quoted=quoted,
                sent=sent,
                under_way=under_way,
                by_server=lost or _SERVER_WORD in text,
                begun=kind == "disconnected" and _is_in_transaction(exc),
            )
    return None


def _is_in_transaction(exc: BaseException) -> bool:
    """Whether SQLAlchemy's adapter failed after its BEGIN, which a pre-ping cannot foresee.

    It sends that before the first statement (sqlalchemy/dialects/postgresql/asyncpg.py:
    _start_transaction), so that what died while it was idle fails there.
    """
    sites = list(walk_traceback(traceback_of(exc)))
    inside = [site for site in sites if module_of(site.frame) == _ADAPTER]
    names = {site.code.co_name for site in inside}
    if not names or "_start_transaction" in names or "ping" in names:
        return False
    cursors = (getattr(first_argument(site.frame), "_adapt_connection", None) for site in inside)
    return not any(getattr(each, "isolation_level", "") == "autocommit" for each in cursors)


_ADAPTER = "sqlalchemy.dialects.postgresql.asyncpg"


def _waited_for_pool(exc: BaseException) -> Symptom | None:
    """Whether the time was up while no connection of a pool was free (asyncpg/pool.py: acquire)."""
    for site in walk_traceback(traceback_of(exc)):
        if site.code.co_name == "_acquire" and module_of(site.frame) == "asyncpg.pool":
            pool = first_argument(site.frame)
            if is_pool(pool) and pool._queue.empty() and pool._holders:
                name = type_name_of(exc)
                text = "no connection of the pool came free in time"
                return Symptom(kind="exhausted", library="asyncpg", type=name, text=text)
    return None


def _is_still_inside(exc: BaseException) -> bool:
    """Whether it failed inside the block that took the connection out of its pool.

    A connection that is lost goes back to its pool at once, and says so in the words of one that
    was released (asyncpg/pool.py: PoolConnectionHolder._release_on_close).
    """
    sites = walk_traceback(traceback_of(exc))
    proxies = (first_argument(site.frame) for site in sites)
    lost = [each for each in proxies if type_name_of(each) == "asyncpg.pool.PoolConnectionProxy"]
    return any(is_inside_block(site, each) for each in lost[:1] for site in sites)


def _outlived_transaction(exc: BaseException) -> bool:
    """Whether a cursor that exists was used after its transaction (asyncpg/cursor.py: Cursor)."""
    callers = [site.code.co_name for site in walk_traceback(traceback_of(exc))]
    return bool(_CURSOR_CALLS.intersection(callers[:2]))


_CURSOR_CALLS = frozenset({"fetch", "fetchrow", "forward"})


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
    """Recognise a connection, what works on one, or a pool, by its own recorded loop.

    A connection may be borrowed from a pool, and prepared statements, cursors and transactions have
    one (asyncpg/connresource.py: ConnectionResource).
    """
    asyncpg = sys.modules.get("asyncpg")
    if asyncpg is None:
        return None
    if issubclass(type(target), asyncpg.connresource.ConnectionResource):
        target = getattr(target, "_connection", None)
    if issubclass(type(target), asyncpg.pool.PoolConnectionProxy):
        target = getattr(target, "_con", None)
    if issubclass(type(target), asyncpg.connection.Connection):
        borrowed = getattr(target, "_proxy", None) is not None
        return Sighting(
            kind="connection",
            label="asyncpg connection",
            library="asyncpg",
            target=target,
            loop=getattr(target, "_loop", None),
            closed=target.is_closed(),
            aborted=getattr(target, "_aborted", False) is True,
            block="pool.acquire()" if borrowed else "",
        )
    if is_pool(target):
        return Sighting(
            kind="pool",
            label="asyncpg pool",
            library="asyncpg",
            target=target,
            loop=getattr(target, "_loop", None),
        )
    return None


def is_pool(target: Any) -> bool:
    """Whether an object is a pool of asyncpg's own."""
    asyncpg = sys.modules.get("asyncpg")
    return asyncpg is not None and issubclass(type(target), asyncpg.pool.Pool)


# where they are made and taken ---------------------------------------------------------------


def attach(report: Reporter, registry: Registry) -> Undo:
    """Hear of connections, pools, and connections taken out of pools (Python 3.12).

    asyncpg is never imported for this: it is listened to from the first loop's start after which it
    is there (asyncpg/connection.py, pool.py: PoolConnectionHolder).

    Returns:
        What ends that.
    """
    heard = _Heard(report, registry)
    with ExitStack() as attached:
        attached.callback(when_there(registry, "asyncpg", heard.listen))
        attached.callback(registry.on_lost_birth(heard.find_pool))
        attached.callback(registry.on_holders(heard.find_holders))
        return attached.pop_all().close


class _Heard:
    """What asyncpg is heard to do."""

    def __init__(self, report: Reporter, registry: Registry) -> None:
        self.report = report
        self.registry = registry
        self.pools: weakref.WeakKeyDictionary[Any, Birth] = weakref.WeakKeyDictionary()

    def listen(self, asyncpg: Any) -> Undo:
        """Hear of what asyncpg makes and takes out."""
        with ExitStack() as attached:
            attached.callback(on_start(asyncpg.Connection.__init__, self.connection_is_made))
            for end in (asyncpg.Connection.close, asyncpg.Connection.terminate):
                attached.callback(on_start(end, self.connection_is_ended))
            attached.callback(on_return(asyncpg.Pool._initialize, self.pool_is_ready))
            holder = asyncpg.pool.PoolConnectionHolder
            attached.callback(on_start(holder.acquire, self.is_taken))
            return attached.pop_all().close

    def connection_is_made(self, frame: FrameType) -> None:
        """Remember where a connection is opened; SQLAlchemy's pool may know more a moment later."""
        self.registry.look()
        loop = variables_in(frame).get("loop")
        trail = Trail(frame)
        birth = birth_here(self.registry, "connection", loop, trail, _queue_in(trail.frames))
        self.registry.bear(first_argument(frame), birth)

    def connection_is_ended(self, frame: FrameType) -> None:
        """Remember where the program ended a connection that was open."""
        connection = first_argument(frame)
        if not connection.is_closed():
            within, _ = split_at_loop(list(walk_live(frame)))
            self.registry.note_closing(connection, user_place(within))

    def pool_is_ready(self, frame: FrameType) -> None:
        """Remember where a pool was opened, by its queue: a pool takes no weak reference."""
        pool = first_argument(frame)
        self.pools[pool._queue] = birth_here(self.registry, "pool", pool._loop, Trail(frame))

    def find_pool(self, target: Any) -> Birth | None:
        """Where a pool was opened."""
        queue = getattr(target, "_queue", None) if is_pool(target) else None
        return self.pools.get(queue) if queue is not None else None

    def find_holders(self, target: Any) -> tuple[Holder, ...]:
        """Who has the connections of a pool."""
        if not is_pool(target):
            return ()
        out = [h._con for h in target._holders if h._con is not None and h._in_use is not None]
        loops = self.registry.living_loops()
        hands, searched = find_hands(_connection_in, set(map(id, out)), loops)
        births = [self.registry.birth_of(connection) for connection in out]
        return tuple(
            Holder(
                label="asyncpg connection",
                task=hands[id(each)][0] if id(each) in hands else None,
                place=hands[id(each)][1] if id(each) in hands else None,
                opened_at=birth.place if birth is not None else None,
                birth=birth.serial if birth is not None else None,
                searched=searched,
            )
            for each, birth in zip(out, births, strict=True)
        )

    def is_taken(self, frame: FrameType) -> Exception | None:
        """Note a connection taken out on another loop; refuse it where that is asked for."""
        holder = first_argument(frame)
        running = running_loop()
        pool = getattr(holder, "_pool", None)
        if running is None or getattr(pool, "_loop", running) is running:
            return None
        sites = list(walk_live(frame))
        loop = self.registry.meet(running, lambda: describe_all(sites))
        connection = getattr(holder, "_con", None)
        target = connection if connection is not None else pool
        birth = self.registry.birth_of(target)
        if birth is not None and loop is not None:
            self.registry.note_crossing(birth, loop.info.id, user_place(sites))
        if self.registry.on_mismatch != "raise":
            return None
        error = LoopMismatchError("this pool belongs to another event loop; nothing was sent")
        clue = Clue(target=target, birth=birth, live=True, action="raised")
        error.diagnosis = self.report(error, clue)
        return error


def _connection_in(target: Any) -> list[int]:
    """The identity of the connection that was borrowed from a pool."""
    asyncpg = sys.modules["asyncpg"]
    borrowed = issubclass(type(target), asyncpg.pool.PoolConnectionProxy)
    return [id(getattr(target, "_con", None))] if borrowed else []


def _queue_in(frames: list[FrameType]) -> Any:
    """The queue of the pool for which a connection is being opened, if it is for one."""
    for frame in frames:
        if module_of(frame) == "asyncpg.pool":
            return getattr(getattr(first_argument(frame), "_pool", None), "_queue", None)
    return None
