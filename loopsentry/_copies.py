"""Reading collections that other threads, or a garbage collection, change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

#: How often to begin anew, as `asyncio.all_tasks` does (Lib/asyncio/tasks.py).
ATTEMPTS = 1_000


def copy_of(iterate: Callable[[], Iterable[T]]) -> list[T]:
    """Every member that a collection has at one moment.

    `list(collection)` is no such moment: weak collections iterate in Python code, between whose
    steps another thread runs, and before CPython 3.12 even a built-in set or dictionary is
    changed under its iterator by what a garbage collection finalises, because the list's own
    allocations can start one (Modules/gcmodule.c: gc_alloc).

    Args:
        iterate: begins a new iteration, as `mapping.items` does. A generator would be at its end
            after the first attempt.

    Raises:
        RuntimeError: the collection changed during each of a thousand attempts.
    """
    for _ in range(ATTEMPTS):
        try:
            return list(iterate())
        except RuntimeError as exc:
            if "during iteration" not in str(exc):
                raise
            failure = exc
    raise failure
