"""Ending a driver's connection without help from the event loop that owns it."""

from __future__ import annotations

import os
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any

from greenlet import greenlet  # type: ignore[import-untyped]

# Where drivers that are bound to a loop keep their transport: asyncpg/connection.py; aiomysql and
# asyncmy behind a stream writer.
_TRANSPORTS = (("_transport",), ("_writer", "transport"), ("_writer", "_transport"))


#: Ways to the transport that the probes' shelf knows beyond these; filled when it is loaded.
finders: list[Callable[[Any], Any]] = []


def transport_of(driver_connection: Any) -> Any:
    """The asyncio transport below a driver's connection, None if it has none."""
    for find in finders:
        found = find(driver_connection)
        if found is not None:
            return found
    for path in _TRANSPORTS:
        target = driver_connection
        for name in path:
            target = getattr(target, name, None)
        if target is not None and hasattr(target, "get_extra_info"):
            return target
    return None


def cut(driver_connection: Any, owner: AbstractEventLoop | None) -> bool:
    """Shut a connection's socket down, from any thread.

    Its loop is not touched: one that is running notices the end of the stream by itself, and the
    server ends the backend, also under TLS and on uvloop.

    Args:
        driver_connection: the driver's connection.
        owner: the loop that it is bound to, unless that is closed.

    Returns:
        Whether there was a socket to shut down.
    """
    if owner is not None:
        leave_to(owner, driver_connection)
    transport = transport_of(driver_connection)
    if transport is None:
        return False
    found: Any = transport.get_extra_info("socket")
    with suppress(OSError, AttributeError, TypeError, ValueError):
        # uvloop's stand-in for a socket has no shutdown(); a duplicate of its descriptor has.
        if found.fileno() < 0:
            return False
        with socket.socket(fileno=os.dup(found.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
        return True
    return False


def end(driver_connection: Any, owner: AbstractEventLoop) -> None:
    """End a connection of another loop at once, from any thread: nothing waits, nothing is left.

    Args:
        driver_connection: the driver's connection.
        owner: the loop that it is bound to.
    """
    if owner.is_closed():
        bury(driver_connection)
        return
    running = owner.is_running() and transport_of(driver_connection) is not None
    if not (running and leave_to(owner, driver_connection)):
        cut(driver_connection, owner)


def leave_to(owner: AbstractEventLoop, driver_connection: Any) -> bool:
    """Let the loop that owns a connection abort it, and be the last to have it in hand.

    Collected in another thread while its loop runs, asyncpg's connection would abort its transport
    there (asyncpg/connection.py: __del__), which crashes the interpreter on uvloop: the loop is
    reading from that socket without the GIL.

    Returns:
        Whether the loop is not closed yet.
    """
    try:
        owner.call_soon_threadsafe(_abort, driver_connection)
    except RuntimeError:  # closed meanwhile
        return False
    return True


def _abort(driver_connection: Any) -> None:
    """End a connection on its own loop; asyncpg's is told, so that it does not complain of it."""
    terminate = getattr(driver_connection, "terminate", None)
    if terminate is not None and not iscoroutinefunction(terminate):
        terminate()
        return
    transport = transport_of(driver_connection)
    if transport is not None:
        transport.abort()


def sharer_of(driver_connection: Any) -> int | None:
    """The process number of the parent, if it holds a connection's socket too; else None.

    Only a fork makes that so. Told on Linux, while the parent lives.
    """
    transport = transport_of(driver_connection)
    parent = os.getppid()
    with suppress(OSError, AttributeError, TypeError, ValueError):
        mine = os.fstat(transport.get_extra_info("socket").fileno())
        with os.scandir(f"/proc/{parent}/fd") as theirs:
            for entry in theirs:
                with suppress(OSError):  # closed meanwhile
                    if os.path.samestat(entry.stat(), mine):
                        return parent
    return None


_kept: list[object] = []


def keep(*things: object) -> None:
    """Keep connections from being collected for as long as this process lives.

    asyncpg ends what is collected (asyncpg/connection.py: Connection.__del__); in a forked child
    that ends the parent's.
    """
    _kept.extend(things)


def take_out(record: Any, owner: AbstractEventLoop | None, *, spare: bool) -> None:
    """Take a connection out of its pool's record and end it, so that the pool does not.

    The record opens another one at its next checkout, as after an invalidation
    (sqlalchemy/pool/base.py: _ConnectionRecord.get_connection).

    Args:
        record: the pool's record of the connection.
        owner: the loop that the connection is bound to, None if to none.
        spare: whether to leave the connection as it is: after a fork it is the parent's too.
    """
    connection, record.dbapi_connection = record.dbapi_connection, None
    if connection is None:
        return
    keep(connection)
    if not spare and owner is not None:
        end(getattr(connection, "driver_connection", connection), owner)


def bury(driver_connection: Any, terminate: Callable[[], object] | None = None) -> None:
    """End a connection whose loop is closed, and free its descriptor without a warning.

    Args:
        driver_connection: the driver's connection.
        terminate: the dialect's way to end it without waiting; called outside `greenlet_spawn`,
            where SQLAlchemy does not await (sqlalchemy/connectors/asyncio.py:
            AsyncAdapt_terminate). What it raises, because the loop is closed, is dropped.
            Without it, whoever still holds the connection finds it closed.
    """
    transport = transport_of(driver_connection)
    layers = layers_of(driver_connection)
    protocol = transport.get_protocol() if transport is not None else None
    cut(driver_connection, None)
    with suppress(Exception):
        greenlet(terminate).switch() if terminate is not None else None
    for layer in layers:
        finish(layer)
    with suppress(Exception):
        if protocol is not None and terminate is None:
            protocol.connection_lost(None)  # uvloop closes its transports and tells nobody
    if transport is None:
        _close_by_hand(driver_connection)


def finish(transport: Any) -> None:
    """Take the last step of a transport's close, which its closed loop will never call.

    Lib/asyncio/selector_events.py, proactor_events.py.
    """
    with suppress(Exception):
        if getattr(transport, "_sock", None) is not None:
            transport._call_connection_lost(None)


def layers_of(driver_connection: Any) -> list[Any]:
    """The transports below a driver's connection, the uppermost first."""
    return list(_down_from(transport_of(driver_connection)))


def _close_by_hand(driver_connection: Any) -> None:
    """Close a connection that waits for nothing when it closes, such as psycopg's."""
    with suppress(Exception):
        closing = driver_connection.close()
        try:
            closing.send(None)
        finally:
            closing.close()


def _down_from(transport: Any) -> Iterator[Any]:
    """A transport and those below it: TLS stands on a plain one (Lib/asyncio/sslproto.py)."""
    while transport is not None:
        yield transport
        transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
