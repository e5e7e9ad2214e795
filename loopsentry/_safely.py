"""The guard around everything that runs inside the user's program."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import traceback
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
        # Neither the chain nor the text: what was being handled may hold statement parameters.
        exc = sys.exc_info()[1]
        frames = "".join(traceback.format_tb(exc.__traceback__)) if exc is not None else ""
        logger.error(
            "loopsentry failed in %s; your program is not affected. Please report this: %s\n%s",
            where,
            type(exc).__name__,
            frames,
        )
