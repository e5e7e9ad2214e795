"""The error of a connection that was stopped before it was used on a foreign event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Diagnosis


class LoopMismatchError(RuntimeError):
    """A connection was about to be used on an event loop that does not own it; nothing was sent.

    Raised with `on_mismatch="raise"`, when a connection of another loop is taken out of its pool,
    also with `pool_pre_ping`. A connection of an engine is closed, so that the next one that is
    taken out is a new one; a pool of asyncpg's own refuses each time (Python 3.12). Its text and
    its note say which loops and what to do.

    Attributes:
        diagnosis: what is known about it; None only if loopsentry itself failed.

    Since version 0.1.0.
    """

    __module__ = "loopsentry"  # the name that users import, also in tracebacks

    diagnosis: Diagnosis | None = None


class HealedMismatchError(LoopMismatchError):
    """The same mistake where it is healed instead; told as a warning, never raised."""
