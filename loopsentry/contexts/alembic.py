"""A migration: Alembic's env.py and what it runs."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "alembic"
RANK = 60
PACKAGES = ("alembic",)
_MODULES = frozenset({"alembic"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise Alembic's frames around the loop."""
    if any(frame.module.partition(".")[0] in _MODULES for frame in stack):
        return Recognition(context=NAME)
    return None
