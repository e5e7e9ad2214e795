"""The guard around everything that runs inside the user's program."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("loopsentry")
_reported: set[str] = set()


def safely(function: Callable[P, R]) -> Callable[P, R | None]:
    """Make a function that never raises an `Exception`: it logs its own failure once, returns None.

    Interrupts and exits pass through: they belong to the program.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            complain(f"{function.__module__}.{function.__qualname__}")
            return None

    return guarded


def complain(where: str) -> None:
    """Log the present exception as loopsentry's own failure, once per place."""
    if where in _reported:
        return
    _reported.add(where)
    with contextlib.suppress(Exception):  # a broken logging set-up is not ours to report
        logger.exception(  # noqa: LOG004 - called from inside handlers
            "loopsentry failed in %s; your program is not affected. Please report this.", where
        )
