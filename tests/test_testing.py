"""The multi-loop harness: what it finds, in which arrangement, and what it leaves behind."""

from __future__ import annotations

import asyncio
import functools
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

import loopsentry
from loopsentry import installation
from loopsentry.testing import (
    LoopCrossingWarning,
    LoopSafetyError,
    assert_loop_safe,
    watch_crossings,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def make_select(engine: AsyncEngine) -> Callable[[], Awaitable[Any]]:
    """Make a function that takes a connection out of an engine's pool."""

    async def select_one() -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(text("select 1"))

    return select_one


def leaves_nothing(engine: AsyncEngine) -> bool:
    """Tell whether an engine works on a new loop, after the harness and its loops are gone."""

    async def select() -> bool:
        try:
            return bool(await make_select(engine)() == 1)
        finally:
            await engine.dispose()

    return asyncio.run(select())


def told(error: LoopSafetyError) -> str:
    """Give the text and the note of an error."""
    return "\n".join([str(error), *error.__notes__])


# what breaks -------------------------------------------------------------------------------


@pytest.mark.parametrize("pre_ping", [False, True])
def test_pooled_engine_breaks_after_its_loop(url: str, *, pre_ping: bool) -> None:
    """A pool that outlives its loop is diagnosed, and neither used wrongly nor left broken."""
    engine = create_async_engine(url, pool_pre_ping=pre_ping)
    with pytest.raises(LoopSafetyError, match="after the first one closed") as caught:
        assert_loop_safe(make_select(engine))
    diagnosis = caught.value.diagnosis
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS101", "proven")
    assert "loop B, assert_loop_safe in test_pooled_engine" in told(caught.value)
    assert "here   " in told(caught.value)
    assert leaves_nothing(engine)


def test_nothing_is_sent_on_a_foreign_connection(url: str) -> None:
    """A crossing is stopped before the statement: the function never sees it fail."""
    engine = create_async_engine(url)
    failures = []

    async def count() -> None:
        try:
            await make_select(engine)()
        except Exception as exc:
            failures.append(exc)
            raise

    with pytest.raises(LoopSafetyError):
        assert_loop_safe(count)
    assert failures == []


def test_live_loops_are_told_from_closed_ones(url: str) -> None:
    """With the first arrangement left out, the pool breaks between two living loops."""
    engine = create_async_engine(url)

    async def run() -> None:
        await assert_loop_safe(make_select(engine), skip=["closed-loop"])

    with pytest.raises(LoopSafetyError, match="on two loops alive in two threads") as caught:
        asyncio.run(run())
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.code == "LS102"


@needs_fork
def test_forked_child_is_kept_from_the_parents_connection(url: str) -> None:
    """A child that would use an inherited connection is diagnosed; the parent's stays whole."""
    engines: dict[Any, AsyncEngine] = {}

    async def keyed_by_loop() -> Any:
        # Survives every change of loop, but not a fork.
        loop = asyncio.get_running_loop()
        engine = engines.setdefault(type(loop), create_async_engine(url))
        return await make_select(engine)()

    with pytest.raises(LoopSafetyError, match="in a forked child") as caught:
        assert_loop_safe(keyed_by_loop, skip=["closed-loop", "live-loops"])
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.code in {"LS301", "LS101"}


def test_lock_of_another_loop_breaks() -> None:
    """Not only databases: a lock that somebody waited for belongs to that loop."""
    lock = asyncio.Lock()

    async def wait_in_turn() -> None:
        async def enter() -> None:
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(enter(), enter())

    with pytest.raises(LoopSafetyError) as caught:
        assert_loop_safe(wait_in_turn)
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.code == "LS104"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_hanging_function_is_reported_with_its_place() -> None:
    """What does not end in time is an error that names the line, and no hang."""

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LoopSafetyError, match=r"did not end within 0\.2 s.*wait_for_ever\(\)"):
        assert_loop_safe(wait_for_ever, timeout=0.2)


@needs_fork
def test_child_that_hangs_or_dies_is_reported() -> None:
    """A forked child that hangs is ended, and one that crashes is named with its status."""
    parent = os.getpid()

    async def hang_in_child() -> None:
        if os.getpid() != parent:
            await asyncio.sleep(60)

    async def die_in_child() -> None:
        if os.getpid() != parent:
            os._exit(7)

    only = ["closed-loop", "live-loops", "uvloop"]
    with pytest.raises(LoopSafetyError, match="did not end within"):
        assert_loop_safe(hang_in_child, timeout=0.2, skip=only)
    with pytest.raises(LoopSafetyError, match="ended with status 7"):
        assert_loop_safe(die_in_child, skip=only)


def test_failure_of_the_first_run_is_the_functions_own() -> None:
    """What fails on the very first loop already is raised as it is."""

    async def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        assert_loop_safe(fail)


def test_later_failure_names_its_arrangement() -> None:
    """What fails only later, for a reason that is no loop's, names the arrangement."""
    runs = []

    async def fail_later() -> None:
        runs.append(1)
        if len(runs) > 2:
            raise LookupError("used up")

    with pytest.raises(LoopSafetyError, match="after the first one closed: LookupError: used up"):
        assert_loop_safe(fail_later)


# what does not -----------------------------------------------------------------------------


def test_safe_function_passes_everywhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that keeps nothing passes, with diagnostics off too, and nothing stays installed."""
    monkeypatch.setenv("LOOPSENTRY", "off")
    loops = []
    select_one = make_select(create_async_engine(url, poolclass=NullPool))

    async def note_loop(number: int, *, name: str) -> None:
        loops.append((asyncio.get_running_loop(), number, name))
        await select_one()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_loop_safe(functools.partial(note_loop, name="x"), 3)
    assert len({id(loop) for loop, *_ in loops}) >= 5
    assert {(number, name) for _, number, name in loops} == {(3, "x")}
    assert installation.current() is None


def test_async_test_starts_with_its_own_loop(url: str) -> None:
    """Awaited, the first two runs are on the running loop; its connections are then foreign."""
    engine = create_async_engine(url)
    loops: list[Any] = []

    async def note_loop() -> None:
        loops.append(asyncio.get_running_loop())
        await make_select(engine)()

    async def run() -> None:
        try:
            await assert_loop_safe(note_loop)
        finally:
            assert loops[:2] == [asyncio.get_running_loop()] * 2
            await engine.dispose()

    with pytest.raises(LoopSafetyError, match="after the first one closed") as caught:
        asyncio.run(run())
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.code == "LS102"


def test_tolerant_driver_gives_a_warning(tmp_path: Path) -> None:
    """With aiosqlite nothing fails, and a warning says what asyncpg would do, once."""
    pytest.importorskip("aiosqlite")
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    with pytest.warns(LoopCrossingWarning, match="aiosqlite survives that, asyncpg would") as told:
        assert_loop_safe(make_select(engine), skip=["forked-child"])
    assert len(told) == 1
    asyncio.run(engine.dispose())


def test_psycopg_gives_a_warning(url: str) -> None:
    """Psycopg's connections survive a change of loop as well."""
    pytest.importorskip("psycopg")
    engine = create_async_engine(url.replace("asyncpg", "psycopg"))
    with pytest.warns(LoopCrossingWarning, match="psycopg survives that"):
        assert_loop_safe(make_select(engine), skip=["forked-child", "uvloop"])
    asyncio.run(engine.dispose())


def test_crossings_are_collected(tmp_path: Path) -> None:
    """`watch_crossings` lists both loops and both places, and stops at the end of its block."""
    pytest.importorskip("aiosqlite")
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    select_one = make_select(engine)
    with watch_crossings() as crossings, watch_crossings() as inner:
        asyncio.run(select_one())  # type: ignore[arg-type]
        asyncio.run(select_one())  # type: ignore[arg-type]
    asyncio.run(select_one())  # type: ignore[arg-type]
    [crossing] = crossings
    assert len(inner) == 1
    assert (crossing.owner.label, crossing.current.label) == ("A", "B")
    assert crossing.owner.runner == crossing.current.runner == "asyncio.run"
    assert crossing.opened_at is not None
    assert crossing.opened_at.function == "select_one"
    assert crossing.diagnosis is not None
    assert crossing.diagnosis.severity == "warning"
    asyncio.run(engine.dispose())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"timeout": 0}, "timeout=0"), ({"skip": ["fork"]}, "there are closed-loop, live-loops")],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], said: str) -> None:
    """A timeout of nothing and an unknown arrangement are refused, with what is valid."""
    with pytest.raises(ValueError, match=said):
        assert_loop_safe(asyncio.sleep, 0, **wrong)


def test_installed_loopsentry_stays_as_it_is(url: str) -> None:
    """With diagnostics on, the harness uses them and leaves them attached."""
    lock = asyncio.Lock()

    async def wait_in_turn() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(enter())

    async def enter() -> None:
        async with lock:
            await asyncio.sleep(0)

    with loopsentry.install():
        before = installation.current()
        assert before is not None
        told = list(before.examiner.subscribers)
        with pytest.raises(LoopSafetyError):
            assert_loop_safe(make_select(create_async_engine(url)))
        assert installation.current() is before
        assert before.examiner.subscribers == told
        asyncio.run(wait_in_turn())
        with pytest.raises(ExceptionGroup) as caught:
            asyncio.run(wait_in_turn())
        assert loopsentry.diagnose(caught.value).code == "LS104"
