"""SQLAlchemy, imported: where its pools open connections, take them out, and fail.

Listens on the class `Pool` and, for `handle_error` and `do_connect`, on the class `Engine`; both
reach engines made before. Nothing here runs for a statement that succeeds
(sqlalchemy/pool/events.py, sqlalchemy/engine/events.py).
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import AdaptedConnection, Connection, Engine, ExceptionContext
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
)
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm import session as sa_session
from sqlalchemy.pool import Pool, PoolProxiedConnection

from loopsentry import engines
from loopsentry._copies import copy_of
from loopsentry._frames import (
    Site,
    describe_all,
    first_argument,
    is_user,
    module_of,
    raised_outside,
    running_loop,
    task_name,
    thread_of,
    user_place,
    variables_in,
    walk_live,
)
from loopsentry._monitoring import on_start
from loopsentry._safely import until_failure
from loopsentry.exceptions import type_name_of
from loopsentry.guard import Guard
from loopsentry.holders import find_hands
from loopsentry.model import (
    Birth,
    Clue,
    Face,
    Holder,
    ObjectKind,
    Reporter,
    Sighting,
    Symptom,
    SymptomKind,
)
from loopsentry.registry import LoopRecord, Opening, Registry, Undo
from loopsentry.trails import Trail

from ._births import birth_here

engine_of = engines.engine_of

_BLOCK = "closed transaction inside context manager"
_SYMPTOMS: tuple[tuple[type[Exception], str, SymptomKind], ...] = (
    (sa_exc.MissingGreenlet, "", "missing-greenlet"),
    (sa_exc.IllegalStateChangeError, "", "illegal-state"),
    (sa_exc.PendingRollbackError, "", "invalid-transaction"),
    (sa_exc.InvalidRequestError, "session is provisioning a new connection", "provisioning"),
    (sa_exc.InvalidRequestError, "concurrent operations are not permitted", "provisioning"),
    (sa_exc.TimeoutError, "QueuePool limit of size", "exhausted"),
    (sa_exc.ResourceClosedError, "This Connection is closed", "released"),
    (sa_exc.ResourceClosedError, "This transaction is closed", "released"),
    (sa_exc.InvalidRequestError, _BLOCK, "ended"),
    (sa_exc.InvalidRequestError, "Session is already flushing", "taken"),
    (sa_exc.InvalidRequestError, "A transaction is already begun on this Session", "taken"),
    (sa_exc.InvalidRequestError, "connection has already initialized a SQLAlchemy", "taken"),
    (sa_exc.InvalidRequestError, "This Session has been permanently closed", "released"),
)


_OWN = ("sqlalchemy", "concurrent.futures")


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a complaint of SQLAlchemy's own; its wrappers only repeat the driver's."""
    kind_of_exc = type(exc)
    if not issubclass(kind_of_exc, sa_exc.SQLAlchemyError) or issubclass(
        kind_of_exc, sa_exc.DBAPIError
    ):
        return None
    for kind_of_error, part, kind in _SYMPTOMS:
        if issubclass(kind_of_exc, kind_of_error) and part in text:
            quoted = raised_outside(exc, _OWN)
            # What follows is the text of another exception, with its parameters.
            words = text.partition(" Original exception was:")[0]
            return Symptom(
                kind=kind,
                library="sqlalchemy",
                type=type_name_of(exc),
                text=part if quoted else words,
                quoted=quoted,
                sent=False,
            )
    return None


def sight(target: Any) -> Sighting | None:
    """Recognise sessions, connections, pools and engines; a transaction is what it belongs to.

    `Maker.begin()` leaves through the transaction alone (sqlalchemy/ext/asyncio/session.py,
    `_AsyncSessionContextManager`).
    """
    if issubclass(type(target), SessionTransaction | AsyncSessionTransaction):
        target = object.__getattribute__(target, "session")
    elif issubclass(type(target), AsyncTransaction):
        target = object.__getattribute__(target, "connection")
    for kinds, kind in _KINDS:
        if issubclass(type(target), kinds):
            inner = driver_connection_of(target) if kind == "connection" else None
            label = type(target).__name__
            return Sighting(
                kind=kind, label=label, library="sqlalchemy", target=target, inner=inner
            )
    return None


_KINDS: tuple[tuple[tuple[type, ...], ObjectKind], ...] = (
    ((Session, AsyncSession), "session"),
    ((Pool,), "pool"),
    ((Engine, AsyncEngine), "engine"),
    ((Connection, AsyncConnection, PoolProxiedConnection, AdaptedConnection), "connection"),
)


def face_of(symptom: Symptom, sites: list[Site]) -> Face | None:
    """Which form a missing greenlet or a nested loop has, from the frames of SQLAlchemy's call."""
    end = next((i for i, site in enumerate(sites) if is_user(site.frame)), len(sites))
    if symptom.kind == "nested-run":
        outside = (module_of(site.frame) for site in sites[end:])
        hooked = any(
            module.startswith(("sqlalchemy.event", "sqlalchemy.pool")) for module in outside
        )
        headline = "event loop started inside a hook of SQLAlchemy, which runs on one"
        return Face(name="hook", headline=headline) if hooked else None
    if _BLOCK in symptom.text:
        return Face(name="ended", headline="transaction ended by hand inside its block, then used")
    if symptom.kind != "missing-greenlet":
        return None
    # The outermost: to load a relation its object's key may have to be loaded first.
    for site in reversed(sites[:end]):
        if module_of(site.frame) == "sqlalchemy.orm.attributes" and site.code.co_name == "get":
            return _face_of_attribute(first_argument(site.frame), variables_in(site.frame))
    return _face_of_call(sites[:end], sites[end] if end < len(sites) else None)


def _face_of_call(sites: list[Site], caller: Site | None) -> Face | None:
    """What was called synchronously: a dynamic relationship, a function, a plain engine."""
    targets = [first_argument(site.frame) for site in sites]
    dynamic = next((target for target in targets if _is_dynamic(target)), None)
    if dynamic is not None:
        owner, key = type(dynamic.instance).__name__, str(dynamic.attr.key)
        headline = f"`{owner}.{key}` is a dynamic relationship, which queries without an await"
        return Face(name="dynamic", headline=headline, names={"attribute": key, "owner": owner})
    called = module_of(sites[-1].frame) if sites else ""
    whole = called in _WHOLE
    wanted = AsyncEngine if whole else AsyncSession
    if any(_is_beneath(target, wanted) for target in targets):
        if not whole and caller is not None:
            return _face_of_session_call(sites[-1], caller)
        headline = "a synchronous function of SQLAlchemy's called outside run_sync()"
        return Face(name="synchronous-function", headline=headline)
    if whole or called in _SYNCHRONOUS:
        headline = "an asynchronous driver used by a synchronous engine or session"
        return Face(name="synchronous-engine", headline=headline)
    return None


def _face_of_session_call(call: Site, caller: Site) -> Face:
    """Who called the session beneath an AsyncSession: a coroutine could have awaited instead."""
    headline = "the session beneath an AsyncSession called outside run_sync()"
    method, name = call.code.co_name, caller.code.co_qualname
    coroutine = caller.code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
    if coroutine and inspect.iscoroutinefunction(getattr(AsyncSession, method, None)):
        return Face(name="session-in-coroutine", headline=headline, names={"call": method})
    # A method has an argument more; of a coroutine only a part can be handed over.
    called = name if name.isidentifier() and not coroutine else "function"
    return Face(name="session-in-function", headline=headline, names={"called": called})


def _is_dynamic(target: Any) -> bool:
    """Whether a value is what a dynamic relationship gives; its class is private in 2.1."""
    return any(kind.__module__ == "sqlalchemy.orm.dynamic" for kind in type(target).__mro__)


def _is_beneath(target: Any, kind: type[AsyncEngine | AsyncSession]) -> bool:
    """Whether a value is what an AsyncEngine or an AsyncSession has beneath it."""
    beneath = Engine if issubclass(kind, AsyncEngine) else Session
    if not issubclass(type(target), beneath):
        return False
    return kind._retrieve_proxy_for_target(target, regenerate=False) is not None


def _face_of_attribute(attribute: Any, variables: Mapping[str, Any]) -> Face:
    """Why an attribute had to be loaded (sqlalchemy/orm/attributes.py: AttributeImpl.get)."""
    owner = getattr(getattr(attribute, "class_", None), "__name__", "")
    key = str(getattr(attribute, "key", "attribute"))
    state = variables.get("state")
    names = {"attribute": key, "owner": owner, "name": f"{owner}.{key}"}
    shown = f"`{owner}.{key}`"
    related = getattr(attribute, "uses_objects", False)
    if key in getattr(state, "expired_attributes", ()) and not related:
        if not getattr(state, "expired", True) and _is_made_by_server(state, key):
            headline = f"{shown} is made by the server and was read before it was fetched"
            return Face(name="server-generated", headline=headline, names=names)
        headline = f"{shown} was read after a commit had expired it"
        return Face(name="expired", headline=headline, names=names)
    headline = f"{shown} was loaded lazily, outside an await"
    return Face(name="lazy" if related else "deferred", headline=headline, names=names)


def _is_made_by_server(state: Any, key: str) -> bool:
    """Whether a column's value is computed when a row is written, so that a flush expires it."""
    (column, *_) = state.mapper.attrs[key].columns
    made = (column.server_default, column.server_onupdate, column.onupdate, column.computed)
    return any(each is not None for each in made)


#: What works through many statements: create_all(), reflect(), inspect().
_WHOLE = ("sqlalchemy.engine.reflection", "sqlalchemy.inspection", "sqlalchemy.sql.schema")
#: Where a synchronous call begins; asynchronous ones begin in sqlalchemy.ext.asyncio.
_SYNCHRONOUS = ("sqlalchemy.engine.base", "sqlalchemy.orm.session", "sqlalchemy.orm.query")


def driver_connection_of(target: Any) -> Any:
    """The driver's own connection below an SQLAlchemy connection, or None; opens nothing."""
    sync = target.sync_connection if isinstance(target, AsyncConnection) else target
    fairy = getattr(sync, "_dbapi_connection", None) if isinstance(sync, Connection) else sync
    return getattr(fairy, "driver_connection", None)


#: How to ask a connection for the loop it is bound to, and where it came from.
Kept = tuple[Callable[[], Any], "Birth | None"]


#: Seconds between two looks at who has the connections of a pool that keeps running dry.
SHORTAGES_APART = 1.0


class _Listeners:
    """What is attached while loopsentry is installed.

    Births are kept beside the pools' records: their `info` is the program's.
    """

    def __init__(self, registry: Registry, report: Reporter) -> None:
        self.registry = registry
        self.report = report
        self.kept: weakref.WeakKeyDictionary[Any, Kept] = weakref.WeakKeyDictionary()
        self.looked: weakref.WeakKeyDictionary[Pool, float] = weakref.WeakKeyDictionary()
        self.do_connect = until_failure(self._do_connect)
        self.connect = until_failure(self._connect)
        self.invalidate = until_failure(self._invalidate)
        self.handle_error = until_failure(self._handle_error)
        self.adopt = until_failure(self._adopt)
        self.cross = until_failure(self._cross)
        self.guard = Guard(registry, report, self._describe, self._inspect)
        self.checkout = self._make_checkout()

    def pairs(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Target, event and listener, for `engines.listen`."""
        return [
            (Engine, "do_connect", self.do_connect),
            (Engine, "handle_error", self.handle_error),
            (Pool, "connect", self.connect),
            (Pool, "checkout", self.checkout),
            (Pool, "invalidate", self.invalidate),
        ]

    # opening -------------------------------------------------------------------------------

    def _do_connect(self, dialect: Any, _record: Any, _args: Any, _kwargs: Any) -> None:
        if not dialect.is_async:
            return
        trail = Trail(sys._getframe(2))
        loop = self.registry.meet(running_loop(), lambda: describe_all(trail.sites))
        opening = Opening(
            place=trail.place,
            task=task_name(),
            loop=loop.info.id if loop else None,
            started=datetime.now(UTC),
        )
        for target in trail.first_arguments(_AT_WORK):
            if isinstance(target, Engine):
                self.registry.engines.add(target)
            elif isinstance(target, Session | AsyncSession):
                self.registry.openings[target] = opening

    def _connect(self, connection: Any, record: Any) -> None:
        driver_connection = getattr(connection, "driver_connection", connection)
        if driver_connection is connection:
            self.kept[record] = (_anywhere, None)
            return
        trail = Trail(sys._getframe(2))
        pool = pool_of(record)
        self.registry.meet_logger(getattr(getattr(pool, "logger", None), "name", None))
        birth = birth_here(self.registry, "connection", running_loop(), trail, pool)
        self.kept[record] = (self._owner_reference(driver_connection), birth)
        self.registry.bear(driver_connection, birth)
        at_work = list(trail.first_arguments(_AT_WORK))
        engine = next((each for each in at_work if isinstance(each, Engine)), None)
        if self.guard.mode_for(engine) != "annotate":
            self.arm(pool)
        for target in at_work:
            opening = self.registry.openings.get(target) if isinstance(target, Session) else None
            if opening is not None:
                opening.ended = datetime.now(UTC)
            if isinstance(target, Engine):  # one with a creator of its own tells no do_connect
                self.registry.engines.add(target)

    def _owner_reference(self, driver_connection: Any) -> Callable[[], Any]:
        """A call that gives the loop a connection is bound to, or the running one if to none."""
        owner = self.registry.owner_of(driver_connection)
        return weakref.ref(owner) if owner is not None else _anywhere

    def _stack(self) -> tuple[list[Site], LoopRecord | None]:
        sites = list(walk_live(sys._getframe(3)))
        loop = running_loop()
        return sites, self.registry.meet(loop, lambda: describe_all(sites))

    # taking out ----------------------------------------------------------------------------

    def _make_checkout(self) -> Callable[..., None]:
        # The only hook on a path without errors: a dictionary read, a call and an identity test.
        adopt, cross = self.adopt, self.cross
        read = self.kept.get

        def checkout(connection: Any, record: Any, _fairy: Any) -> None:
            kept = read(record)
            if kept is None:
                refusal = adopt(connection, record)
            elif kept[1] is not None and kept[0]() is not _anywhere():
                refusal = cross(connection, record, kept[1])
            else:
                return
            if refusal is not None:
                raise refusal

        return checkout

    def _adopt(self, connection: Any, record: Any) -> Exception | None:
        """Inspect a connection that is older than the records."""
        driver_connection = getattr(connection, "driver_connection", connection)
        pool = pool_of(record)
        birth = (
            self._inspect(driver_connection, pool) if driver_connection is not connection else None
        )
        if birth is None:
            self.kept[record] = (_anywhere, None)
            return None
        self.registry.meet_logger(getattr(getattr(pool, "logger", None), "name", None))
        kept = self.kept[record] = (self._owner_reference(driver_connection), birth)
        return self._cross(connection, record, birth) if kept[0]() is not _anywhere() else None

    def _inspect(self, driver_connection: Any, pool: Any = None) -> Birth | None:
        """What is known of a connection, or what it says of its own loop."""
        known = self.registry.birth_of(driver_connection)
        owner = self.registry.owner_of(driver_connection)
        if known is not None or owner is None:
            return known
        loop = self.registry.meet(owner, lambda: describe_all(thread_of(owner)))
        family = self.registry.family_of(pool)
        return self.registry.adopt(driver_connection, "connection", loop, family)

    def _cross(self, connection: Any, record: Any, birth: Birth) -> Exception | None:
        """Remember that a connection is taken out on a foreign loop, and decide what follows."""
        if self._is_let_pass(record, birth):
            return None
        sites, loop = self._stack()
        if loop is None:
            return None
        self.registry.note_crossing(birth, loop.info.id, user_place(sites))
        engine = _innermost_engine(sites)
        if self.guard.mode_for(engine) == "annotate":
            return None
        self.arm(pool_of(record))  # the pool closes what is refused
        return self.guard.stop(getattr(connection, "driver_connection", connection), birth, engine)

    def _is_let_pass(self, record: Any, birth: Birth) -> bool:
        """Whether the same crossing was noted before, and was nothing to stop or heal."""
        running = _anywhere()
        loop = self.registry.loops.get(running) if running is not None else None
        noted = self.registry.crossings.get(birth.serial)
        if loop is None or noted is None or noted[0] != loop.info.id:
            return False
        return self.registry.on_mismatch == "annotate" and not self.guard.guards(pool_of(record))

    # stopping and healing ------------------------------------------------------------------

    def arm(self, pool: Any) -> None:
        """Guard a pool's dialect."""
        self.guard.arm(getattr(pool, "_dialect", None), _engine_here)

    def arm_all(self) -> None:
        """Guard the dialects of all async engines in memory, if the process asks for a mode."""
        if self.registry.on_mismatch != "annotate":
            # By type(), not isinstance(): that runs the code of proxy objects.
            for each in gc.get_objects():
                if issubclass(type(each), Engine):
                    self.arm(each.pool)

    def _describe(self, driver_connection: Any, birth: Birth) -> Clue:
        engine = _engine_here()
        pool = engine.pool if engine is not None else None
        return Clue(target=driver_connection, birth=birth, engine=engine, pool=pool, live=True)

    # failing -------------------------------------------------------------------------------

    def _invalidate(self, connection: Any, record: Any, exc: BaseException | None) -> None:
        """Hear what no error event tells: a failed pre-ping, with the record and its birth."""
        _, birth = self.kept.get(record, (None, None))
        if exc is None or birth is None or isinstance(exc, sa_exc.DisconnectionError):
            return  # the pool's own word for a connection that it replaces now
        clue = Clue(
            target=getattr(connection, "driver_connection", None),
            birth=birth,
            pool=pool_of(record),
            live=True,
        )
        self._pass_on(exc, clue)

    def _handle_error(self, context: ExceptionContext) -> None:
        fairy = getattr(context.connection, "_dbapi_connection", None)
        driver_connection = getattr(fairy, "driver_connection", None)
        clue = Clue(
            target=driver_connection,
            birth=self.registry.birth_of(driver_connection) if fairy is not None else None,
            engine=context.engine,
            pool=context.engine.pool if context.engine is not None else None,
            wrapper=context.sqlalchemy_exception,
            live=True,
            reaches_program=not (context.is_pre_ping and context.is_disconnect),
            retire=(lambda: self._retire(context, fairy)) if fairy is not None else None,
        )
        self._pass_on(context.original_exception, clue, context.connection)

    def _retire(self, context: ExceptionContext, fairy: Any) -> None:
        loop = running_loop()
        here = self.registry.loops.get(loop) if loop is not None else None
        birth = self.registry.birth_of(fairy.driver_connection)
        crossing = self.registry.crossings.get(birth.serial) if birth is not None else None
        taken_here = here is not None and crossing is not None and crossing[0] == here.info.id
        self.guard.retire(fairy, context.dialect, birth, taken_here=taken_here)

    def _pass_on(self, exc: BaseException, clue: Clue, connection: Any = None) -> None:
        if isinstance(exc, Exception):
            self.report(exc, clue)
        elif isinstance(exc, asyncio.CancelledError):
            place = user_place(walk_live(sys._getframe(2)))
            self.registry.note_cancellation((clue.target, connection), place)

    def find_birth(self, driver_connection: Any) -> Birth | None:
        """The birth of a connection that takes no weak reference, as asyncmy's: by its record."""
        for record, (_, birth) in copy_of(self.kept.items):
            if getattr(record.dbapi_connection, "driver_connection", None) is driver_connection:
                return birth
        return None

    def note_shortage(self, frame: FrameType) -> None:
        """Find out who has a pool's connections while it says that it has none left.

        Later those who waited have given up, and their own are back in the pool. Under load many
        fail at once, of whom one in a moment is looked at.
        """
        exc, caller = first_argument(frame), frame.f_back
        pool: Any = first_argument(caller) if caller is not None else None
        if not (issubclass(type(exc), sa_exc.TimeoutError) and issubclass(type(pool), Pool)):
            return
        now = time.monotonic()
        if now - self.looked.get(pool, -SHORTAGES_APART) >= SHORTAGES_APART:
            self.looked[pool] = now
            self.registry.shortages[exc] = self.find_holders(getattr(pool, "home", pool))

    def find_holders(self, pool: Any) -> tuple[Holder, ...]:
        """Who has the connections of a pool: sessions, connections, and the tasks that use them."""
        out = {}
        for record, (_, birth) in copy_of(self.kept.items):
            fairy = record.fairy_ref() if record.fairy_ref is not None else None
            if pool_of(record) is pool and fairy is not None:
                out[id(fairy)] = (fairy, birth)
        sessions = _sessions_by_fairy() if out else {}
        hands, searched = find_hands(_fairies_of, set(out), self.registry.living_loops())
        return tuple(
            Holder(
                label=sessions.get(key, "AsyncConnection"),
                task=hands[key][0] if key in hands else None,
                place=hands[key][1] if key in hands else None,
                opened_at=birth.place if birth is not None else None,
                birth=birth.serial if birth is not None else None,
                searched=searched,
            )
            for key, (_fairy, birth) in out.items()
        )


def _sessions_by_fairy() -> dict[int, str]:
    """What holds each connection that is some session's (sqlalchemy/orm/session.py: _sessions)."""
    known = getattr(sa_session, "_sessions", {})
    return {
        fairy: "AsyncSession"
        for session in copy_of(known.values)
        if issubclass(type(session), Session)
        for fairy in _fairies_of(session)
    }


def _fairies_of(target: Any) -> list[int]:
    """Identities of the pooled connections that a session or a connection has now."""
    if issubclass(type(target), AsyncSession):
        target = target.sync_session
    if issubclass(type(target), Session):
        transaction = getattr(target, "_transaction", None)
        known = getattr(transaction, "_connections", None) or {}
        connections = [entry[0] for entry in copy_of(known.values)]
    elif issubclass(type(target), AsyncConnection):
        connections = [target.sync_connection]
    else:
        connections = [target] if issubclass(type(target), Connection) else []
    found = (getattr(each, "_dbapi_connection", None) for each in connections)
    return [id(fairy) for fairy in found if fairy is not None]


def attach(report: Reporter, registry: Registry) -> Undo:
    """Listen to every pool and engine of the process, older ones too.

    Returns:
        What stops that; the flags that SQLAlchemy sets for listeners stay set.
    """
    with ExitStack() as attached:
        listeners = _Listeners(registry, report)
        attached.callback(listeners.guard.disarm)
        attached.callback(registry.on_mode(until_failure(listeners.arm_all)))
        attached.callback(registry.on_lost_birth(listeners.find_birth))
        attached.callback(registry.on_holders(listeners.find_holders))
        attached.callback(on_start(sa_exc.HasDescriptionCode.__init__, listeners.note_shortage))
        for target, name, listener in listeners.pairs():
            attached.callback(engines.listen(target, name, listener))
        return attached.pop_all().close


_anywhere = asyncio._get_running_loop


def pool_of(record: Any) -> Any:
    """The pool of a connection record, which has no public name for it."""
    return getattr(record, "_ConnectionRecord__pool", None)


_AT_WORK = (Session, AsyncSession, Engine)


def _library_arguments(sites: list[Site]) -> Iterator[Any]:
    """The first arguments of library frames; the user's frames are left untouched."""
    for site in sites:
        if not is_user(site.frame):
            target = first_argument(site.frame)
            if isinstance(target, _AT_WORK):
                yield target


# engines -----------------------------------------------------------------------------------


def _innermost_engine(sites: list[Site]) -> Engine | None:
    """The engine, or the view of one, through which a connection is being taken out."""
    found = (target for target in _library_arguments(sites) if isinstance(target, Engine))
    return next(found, None)


def _engine_here() -> Engine | None:
    return _innermost_engine(list(walk_live(sys._getframe(1))))
