"""Event loops in threads of their own, on which a run that hangs can be given up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from loopsentry.crossings import waiting_place
from loopsentry.model import Place

GRACE = 1.0
NAME = "assert_loop_safe"


@dataclass(slots=True)
class Outcome:
    """How one run ended: an exception, a hang, or neither."""

    error: BaseException | None = None
    hung: bool = False
    hung_at: Place | None = None


class LoopThread:
    """An event loop that runs in a thread of its own until it is ended."""

    def __init__(self, factory: Callable[[], AbstractEventLoop] | None = None) -> None:
        self.factory = factory
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._serve, name=NAME, daemon=True)
        self.loop: AbstractEventLoop | None = None
        self.last: asyncio.Event | None = None
        self.task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        self.thread.start()
        self.started.wait()
        return self

    def __exit__(self, *_exc: object) -> None:
        loop, last = self.loop, self.last
        if loop is not None and last is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(last.set)
        self.thread.join(GRACE)

    def _serve(self) -> None:
        async def wait() -> None:
            self.loop, self.last = asyncio.get_running_loop(), asyncio.Event()
            self.started.set()
            await self.last.wait()

        with contextlib.suppress(Exception), asyncio.Runner(loop_factory=self.factory) as runner:
            runner.run(wait())
        self.started.set()

    def submit(self, make: Callable[[], Awaitable[Any]], timeout: float) -> Callable[[], Outcome]:
        """Start a run; the result waits for its end."""
        loop = self.loop
        if loop is None:
            return lambda: Outcome(error=RuntimeError("the event loop did not start"))

        async def job() -> None:
            self.task = asyncio.current_task()
            await make()

        future = asyncio.run_coroutine_threadsafe(job(), loop)

        def wait() -> Outcome:
            # Whatever it raises is the result; `future.exception` would raise a cancellation.
            done = threading.Event()
            future.add_done_callback(lambda _future: done.set())
            if not done.wait(timeout):
                place = waiting_place(self.task) if self.task is not None else None
                future.cancel()
                return Outcome(hung=True, hung_at=place)
            try:
                return Outcome(error=future.exception())
            except BaseException as exc:
                return Outcome(error=exc)

        return wait
