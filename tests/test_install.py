"""Installing and uninstalling: what is touched, what is left, what is said."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.event import registry
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, Pool

import loopsentry
from loopsentry import installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunProgram

# What these programs abandon on closed loops is complained of when it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROUNDS = 100


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what a test abandoned while its warnings are still ignored."""
    yield
    gc.collect()


def listeners() -> list[str]:
    """Name the events for which somebody listens on the classes themselves."""
    classes = (id(Pool), id(Engine))
    return sorted(key[1] for key in registry._key_to_collection if key[0] in classes)


def filters() -> dict[str, int]:
    """Count the filters and handlers of every logger there is."""
    known = logging.root.manager.loggerDict.values()
    loggers = [logger for logger in known if isinstance(logger, logging.Logger)]
    return {
        logger.name: len(logger.filters) + len(logger.handlers)
        for logger in loggers
        if logger.filters or logger.handlers
    }


async def use(engine: AsyncEngine) -> None:
    """Run one statement on an engine."""
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))


def test_installing_twice_is_installing_once() -> None:
    """A second install() changes the options only; one uninstall() undoes both."""
    before = sys.excepthook, listeners()
    loopsentry.install()
    once = sys.excepthook, listeners()
    loopsentry.install(evict=True)
    assert (sys.excepthook, listeners()) == once
    installed = installation.current()
    assert installed is not None
    assert installed.examiner.options.evict is True
    loopsentry.uninstall()
    assert (sys.excepthook, listeners()) == before


def test_uninstalling_what_is_not_installed_does_nothing() -> None:
    """uninstall() may be called at any time."""
    loopsentry.uninstall()
    loopsentry.uninstall()
    assert installation.current() is None


def test_install_is_a_context_manager() -> None:
    """Leaving the handle uninstalls, however the block ends."""
    before = sys.excepthook, listeners(), filters()
    with suppress(KeyError), loopsentry.install():
        assert installation.current() is not None
        raise KeyError("mine")
    assert installation.current() is None
    assert (sys.excepthook, listeners(), filters()) == before


def test_what_install_returns_explains_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle's repr says the version, the options that were asked for, and what is seen."""
    engine = create_async_engine(url, poolclass=NullPool)
    handle = loopsentry.install()
    version = loopsentry.__version__
    assert (
        repr(handle) == f"<loopsentry {version} installed: on_mismatch='annotate'; 0 engines seen>"
    )
    loopsentry.install(on_mismatch="raise", evict=True, rewrite_message=False, watch=7)
    asyncio.run(use(engine))
    asked = "on_mismatch='raise', evict=True, rewrite_message=False, watch=7.0"
    assert repr(handle) == f"<loopsentry {version} installed: {asked}; 1 engine seen>"
    loopsentry.uninstall()
    assert repr(handle) == f"<loopsentry {version}: not installed>"
    monkeypatch.setenv("LOOPSENTRY", "off")
    assert repr(loopsentry.install()) == f"<loopsentry {version}: switched off by LOOPSENTRY>"


def test_a_hundred_rounds_leave_nothing_behind(url: str) -> None:
    """After install and uninstall every hook, filter, listener and loop handler is as before."""
    engine = create_async_engine(url)
    before = sys.excepthook, listeners(), filters()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        mine = lambda loop, context: loop.default_exception_handler(context)  # noqa: E731
        loop.set_exception_handler(mine)
        for number in range(ROUNDS):
            with loopsentry.install():
                if number % 10 == 0:
                    runner.run(use(engine))
                    runner.run(engine.dispose())
        assert loop.get_exception_handler() is mine
        runner.run(engine.dispose())
    assert (sys.excepthook, listeners(), filters()) == before


def test_listeners_that_the_program_cleared_are_not_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Taking out listeners that somebody cleared, as SQLAlchemy's own tests do, is no failure."""
    handle = loopsentry.install()
    Pool.dispatch._clear()  # type: ignore[call-arg] # a class's, not an instance's
    with handle:
        pass
    assert installation.current() is None
    assert "failed" not in caplog.text


def test_a_loop_without_a_handler_gets_none_back(url: str) -> None:
    """The exception handler of a loop that had none is taken off again."""
    engine = create_async_engine(url, poolclass=NullPool)
    with asyncio.Runner() as runner:
        with loopsentry.install():
            runner.run(use(engine))
            assert runner.get_loop().get_exception_handler() is not None
        assert runner.get_loop().get_exception_handler() is None


def test_the_listeners_are_on_the_classes_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the classes are listened to, and `event.contains` finds nothing afterwards."""
    engine = create_async_engine(url)
    attached: list[tuple[Any, str, Any]] = []
    listen = event.listen

    def follow(*listener: Any) -> None:
        attached.append(listener)
        listen(*listener)

    monkeypatch.setattr(event, "listen", follow)
    loopsentry.install()
    assert {target for target, _, _ in attached} == {Pool, Engine}
    assert all(event.contains(*listener) for listener in attached)
    loopsentry.uninstall()
    assert not any(event.contains(*listener) for listener in attached)
    assert not any(event.contains(engine.pool, *one[1:]) for one in attached if one[0] is Pool)


def test_hooks_that_others_set_later_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """An excepthook put on top of loopsentry's survives, and goes on calling the first one."""
    heard: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda *_: heard.append("first"))
    loopsentry.install()
    ours = sys.excepthook

    def later(*given: Any) -> None:
        heard.append("later")
        ours(*given)

    monkeypatch.setattr(sys, "excepthook", later)
    loopsentry.uninstall()
    assert sys.excepthook is later
    exc = RuntimeError("got Future attached to a different loop")
    sys.excepthook(RuntimeError, exc, None)
    assert heard == ["later", "first"]
    assert not hasattr(exc, "__notes__")


def test_switched_off_means_no_hook_and_no_note(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """With LOOPSENTRY=off install() attaches nothing and nothing is said."""
    monkeypatch.setenv("LOOPSENTRY", "off")
    before = sys.excepthook, listeners(), filters()
    with loopsentry.install():
        assert (sys.excepthook, listeners(), filters()) == before
        engine = create_async_engine(url)
        asyncio.run(use(engine))
        with pytest.raises(RuntimeError) as failed:
            asyncio.run(use(engine))
        engine.sync_engine.dispose(close=False)
    assert not hasattr(failed.value, "__notes__")
    assert "LS101" not in str(failed.value)


def test_the_environment_decides_over_install(run_program: RunProgram) -> None:
    """A program under LOOPSENTRY=off fails as without loopsentry, and reports nothing."""
    ended = run_program(TWO_RUNS, env={"LOOPSENTRY": "off"})
    assert ended.returncode == 1
    assert not ended.records
    assert "LS101" not in ended.output


TWO_RUNS = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use():
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))
def first(): asyncio.run(use())
def second(): asyncio.run(use())
if __name__ == "__main__":
    first()
    second()
"""


def test_engines_and_connections_from_before_install_are_seen(url: str) -> None:
    """A connection opened before install() is diagnosed, its loop's starter "not recorded"."""
    engine = create_async_engine(url)
    asyncio.run(use(engine))
    with loopsentry.install():
        with pytest.raises(RuntimeError) as failed:
            asyncio.run(use(engine))
        engine.sync_engine.dispose(close=False)
    diagnosis = loopsentry.diagnose(failed.value)
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.certainty) == ("LS101", "proven")
    assert diagnosis.owner_loop is not None
    assert diagnosis.owner_loop.state == "closed"
    assert diagnosis.owner_loop.started_by is None
    assert diagnosis.object is not None
    assert diagnosis.object.birth is not None
    assert diagnosis.object.birth.recorded is False
    assert "not recorded" in failed.value.__notes__[0]


def test_engines_made_before_install_are_recorded(url: str) -> None:
    """An engine that is older than install() has its connections recorded from then on."""
    engine = create_async_engine(url)
    with loopsentry.install():
        asyncio.run(use(engine))
        with pytest.raises(RuntimeError) as failed:
            asyncio.run(use(engine))
        engine.sync_engine.dispose(close=False)
    diagnosis = loopsentry.diagnose(failed.value)
    assert diagnosis is not None
    assert diagnosis.owner_loop is not None
    assert diagnosis.owner_loop.started_by is not None
    assert (
        diagnosis.owner_loop.started_by.function == "test_engines_made_before_install_are_recorded"
    )


def test_an_unknown_mode_is_refused() -> None:
    """A mode that does not exist gives a ValueError with the valid ones."""
    with pytest.raises(ValueError, match=r"nonsense.*annotate.*raise.*reconnect"):
        loopsentry.install(on_mismatch="nonsense")  # type: ignore[arg-type]


def test_an_unknown_mode_in_the_environment_only_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """LOOPSENTRY_ON_MISMATCH never breaks a program: it warns, and annotates."""
    monkeypatch.setenv("LOOPSENTRY_ON_MISMATCH", "nonsense")
    loopsentry.install()
    installed = installation.current()
    assert installed is not None
    assert installed.examiner.options.on_mismatch == "annotate"
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert "nonsense" in warning.getMessage()
    assert "annotate" in warning.getMessage()


def test_install_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """install() says in one INFO record that it is there, with its version and mode."""
    caplog.set_level(logging.INFO, "loopsentry")
    loopsentry.install()
    loopsentry.install()
    (record,) = [record for record in caplog.records if record.name == "loopsentry"]
    assert record.levelno == logging.INFO
    assert loopsentry.__version__ in record.getMessage()
    assert "annotate" in record.getMessage()


def test_the_namesake_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """When the other distribution that owns the import name is installed, install() says so."""
    folder = tmp_path / "loopsentry-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: loopsentry\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    loopsentry.install()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'loopsentry' 1.0" in warning.getMessage()
    assert "sqlalchemy-loopsentry" in warning.getMessage()


def test_nothing_is_kept_alive(url: str) -> None:
    """Loops, engines, connections and exceptions die as they would without loopsentry."""
    dying: list[weakref.ref[Any]] = []

    class OwnError(Exception):
        """An exception that takes a weak reference."""

    async def work(engine: AsyncEngine) -> None:
        dying.append(weakref.ref(asyncio.get_running_loop()))
        async with engine.begin() as connection:
            raw = await connection.get_raw_connection()
            dying.append(weakref.ref(raw.driver_connection))
            await connection.execute(text("select 1"))

    async def fail() -> None:
        raise OwnError("attached to a different loop")

    def run() -> None:
        engine = create_async_engine(url)
        dying.append(weakref.ref(engine.sync_engine))
        dying.append(weakref.ref(engine.pool))
        asyncio.run(work(engine))
        with pytest.raises(RuntimeError):
            asyncio.run(work(engine))
        with pytest.raises(OwnError) as failed:
            asyncio.run(fail())
        dying.append(weakref.ref(failed.value))
        loopsentry.diagnose(failed.value)
        engine.sync_engine.dispose(close=False)

    with loopsentry.install():
        run()
        for _ in range(3):
            gc.collect()
        assert len(dying) == 7
        assert [reference() for reference in dying if reference() is not None] == []


def test_a_loop_that_its_own_handler_names_dies_too(url: str) -> None:
    """A loop whose exception handler refers to it is not kept alive by the wrapped handler."""

    async def work() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: loop.default_exception_handler(context))
        engine = create_async_engine(url)
        await use(engine)
        await engine.dispose()
        return weakref.ref(loop)

    with loopsentry.install():
        reference = asyncio.run(work())
        gc.collect()
        assert reference() is None


def test_a_handler_set_before_is_called_once(url: str) -> None:
    """A loop's own exception handler hears each failure once, and loopsentry explains it before."""
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(context))
        engine = create_async_engine(url)
        await use(engine)
        await engine.dispose()
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with loopsentry.install():
        asyncio.run(main())
    assert [type(context["exception"]) for context in heard] == [ZeroDivisionError]


def test_subscribing_before_install_is_heard(url: str) -> None:
    """A callback subscribed before install() hears the diagnoses made after it."""
    heard: list[loopsentry.Diagnosis] = []
    end = loopsentry.subscribe(heard.append)
    try:
        engine = create_async_engine(url)
        with loopsentry.install():
            asyncio.run(use(engine))
            with pytest.raises(RuntimeError):
                asyncio.run(use(engine))
            engine.sync_engine.dispose(close=False)
    finally:
        end()
    assert [diagnosis.code for diagnosis in heard] == ["LS101"]
