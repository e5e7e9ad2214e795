"""The multi-loop harness: finds in a test what would fail when code meets a second event loop.

It works with diagnostics turned off, in synchronous and in asynchronous tests, with any test
framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.util
import os
import pickle
import select
import signal
import threading
import warnings
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .crossings import (
    Crossing,
    Watch,
    calling_place,
    name_loop,
    take_from_record,
    waiting_place,
)
from .installation import Installation, current
from .model import Diagnosis, Place
from .report import Examiner, Options

__all__ = [
    "Crossing",
    "LoopCrossingWarning",
    "LoopSafetyError",
    "assert_loop_safe",
    "watch_crossings",
]

TIMEOUT = 10.0
SKIPPABLE = ("closed-loop", "live-loops", "forked-child", "uvloop")
_GRACE = 1.0
_RUNNER = "assert_loop_safe"

AsyncFunction = Callable[..., Awaitable[Any]]


class LoopSafetyError(AssertionError):
    """Raised by `assert_loop_safe`: the function fails, or hangs, in one of the arrangements.

    Since version 0.1.0.

    Attributes:
        arrangement: the arrangement that broke, in words.
        diagnosis: what is known about it, None for a hang or another failure.
    """

    def __init__(self, text: str, arrangement: str = "", diagnosis: Diagnosis | None = None):
        super().__init__(text)
        self.arrangement = arrangement
        self.diagnosis = diagnosis


class LoopCrossingWarning(UserWarning):
    """Given by `assert_loop_safe` for a crossing that the driver in use survives.

    psycopg's and aiosqlite's connections are bound to no loop between operations; asyncpg's are, so
    what passes here fails there. Since version 0.1.0.
    """


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
    loops cannot crash the interpreter by meeting on one (a check by pre-ping comes earlier, and is
    not kept from it). It never installs loopsentry, and works with `LOOPSENTRY=off`.

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
    trial = _Trial(lambda: function(*args, **kwargs), _name_of(function), timeout, calling_place())
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
    with _examining() as examiner:
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


# records without install() -----------------------------------------------------------------

_own: list[Installation] = []
_users: list[object] = []


@contextmanager
def _examining() -> Iterator[Examiner]:
    """The installed examiner, or one of our own that only listens to the libraries."""
    installed = current()
    if installed is not None and not _own:
        yield installed.examiner
        return
    if not _own:
        _own.append(_listen())
    _users.append(user := object())
    try:
        yield _own[0].examiner
    finally:
        _users.remove(user)
        if not _users:
            _own.pop().detach()


def _listen() -> Installation:
    """Attach the probes alone: no hook, no sink, no subscriber, nothing retired."""
    installation = Installation(Options(evict=False))
    installation.examiner.subscribers = []
    for probe in installation.shelves.probes:
        if hasattr(probe, "attach"):
            probe.attach(installation.registry, installation.examiner.report)
            installation._detachments.append(probe.detach)
    return installation


# loops -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Outcome:
    """How one run ended: an exception, a hang, or neither."""

    error: BaseException | None = None
    hung: bool = False
    hung_at: Place | None = None


class _LoopThread:
    """An event loop that runs in a thread of its own until it is ended."""

    def __init__(self, factory: Callable[[], AbstractEventLoop] | None = None) -> None:
        self.factory = factory
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._serve, name=_RUNNER, daemon=True)
        self.loop: AbstractEventLoop | None = None
        self.last: asyncio.Event | None = None
        self.task: asyncio.Task[Any] | None = None

    def __enter__(self) -> _LoopThread:
        self.thread.start()
        self.started.wait()
        return self

    def __exit__(self, *_exc: object) -> None:
        loop, last = self.loop, self.last
        if loop is not None and last is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(last.set)
        self.thread.join(_GRACE)

    def _serve(self) -> None:
        async def wait() -> None:
            self.loop, self.last = asyncio.get_running_loop(), asyncio.Event()
            self.started.set()
            await self.last.wait()

        with contextlib.suppress(Exception), asyncio.Runner(loop_factory=self.factory) as runner:
            runner.run(wait())
        self.started.set()

    def submit(self, make: Callable[[], Awaitable[Any]], timeout: float) -> Callable[[], _Outcome]:
        """Start a run; the result waits for its end."""
        loop = self.loop
        if loop is None:
            return lambda: _Outcome(error=RuntimeError("the event loop did not start"))

        async def job() -> None:
            self.task = asyncio.current_task()
            await make()

        future = asyncio.run_coroutine_threadsafe(job(), loop)

        def wait() -> _Outcome:
            # Whatever it raises is the result; `future.exception` would raise a cancellation.
            done = threading.Event()
            future.add_done_callback(lambda _future: done.set())
            if not done.wait(timeout):
                place = waiting_place(self.task) if self.task is not None else None
                future.cancel()
                return _Outcome(hung=True, hung_at=place)
            try:
                return _Outcome(error=future.exception())
            except BaseException as exc:
                return _Outcome(error=exc)

        return wait


# arrangements ------------------------------------------------------------------------------

_TWICE = "twice on one loop"
_CLOSED = "on a second loop after the first one closed"
_ALIVE = "on two loops alive in two threads"
_FORKED = "in a forked child"
_UVLOOP = "on uvloop"


class _Trial:
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

    async def _run_here(self) -> _Outcome:
        task = asyncio.ensure_future(self.make())
        done, _ = await asyncio.wait({task}, timeout=self.timeout)
        if not done:
            place = waiting_place(task) if isinstance(task, asyncio.Task) else None
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
            return _Outcome(hung=True, hung_at=place)
        if task.cancelled():
            return _Outcome(error=asyncio.CancelledError())
        return _Outcome(error=task.exception())

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
    def _loop(
        self, factory: Callable[[], AbstractEventLoop] | None = None
    ) -> Iterator[_LoopThread]:
        with _LoopThread(factory) as loop:
            if loop.loop is not None:
                self.runs += 1
                registry = self.examiner.registry
                name_loop(registry, loop.loop, _RUNNER, self.place, self.runs)
            yield loop

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Watch the pools, and leave no connection of our own loops in them."""
        with _examining() as examiner:
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
            ours = loop is not None and loop.info.runner == _RUNNER
            bound = isinstance(getattr(driver, "_loop", None), AbstractEventLoop)
            if record is not None and ours and bound and not self.examiner.is_closed(driver):
                take_from_record(record, spare=False)

    # judging -------------------------------------------------------------------------------

    def _check(self, arrangement: str, outcome: _Outcome, *, first: bool = False) -> None:
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

    def _find_diagnosis(self, outcome: _Outcome) -> Diagnosis | None:
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
                warnings.warn(text, LoopCrossingWarning, stacklevel=2)
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
        answer = _read_until(reader, self.timeout + 2 * _GRACE)
        if answer is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if answer is None:
            self._check(_FORKED, _Outcome(hung=True))
        elif not answer:
            text = f"the child ended with status {os.waitstatus_to_exitcode(status)}"
            self._check(_FORKED, _Outcome(error=RuntimeError(text)))
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
    chunks = []
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
