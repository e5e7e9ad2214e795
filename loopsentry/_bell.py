"""Waiting for one thing on many event loops, and in threads without a loop.

A primitive of asyncio belongs to one loop, and a lock of threading must not be held over an await:
here each waiter waits in its own way, and whoever rings wakes all of them.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from sqlalchemy.util import await_only

#: Seconds after which a waiter looks again by itself: whom it waits for may never ring, because
#: its loop was stopped, or the connection it held was collected.
LOOK_AGAIN = 0.1


class _LoopWaiter:
    """Waits inside `greenlet_spawn` on a running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def arm(self) -> None:
        if self.future.done():
            self.future = self.loop.create_future()

    def wait(self, seconds: float) -> None:
        await_only(asyncio.wait({self.future}, timeout=seconds))

    def wake(self) -> bool:
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._ring)
            return True
        return False  # its loop was closed meanwhile

    def _ring(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class _ThreadWaiter:
    """Waits in a thread that runs no loop."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def arm(self) -> None:
        self.event.clear()

    def wait(self, seconds: float) -> None:
        self.event.wait(seconds)

    def wake(self) -> bool:
        self.event.set()
        return True


class Bell:
    """Wakes everybody who waits for a condition, wherever they wait."""

    def __init__(self) -> None:
        self._waiters: set[_LoopWaiter | _ThreadWaiter] = set()

    def ring(self) -> None:
        """Let every waiter look at its condition again; from any thread."""
        # Not `tuple`: its allocation may start a garbage collection, and what that finalises comes
        # here too, and changes the set under the iterator (Objects/abstract.c: PySequence_Tuple).
        for waiter in self._waiters.copy():
            if not waiter.wake():
                self._waiters.discard(waiter)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds; on a loop only this task waits.

        Args:
            condition: asked after each ring, in the waiting thread. It may take what it asks for.
            seconds: how long to wait at most.

        Returns:
            Whether the condition held in time.
        """
        if condition():
            return True
        loop = _get_running_loop()
        waiter = _ThreadWaiter() if loop is None else _LoopWaiter(loop)
        end = monotonic() + seconds
        self._waiters.add(waiter)
        try:
            while True:
                waiter.arm()
                if condition():
                    return True
                left = end - monotonic()
                if left <= 0:
                    return False
                waiter.wait(min(left, LOOK_AGAIN))
        finally:
            self._waiters.discard(waiter)
