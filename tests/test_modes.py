"""The modes that stop or heal a crossing before a byte is sent, and the ways to ask for them."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import loopsentry
from loopsentry import LoopMismatchError
from loopsentry.model import Mode

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from conftest import Database, RunProgram

BACKEND = text("select pg_backend_pid()")
METHODS = ("do_ping", "do_close", "do_terminate")


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """Collect what a test left to its closed loops, before another test is blamed for it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def ask(engine: AsyncEngine) -> int:
    """Say which backend answers."""
    async with AsyncSession(engine) as session:
        return int((await session.execute(BACKEND)).scalar_one())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop of its own."""
    return asyncio.run(work)


@pytest.fixture
def diagnoses() -> list[loopsentry.Diagnosis]:
    """Give the list of the diagnoses that are made."""
    made: list[loopsentry.Diagnosis] = []
    loopsentry.subscribe(made.append)
    return made


class Owner:
    """A living loop in a thread, which opened the engine's only connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self.troubles: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.troubles.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever, name="owner")

    def __enter__(self) -> Self:
        self.thread.start()
        self.backend = self.run(ask(self.engine))
        return self

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def __exit__(self, *_: object) -> None:
        self.run(self.engine.dispose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()


@pytest.mark.parametrize("ping", [False, True])
def test_raise_stops_each_crossing_before_anything_is_sent(
    database: Database, diagnoses: list[loopsentry.Diagnosis], ping: bool
) -> None:
    """A connection of a closed loop is refused at checkout; the next checkout opens a new one."""
    with loopsentry.install(on_mismatch="raise"):
        engine = database.engine(pool_pre_ping=ping)
        first = run(ask(engine))
        with pytest.raises(LoopMismatchError) as caught:
            run(ask(engine))
        error = caught.value
        assert isinstance(error, RuntimeError)
        assert error.diagnosis is not None
        assert (error.diagnosis.code, error.diagnosis.action) == ("LS101", "raised")
        assert (error.diagnosis.data, error.diagnosis.certainty) == ("not-sent", "proven")
        assert "nothing was sent" in str(error)
        assert "loop A" in str(error)
        assert "[LS101]" in str(error)
        assert any("nothing was sent" in note for note in error.__notes__)
        assert run(ask(engine)) != first
        with pytest.raises(LoopMismatchError, match="LS101"):
            run(ask(engine))
        assert [each.action for each in diagnoses] == ["raised"]  # one mistake is told once
        run(engine.dispose())
    assert run(database.backends()) == 0


@pytest.mark.parametrize("ping", [False, True])
def test_reconnect_replaces_the_connection_and_warns_once(
    database: Database,
    diagnoses: list[loopsentry.Diagnosis],
    capfd: pytest.CaptureFixture[str],
    ping: bool,
) -> None:
    """Ten runs on one engine all work; the warning names both loops, and comes once."""
    with loopsentry.install(on_mismatch="reconnect"):
        engine = database.engine(pool_pre_ping=ping)
        backends = [_run_again(engine) for _ in range(10)]
        run(engine.dispose())
    assert len(set(backends)) == 10
    assert [(each.code, each.action, each.severity) for each in diagnoses] == [
        ("LS101", "reconnected", "warning")
    ]
    assert diagnoses[0].owner_loop is not None
    assert diagnoses[0].owner_loop.started_by is not None
    assert diagnoses[0].owner_loop.started_by.function == "_run_again"
    printed = capfd.readouterr().err
    assert printed.count("warning[LS101]") == 1
    assert "loop A" in printed
    assert "loop B" in printed
    assert run(database.backends()) == 0


def _run_again(engine: AsyncEngine) -> int:
    return int(asyncio.run(ask(engine)))


@pytest.mark.parametrize("mode", ["raise", "reconnect"])
@pytest.mark.parametrize("ping", [False, True])
def test_a_living_owner_closes_its_connection_and_goes_on(
    database: Database, diagnoses: list[loopsentry.Diagnosis], mode: Mode, ping: bool
) -> None:
    """With both loops alive the owner's loop ends the foreign connection, without any trouble."""
    with loopsentry.install(on_mismatch=mode):
        engine = database.engine(pool_pre_ping=ping)
        with Owner(engine) as owner:
            if mode == "raise":
                with pytest.raises(LoopMismatchError, match="LS102"):
                    run(ask(engine))
                assert run(database.backends()) == 0
            else:
                assert run(ask(engine)) != owner.backend
            assert diagnoses[0].code == "LS102"
            assert "crash" not in " ".join(diagnoses[0].notes)
            if mode == "raise":
                assert owner.run(ask(engine)) > 0
        assert owner.troubles == []
    assert run(database.backends()) == 0


def test_a_carried_session_is_annotated_in_every_mode(database: Database) -> None:
    """A session with an open transaction is never healed: it fails and is explained as always."""
    for mode in ("raise", "reconnect"):
        with loopsentry.install(on_mismatch=mode):
            engine = database.engine()
            session = AsyncSession(engine)
            run(_begin(session))
            with pytest.raises(RuntimeError) as caught:
                run(_begin(session))
            assert type(caught.value) is RuntimeError
            assert loopsentry.diagnose(caught.value).code == "LS101"
            assert loopsentry.diagnose(caught.value).action != "reconnected"
            _forget(session)


async def _begin(session: AsyncSession) -> None:
    await session.execute(BACKEND)


def _forget(session: AsyncSession) -> None:
    """Let go of a session whose loop is closed, without a word."""
    session.sync_session.invalidate()


def test_an_engine_option_comes_before_the_mode_of_the_process(database: Database) -> None:
    """The execution option of an engine, or of a view of it, decides for what goes through it."""
    with loopsentry.install(on_mismatch="reconnect"):
        engine = database.engine(execution_options={"loopsentry_on_mismatch": "raise"})
        run(ask(engine))
        with pytest.raises(LoopMismatchError):
            run(ask(engine))
        view = engine.execution_options(loopsentry_on_mismatch="reconnect")
        run(ask(engine))
        assert run(ask(view)) > 0
        run(engine.dispose())
    with loopsentry.install():
        engine = database.engine(execution_options={"loopsentry_on_mismatch": "raise"})
        run(ask(engine))
        with pytest.raises(LoopMismatchError):
            run(ask(engine))
        run(engine.dispose())


def test_an_unknown_engine_option_warns_once_and_changes_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong value names the valid ones, and the mode of the process holds."""
    with loopsentry.install(on_mismatch="raise"):
        engine = database.engine(execution_options={"loopsentry_on_mismatch": "refuse"})
        run(ask(engine))
        with pytest.raises(LoopMismatchError):
            run(ask(engine))
        run(engine.dispose())
    warned = [record.getMessage() for record in caplog.records if "refuse" in record.getMessage()]
    assert len(warned) == 1
    assert "annotate, raise, reconnect" in warned[0]


@pytest.mark.parametrize("ping", [False, True])
def test_engines_that_were_there_before_are_guarded_too(database: Database, ping: bool) -> None:
    """Install with a mode after an engine has connected, and its first crossing is stopped."""
    engine = database.engine(pool_pre_ping=ping)
    run(ask(engine))
    with loopsentry.install(on_mismatch="raise"):
        with pytest.raises(LoopMismatchError, match="nothing was sent"):
            run(ask(engine))
        run(engine.dispose())


def test_a_mode_may_be_changed_later(database: Database) -> None:
    """Calling install() again with another mode changes what happens to the same engine."""
    with loopsentry.install():
        engine = database.engine(pool_pre_ping=True)
        run(ask(engine))
        loopsentry.install(on_mismatch="reconnect")
        assert run(ask(engine)) > 0
        loopsentry.install(on_mismatch="raise")
        with pytest.raises(LoopMismatchError):
            run(ask(engine))
        run(engine.dispose())


def test_uninstalling_leaves_the_dialect_as_it_was(database: Database) -> None:
    """After uninstall() the dialect has its own methods only, and crossings fail as ever."""
    engine = database.engine()
    before = copy.copy(vars(engine.dialect))
    with loopsentry.install(on_mismatch="raise"):
        run(ask(engine))
        assert any(name in vars(engine.dialect) for name in METHODS)
    assert not any(name in vars(engine.dialect) for name in METHODS)
    assert vars(engine.dialect).keys() >= before.keys()


def test_annotate_wraps_nothing(database: Database) -> None:
    """In the default mode no dialect is touched."""
    with loopsentry.install():
        engine = database.engine()
        run(ask(engine))
        assert not any(name in vars(engine.dialect) for name in METHODS)
        run(engine.dispose())


def test_the_error_can_be_pickled(database: Database) -> None:
    """A worker may send the error home; its text and its diagnosis arrive."""
    with loopsentry.install(on_mismatch="raise"):
        engine = database.engine()
        run(ask(engine))
        with pytest.raises(LoopMismatchError) as caught:
            run(ask(engine))
        run(engine.dispose())
    arrived = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made right here
    assert type(arrived) is LoopMismatchError
    assert str(arrived) == str(caught.value)
    assert arrived.diagnosis == caught.value.diagnosis


FORK = """
import asyncio, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry
from loopsentry.model import Mode

loopsentry.install(on_mismatch=sys.argv[1])
engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping="ping" in sys.argv)

async def ask():
    async with engine.connect() as connection:
        return (await connection.execute(text("select pg_backend_pid()"))).scalar_one()

async def main():
    mine = await ask()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            theirs = asyncio.run(ask())
            code = 3 if theirs != mine else 4
        except loopsentry.LoopMismatchError as error:
            code = 5 if error.diagnosis.code == "LS301" else 6
        finally:
            import gc; gc.collect()
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert await ask() == mine, "the parent lost its connection"
    print(ended)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize(("mode", "code"), [("raise", "5"), ("reconnect", "3")])
@pytest.mark.parametrize("ping", [(), ("ping",)])
def test_an_inherited_connection_is_left_alone(
    run_program: RunProgram, mode: str, code: str, ping: tuple[str, ...]
) -> None:
    """A forked child is stopped or gets a connection of its own, and the parent keeps its."""
    result = run_program(FORK, mode, *ping, under=False)
    assert result.stdout.strip() == code, result.output


# the ways to ask ---------------------------------------------------------------------------


def test_the_plugin_in_a_url_installs_and_takes_its_options(dsn: str) -> None:
    """`?plugin=loopsentry` installs; the options set the engine's mode, and no driver sees them."""
    url = dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
    joiner = "&" if "?" in url else "?"
    for options, mode in (("", "annotate"), ("&loopsentry_on_mismatch=raise", "raise")):
        engine = create_async_engine(f"{url}{joiner}plugin=loopsentry{options}")
        assert "loopsentry" not in str(engine.url)
        asked = engine.get_execution_options().get("loopsentry_on_mismatch", "annotate")
        assert asked == mode
        run(ask(engine))
        kind = LoopMismatchError if mode == "raise" else RuntimeError
        with pytest.raises(kind) as caught:
            run(ask(engine))
        diagnosis = loopsentry.diagnose(caught.value)
        assert diagnosis.engine is not None
        assert diagnosis.engine.created_at is not None
        assert diagnosis.engine.created_at.function == (
            "test_the_plugin_in_a_url_installs_and_takes_its_options"
        )
        loopsentry.uninstall()


def test_the_plugin_as_an_argument_installs(database: Database) -> None:
    """`plugins=["loopsentry"]` does the same, and an execution option beats the URL's."""
    engine = database.engine(
        plugins=["loopsentry"], execution_options={"loopsentry_on_mismatch": "raise"}
    )
    run(ask(engine))
    with pytest.raises(LoopMismatchError, match="LS101"):
        run(ask(engine))
    run(engine.dispose())


def test_the_plugin_says_what_it_does_not_know(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown option in the URL is taken out with a warning that lists the known ones."""
    url = dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
    joiner = "&" if "?" in url else "?"
    with caplog.at_level(logging.WARNING, "loopsentry"):
        engine = create_async_engine(f"{url}{joiner}plugin=loopsentry&loopsentry_mode=raise")
    assert "loopsentry_mode in the URL is not known" in caplog.text
    assert "loopsentry_on_mismatch" in caplog.text
    assert run(ask(engine)) > 0
    run(engine.dispose())


PLUGIN_OFF = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry
from loopsentry.model import Mode
from loopsentry import installation

url = os.environ["DATABASE_URL"]
url += ("&" if "?" in url else "?") + "plugin=loopsentry&loopsentry_on_mismatch=raise"
engine = create_async_engine(url)

async def ask():
    async with engine.connect() as connection:
        return (await connection.execute(text("select 1"))).scalar_one()

print(asyncio.run(ask()), installation.current())
try:
    asyncio.run(ask())
except RuntimeError as error:
    print(type(error).__name__, hasattr(error, "__notes__"))
"""


def test_off_means_off_for_the_plugin_and_the_modes(run_program: RunProgram) -> None:
    """With LOOPSENTRY=off the plugin only removes its options, and nothing is stopped."""
    result = run_program(PLUGIN_OFF, env={"LOOPSENTRY": "off"}, under=False)
    assert result.stdout.splitlines()[:2] == ["1 None", "RuntimeError False"], result.output


ENVIRONMENT = textwrap.dedent(
    """
    import asyncio, os, sys
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    import loopsentry

    if len(sys.argv) > 1:
        loopsentry.install(on_mismatch=sys.argv[1])
    else:
        loopsentry.install()
    engine = create_async_engine(os.environ["DATABASE_URL"])

    async def ask():
        async with engine.connect() as connection:
            return (await connection.execute(text("select 1"))).scalar_one()

    asyncio.run(ask())
    try:
        print(asyncio.run(ask()))
    except RuntimeError as error:
        print(type(error).__name__)
    """
)


@pytest.mark.parametrize(
    ("argument", "environment", "outcome"),
    [
        ((), "raise", "LoopMismatchError"),
        ((), "reconnect", "1"),
        ((), "refuse", "RuntimeError"),
        (("reconnect",), "raise", "1"),
        (("annotate",), "raise", "RuntimeError"),
    ],
)
def test_the_environment_decides_where_install_does_not(
    run_program: RunProgram, argument: tuple[str, ...], environment: str, outcome: str
) -> None:
    """LOOPSENTRY_ON_MISMATCH holds unless install() says otherwise; a wrong value only warns."""
    env = {"LOOPSENTRY_ON_MISMATCH": environment}
    result = run_program(ENVIRONMENT, *argument, env=env, under=False)
    assert result.stdout.strip() == outcome, result.output
    if environment == "refuse":
        assert "valid are annotate, raise, reconnect" in result.stderr


# Without a mode, and on one core, two of three runs of this program end with a segmentation fault.
PINNED = """
import asyncio, os, sys, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry
from loopsentry.model import Mode

mode = sys.argv[1]
options = {}
if mode == "pool":
    options["poolclass"] = loopsentry.LoopLocalPool
else:
    loopsentry.install(on_mismatch=mode)
engine = create_async_engine(os.environ["DATABASE_URL"], **options)
right, stopped = [], []

async def ask():
    try:
        async with engine.connect() as connection:
            right.append((await connection.execute(text("select 1"))).scalar_one())
    except loopsentry.LoopMismatchError:
        stopped.append(1)

async def work():
    for _ in range(15):
        await asyncio.gather(*(ask() for _ in range(4)))

asyncio.run(ask())
threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert set(right) == {1}
print(len(right) + len(stopped))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="needs affinity")
@pytest.mark.parametrize("mode", ["raise", "reconnect", "pool"])
def test_two_living_loops_do_not_crash_the_interpreter(run_program: RunProgram, mode: str) -> None:
    """On one core, two threads' loops share an engine and nothing fails but what is refused."""
    result = run_program(PINNED, mode, under=False)
    assert result.returncode == 0, result.output
    assert result.stdout.split()[-1] == "121", result.output
