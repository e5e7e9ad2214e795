"""What happens when a connection is taken out on a foreign event loop: raise, or replace it.

In mode "annotate" nothing here is used. Otherwise the methods of an engine's own dialect that ping
and close connections are wrapped, on the instance: SQLAlchemy pings before its `checkout` event,
and closes the connection of a refused checkout itself (sqlalchemy/pool/base.py: `_checkout`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import weakref
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.util import greenlet_spawn

from ._copies import copy_of
from ._safely import safely
from ._sockets import bury, cut, end, keep
from .mismatch import HealedMismatchError, LoopMismatchError
from .model import MODES, Birth, Clue, Mode, Reporter, mode_of
from .registry import Registry

logger = logging.getLogger("loopsentry")

#: The execution option that sets the mode of one engine.
OPTION = "loopsentry_on_mismatch"
TEXT = "this connection belongs to another event loop; nothing was sent"

_WRAPPED = ("do_ping", "do_close", "do_terminate")

Clues = Callable[[Any, Birth], Clue]
Births = Callable[[Any], Birth | None]


class Guard:
    """Stops or heals crossings, on the dialects of the engines for which that was asked.

    Args:
        registry: knows the mode of the process, and where connections came from.
        report: makes and tells a diagnosis.
        describe: makes a clue of a driver's connection and its birth.
        birth_of: knows or inspects where a driver's connection came from.
    """

    def __init__(
        self, registry: Registry, report: Reporter, describe: Clues, birth_of: Births
    ) -> None:
        self.registry = registry
        self.report = report
        self.describe = describe
        self.birth_of = birth_of
        self._armed: weakref.WeakSet[Dialect] = weakref.WeakSet()
        self._closing: set[asyncio.Task[Any]] = set()
        self._complained: set[str] = set()

    # which mode ----------------------------------------------------------------------------

    def mode_for(self, engine: Engine | None) -> Mode:
        """What an engine asks for in its execution options, else what the process does."""
        asked = engine.get_execution_options().get(OPTION) if engine is not None else None
        if asked is None:
            return self.registry.on_mismatch
        mode = mode_of(asked)
        if mode is not None:
            return mode
        if str(asked) not in self._complained:
            self._complained.add(str(asked))
            logger.warning(
                "the execution option %s=%r is not valid; valid are %s; using %s",
                OPTION,
                asked,
                ", ".join(MODES),
                self.registry.on_mismatch,
            )
        return self.registry.on_mismatch

    # the decision --------------------------------------------------------------------------

    def stop(self, driver_connection: Any, birth: Birth, engine: Engine | None) -> Exception | None:
        """Decide what a crossing leads to.

        Returns:
            The exception to raise at checkout: a `LoopMismatchError` for the program, or a
            `DisconnectionError`, at which the pool opens a new connection; None to go on.
        """
        mode = self.mode_for(engine)
        if mode == "annotate":
            return None
        clue = self.describe(driver_connection, birth)
        if mode == "raise":
            error = LoopMismatchError(TEXT)
            error.diagnosis = self.report(error, replace(clue, action="raised"))
            return error
        self.report(
            HealedMismatchError(TEXT), replace(clue, action="reconnected", reaches_program=False)
        )
        return DisconnectionError("it belongs to another event loop")

    # dialects ------------------------------------------------------------------------------

    def arm(self, dialect: Any, engine_of: Callable[[], Engine | None]) -> None:
        """Wrap an engine's dialect, once; a bare pool's, which all of them share, never."""
        if not isinstance(dialect, Dialect) or dialect in self._armed or not dialect.is_async:
            return
        self._armed.add(dialect)
        ping, close = dialect.do_ping, dialect.do_close
        terminate = dialect.do_terminate

        @functools.wraps(ping)
        def do_ping(connection: Any) -> bool:
            driver_connection = dialect.get_driver_connection(connection)
            if self._foreign_owner(driver_connection) is not None:
                refusal = decide(driver_connection)
                if refusal is not None:
                    raise refusal
            return ping(connection)

        @safely
        def decide(driver_connection: Any) -> Exception | None:
            birth = self.birth_of(driver_connection)
            return self.stop(driver_connection, birth, engine_of()) if birth else None

        @functools.wraps(close)
        def do_close(connection: Any) -> None:
            self._end(dialect, connection, close, terminate)

        @functools.wraps(terminate)
        def do_terminate(connection: Any) -> None:
            self._end(dialect, connection, terminate, terminate)

        for name, wrapper in zip(_WRAPPED, (do_ping, do_close, do_terminate), strict=True):
            setattr(dialect, name, wrapper)

    def guards(self, pool: Any) -> bool:
        """Whether a pool's dialect is wrapped."""
        return getattr(pool, "_dialect", None) in self._armed

    def disarm(self) -> None:
        """Leave every dialect as it was."""
        for dialect in copy_of(self._armed.__iter__):
            for name in _WRAPPED:
                vars(dialect).pop(name, None)
        self._armed.clear()

    # ending foreign connections ------------------------------------------------------------

    def retire(self, fairy: Any, dialect: Any, birth: Birth | None, *, taken_here: bool) -> None:
        """Give up a connection that a failure left unusable; its record opens another one.

        One of another loop is ended at once, through its socket or by its owner, so that neither a
        transaction nor a coroutine stays behind. One that its owner has in hand is left to it.

        Args:
            fairy: SQLAlchemy's proxy of the connection.
            dialect: the engine's.
            birth: where the connection came from.
            taken_here: whether it was taken out of its pool on the running loop.
        """
        driver_connection = dialect.get_driver_connection(fairy.dbapi_connection)
        fairy.invalidate(soft=True)
        self.arm(dialect, lambda: None)  # the pool closes it at the record's next checkout
        owner = self._foreign_owner(driver_connection)
        if owner is None or (birth is not None and birth.pid != os.getpid()):
            return
        if taken_here or owner.is_closed():
            end(driver_connection, owner)

    def _end(
        self,
        dialect: Dialect,
        connection: Any,
        original: Callable[[Any], object],
        terminate: Callable[[Any], object],
    ) -> None:
        """Close a connection; a foreign one through the loop that owns it."""
        driver_connection = dialect.get_driver_connection(connection)
        owner = self._foreign_owner(driver_connection)
        birth = self.registry.birth_of(driver_connection)
        if owner is None:
            original(connection)
        elif birth is not None and birth.pid != os.getpid():
            keep(connection)  # it is the parent's
        elif owner.is_closed():
            bury(driver_connection, lambda: terminate(connection))
        elif not (owner.is_running() and self._end_there(owner, terminate, connection)):
            cut(driver_connection, owner)

    def _end_there(
        self, owner: AbstractEventLoop, terminate: Callable[[Any], object], connection: Any
    ) -> bool:
        """Let the owner close its connection, soon; whether it still can."""

        @safely
        def begin() -> None:
            task = asyncio.ensure_future(greenlet_spawn(terminate, connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        with suppress(RuntimeError):  # closed meanwhile
            owner.call_soon_threadsafe(begin)
            return True
        return False

    def _foreign_owner(self, driver_connection: Any) -> AbstractEventLoop | None:
        """The loop that a connection is bound to, if that is another one than runs here."""
        owner = self.registry.owner_of(driver_connection)
        running = _get_running_loop()
        if owner is None or owner is running:
            return None
        # Without a loop running here or there it is an ordinary end, such as a collection.
        return owner if running is not None or owner.is_running() else None
