"""Trying one function in each arrangement of event loops, until one breaks."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import pickle
import select
import signal
import warnings
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loopsentry._sockets import take_out
from loopsentry.crossings import Watch, name_loop, waiting_place
from loopsentry.model import Diagnosis, Place

from .errors import LoopCrossingWarning, LoopSafetyError
from .loops import GRACE, NAME, LoopThread, Outcome
from .records import examining

_TWICE = "on one loop, run twice"
_CLOSED = "on a second loop after the first one closed"
_ALIVE = "on two loops alive in two threads"
_FORKED = "in a forked child"
_UVLOOP = "on uvloop"


class Trial:
    """One function, tried in each arrangement until one breaks."""

    def __init__(
        self, make: Callable[[], Awaitable[Any]], name: str, timeout: float, place: Place | None
    ) -> None:
        self.make = make
        self.name = name
        self.timeout = timeout
        self.place = place
        self.skip: frozenset[str] = frozenset()
        self.runs = 0
        self.warned: set[str] = set()

    def run(self) -> None:
        """Try all arrangements, from a thread in which no loop runs."""
        __tracebackhide__ = True
        with self._watching():
            with self._loop() as loop:
                self._check(_TWICE, loop.submit(self.make, self.timeout)(), first=True)
                self._check(_TWICE, loop.submit(self.make, self.timeout)())
            self._run_elsewhere()

    async def run_on_current_loop_first(self) -> None:
        """Try the running loop first, and the rest from another thread."""
        __tracebackhide__ = True
        with self._watching():
            for number in range(2):
                self._check(_TWICE, await self._run_here(), first=not number)
            await asyncio.to_thread(self._run_elsewhere)

    async def _run_here(self) -> Outcome:
        task = asyncio.ensure_future(self.make())
        done, _ = await asyncio.wait({task}, timeout=self.timeout)
        if not done:
            place = waiting_place(task) if isinstance(task, asyncio.Task) else None
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE)
            return Outcome(hung=True, hung_at=place)
        if task.cancelled():
            return Outcome(error=asyncio.CancelledError())
        return Outcome(error=task.exception())

    def _run_elsewhere(self) -> None:
        __tracebackhide__ = True
        tries = {
            "closed-loop": self._try_closed_loop,
            "live-loops": self._try_live_loops,
            "forked-child": self._try_forked_child,
            "uvloop": self._try_uvloop,
        }
        for name, attempt in tries.items():
            if name not in self.skip:
                attempt()

    def _try_closed_loop(self) -> None:
        __tracebackhide__ = True
        for _ in range(2):
            with self._loop() as loop:
                self._check(_CLOSED, loop.submit(self.make, self.timeout)())

    def _try_live_loops(self) -> None:
        __tracebackhide__ = True
        with self._loop() as one, self._loop() as other:
            for loop in (one, other):
                self._check(_ALIVE, loop.submit(self.make, self.timeout)())
            waits = [loop.submit(self.make, self.timeout) for loop in (one, other)]
            for outcome in [wait() for wait in waits]:
                self._check(_ALIVE, outcome)

    def _try_forked_child(self) -> None:
        __tracebackhide__ = True
        if hasattr(os, "fork"):
            with self._loop() as loop:
                self._check(_FORKED, loop.submit(self.make, self.timeout)())
                self._run_in_child()

    def _try_uvloop(self) -> None:
        __tracebackhide__ = True
        if importlib.util.find_spec("uvloop") is not None:
            uvloop: Any = importlib.import_module("uvloop")
            with self._loop(uvloop.new_event_loop) as loop:
                self._check(_UVLOOP, loop.submit(self.make, self.timeout)())

    @contextmanager
    def _loop(self, factory: Callable[[], AbstractEventLoop] | None = None) -> Iterator[LoopThread]:
        with LoopThread(factory) as loop:
            if loop.loop is not None:
                self.runs += 1
                registry = self.examiner.registry
                name_loop(registry, loop.loop, NAME, self.place, self.runs)
            yield loop

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Watch the pools, and leave no connection of our own loops in them."""
        with examining() as examiner:
            self.examiner = examiner
            self.watch = Watch(examiner, divert=True)
            self.heard: list[Diagnosis] = []
            examiner.subscribers.append(hear := self.heard.append)
            self.watch.attach()
            try:
                yield
            finally:
                self.watch.detach()
                examiner.subscribers.remove(hear)
                self._clean_up()

    def _clean_up(self) -> None:
        for opened in self.watch.opened.values():
            record, driver = opened.record(), opened.driver()
            loop = self.examiner.registry.loop(opened.birth.loop)
            ours = loop is not None and loop.info.runner == NAME
            owner = self.examiner.registry.owner_of(driver)
            if record is not None and ours and owner and not self.examiner.is_closed(driver):
                take_out(record, owner, spare=False)

    # judging -------------------------------------------------------------------------------

    def _check(self, arrangement: str, outcome: Outcome, *, first: bool = False) -> None:
        """Fail for what a run did; a failure of the very first run is the function's own."""
        __tracebackhide__ = True
        diagnosis = self._find_diagnosis(outcome)
        if diagnosis is not None:
            raise self._failure(arrangement, diagnosis) from outcome.error
        if outcome.hung:
            where = f", waiting at {outcome.hung_at.short}" if outcome.hung_at else ""
            raise LoopSafetyError(
                f"{self.name} did not end within {self.timeout:g} s {arrangement}{where}",
                arrangement,
            )
        if outcome.error is not None and first:
            raise outcome.error
        if outcome.error is not None:
            kind = type(outcome.error).__name__
            raise LoopSafetyError(
                f"{self.name} fails {arrangement}: {kind}: {outcome.error}", arrangement
            ) from outcome.error
        self._warn(arrangement)

    def _find_diagnosis(self, outcome: Outcome) -> Diagnosis | None:
        """What was kept from failing, what was told, or what the exception says."""
        for crossing in self.watch.crossings:
            if not crossing.tolerant and crossing.diagnosis is not None:
                return crossing.diagnosis
        for diagnosis in self.heard:
            if diagnosis.severity == "error" and diagnosis.code.startswith(("LS1", "LS3")):
                return diagnosis
        if isinstance(outcome.error, Exception):
            found = self.examiner.report(outcome.error)
            if found is not None and found.certainty != "undetermined":
                return found
        return None

    def _failure(self, arrangement: str, diagnosis: Diagnosis) -> LoopSafetyError:
        text = f"{self.name} is not loop-safe: it fails {arrangement}"
        error = LoopSafetyError(text, arrangement, diagnosis)
        self.examiner.mark(error, diagnosis)
        return error

    def _warn(self, arrangement: str) -> None:
        for crossing in self.watch.crossings:
            opened = crossing.opened_at.short if crossing.opened_at else "a place not recorded"
            used = crossing.used_at.short if crossing.used_at else "a place not recorded"
            text = (
                f"{self.name} {arrangement}: a connection opened at {opened} on one event loop was"
                f" taken out of its pool at {used} on another. {crossing.driver} survives that,"
                " asyncpg would fail"
            )
            if crossing.driver not in self.warned:
                self.warned.add(crossing.driver)
                place = self.place or Place("<unknown>", 1, "")
                warnings.warn_explicit(text, LoopCrossingWarning, place.file, place.line)
        self.watch.crossings.clear()

    # the child -----------------------------------------------------------------------------

    def _run_in_child(self) -> None:
        """Run it in a forked child, which inherits the pools; the child never returns from here."""
        __tracebackhide__ = True
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Since CPython 3.12 a fork beside threads warns; that is what is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            self._be_child(writer)
        os.close(writer)
        answer = _read_until(reader, self.timeout + 2 * GRACE)
        if answer is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if answer is None:
            self._check(_FORKED, Outcome(hung=True))
        elif not answer:
            text = f"the child ended with status {os.waitstatus_to_exitcode(status)}"
            self._check(_FORKED, Outcome(error=RuntimeError(text)))
        else:
            diagnosis, text = pickle.loads(answer)  # noqa: S301 - our own child wrote it
            if diagnosis is not None:
                raise self._failure(_FORKED, diagnosis)
            if text:
                raise LoopSafetyError(f"{self.name} {text}", _FORKED)

    def _be_child(self, writer: int) -> None:  # pragma: no cover - in the child
        answer: tuple[Diagnosis | None, str] = (None, "")
        try:
            self.watch.crossings.clear()
            self.heard.clear()
            with self._loop() as loop:
                self._check(_FORKED, loop.submit(self.make, self.timeout)())
        except LoopSafetyError as exc:
            text = str(exc).removeprefix(f"{self.name} ")
            answer = (exc.diagnosis, text)
        except BaseException as exc:
            answer = (None, f"fails {_FORKED}: {type(exc).__name__}: {exc}")
        finally:
            with contextlib.suppress(BaseException):
                os.write(writer, pickle.dumps(answer))
            os._exit(0)


def _read_until(reader: int, seconds: float) -> bytes | None:
    """Everything that a pipe gives before it is closed; None if that takes too long."""
    chunks: list[bytes] = []
    try:
        while True:
            ready, _, _ = select.select([reader], [], [], seconds)
            if not ready:
                return None
            chunk = os.read(reader, 65536)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
    finally:
        os.close(reader)
