"""The multi-loop harness: finds in a test what would fail when code meets a second event loop.

It works with diagnostics turned off, in synchronous and in asynchronous tests, with any test
framework.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from loopsentry.crossings import Crossing, Watch, calling_place

from .errors import LoopCrossingWarning, LoopSafetyError
from .records import examining
from .trial import Trial

__all__ = [
    "Crossing",
    "LoopCrossingWarning",
    "LoopSafetyError",
    "assert_loop_safe",
    "watch_crossings",
]

TIMEOUT = 10.0
SKIPPABLE = ("closed-loop", "live-loops", "forked-child", "uvloop")

AsyncFunction = Callable[..., Awaitable[Any]]


def assert_loop_safe(
    function: AsyncFunction,
    /,
    *args: Any,
    timeout: float = TIMEOUT,
    skip: Collection[str] = (),
    **kwargs: Any,
) -> Awaitable[None]:
    """Assert that an async function works on every event loop that it may meet.

    It is run twice on one loop; on a second loop after the first one closed; on two loops that are
    alive in two threads, one after the other and then at once; on a loop in a forked child, where
    the system can fork; and on uvloop, where that is installed. In an async test the first of these
    is the running loop, and the result has to be awaited; in a synchronous one everything has been
    done when the call returns. The other loops run in threads of their own.

    A connection that would be used on a foreign loop is kept from that: the pool opens another one,
    and nothing is sent on the foreign one. So the function's own connections stay usable, and two
    loops cannot crash the interpreter by meeting on one. The pools' pre-pings are left out
    meanwhile. It never installs loopsentry, and works with `LOOPSENTRY=off`.

    Args:
        function: makes the awaitable; called once for each run.
        args: passed on to it.
        timeout: seconds for each run, after which it counts as hanging.
        skip: arrangements to leave out: "closed-loop", "live-loops", "forked-child", "uvloop".
        kwargs: passed on to it.

    Returns:
        Something to await, which an async test must do.

    Raises:
        LoopSafetyError: an `AssertionError` with the diagnosis of the first arrangement that
            breaks.
        ValueError: for a timeout that is not above 0, or an arrangement that does not exist.
        Exception: whatever the function raises in its very first run.

    Since version 0.1.0.
    """
    __tracebackhide__ = True
    if timeout <= 0:
        raise ValueError(f"timeout={timeout!r} is not a number of seconds above 0")
    if unknown := sorted(set(skip) - {*SKIPPABLE}):
        raise ValueError(f"skip={unknown!r} has no arrangement; there are {', '.join(SKIPPABLE)}")
    trial = Trial(lambda: function(*args, **kwargs), _name_of(function), timeout, calling_place())
    trial.skip = frozenset(skip)
    if asyncio._get_running_loop() is not None:
        return trial.run_on_current_loop_first()
    trial.run()
    return _Done()


@contextmanager
def watch_crossings() -> Iterator[list[Crossing]]:
    """Collect the connections that are taken out of their pools on another loop than their own.

    Whichever the driver, and also where nothing fails. Connections are known if they are opened
    inside the block, or while loopsentry is installed. Since version 0.1.0.

    Yields:
        A list that is filled as it happens.
    """
    with examining() as examiner:
        watch = Watch(examiner)
        watch.attach()
        try:
            yield watch.crossings
        finally:
            watch.detach()


class _Done:
    """What a synchronous test need not await."""

    def __await__(self) -> Generator[Any, None, None]:
        return iter(())  # type: ignore[return-value]  # ends at once


def _name_of(function: AsyncFunction) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return f"{getattr(function, '__name__', repr(function))}()"
