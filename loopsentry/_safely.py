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
    return _guard(function, stays=True)


def until_failure(function: Callable[P, R]) -> Callable[P, R | None]:
    """Make a function as `safely` does, that is not called again once it has failed.

    For hooks: one that fails would fail again each time, and cost the program that each time.
    """
    return _guard(function, stays=False)


def _guard(function: Callable[P, R], *, stays: bool) -> Callable[P, R | None]:
    off = False

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        nonlocal off
        if off:
            return None
        try:
            return function(*args, **kwargs)
        except (RecursionError, MemoryError):
            return None  # the program has no room left: neither a failure of ours nor news to it
        except Exception:
            off = not stays
            complain(f"{function.__module__}.{function.__qualname__}")
            return None

    return guarded


def complain(where: str) -> None:
    """Log the present exception as loopsentry's own failure, once per place.

    Not while the interpreter ends: modules are taken apart then, under whoever still runs.
    """
    if where in _reported or sys.is_finalizing():
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
