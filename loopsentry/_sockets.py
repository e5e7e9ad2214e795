"""Ending a driver's connection without help from the event loop that owns it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from greenlet import greenlet  # type: ignore[import-untyped]

# Where drivers that are bound to a loop keep their transport: asyncpg/connection.py; aiomysql and
# asyncmy behind a stream writer.
_TRANSPORTS = (("_transport",), ("_writer", "transport"), ("_writer", "_transport"))


def transport_of(driver_connection: Any) -> Any:
    """The asyncio transport below a driver's connection, None if it has none."""
    for path in _TRANSPORTS:
        target = driver_connection
        for name in path:
            target = getattr(target, name, None)
        if target is not None and hasattr(target, "get_extra_info"):
            return target
    return None


def cut(driver_connection: Any) -> bool:
    """Shut a connection's socket down, from any thread.

    Its loop is not touched: one that is running notices the end of the stream by itself, and the
    server ends the backend, also under TLS and on uvloop.

    Returns:
        Whether there was a socket to shut down.
    """
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
    layers = list(_down_from(transport))
    protocol = transport.get_protocol() if transport is not None else None
    cut(driver_connection)
    with suppress(Exception):
        greenlet(terminate).switch() if terminate is not None else None
    for layer in layers:
        # The last step of a transport's close, which its closed loop will never call
        # (Lib/asyncio/selector_events.py, proactor_events.py).
        with suppress(Exception):
            if getattr(layer, "_sock", None) is not None:
                layer._call_connection_lost(None)
    with suppress(Exception):
        if protocol is not None and terminate is None:
            protocol.connection_lost(None)  # uvloop closes its transports and tells nobody
    if transport is None:
        _close_by_hand(driver_connection)


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
