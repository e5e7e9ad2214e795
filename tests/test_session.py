"""The session scopes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import textwrap
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

import loopsentry
from loopsentry import AsyncSessionFactory, session, session_scope, session_scope_fresh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Database, RunProgram

BACKEND = text("select pg_backend_pid()")


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body on a loop of its own."""

    async def main() -> None:
        await body()

    asyncio.run(main())


def test_fresh_scope_works_on_a_second_loop(database: Database) -> None:
    """A fresh scope works on a later loop while the engine's pool is full of an earlier one's."""
    engine = database.engine()

    async def ask(scope: Callable[[AsyncEngine], session.Scope]) -> Any:
        async with scope(engine) as opened:
            return await opened.scalar(BACKEND)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        shared = first.run(ask(session_scope))
        fresh = second.run(ask(session_scope_fresh))
        assert first.run(ask(session_scope)) == shared != fresh
        first.run(engine.dispose())
        assert first.run(database.backends()) == 0


def test_fresh_scope_leaves_no_backend(database: Database) -> None:
    """A fresh scope opens one backend at its first statement and none is left at its end."""

    async def body() -> None:
        engine = database.engine()
        async with session_scope_fresh(engine) as fresh:
            assert await database.backends() == 0
            await fresh.scalar(BACKEND)
            assert engine.pool.status().startswith("Pool size: 5  Connections in pool: 0")
        assert await database.backends() == 0

    run(body)


def test_shared_scope_uses_the_pool(database: Database) -> None:
    """The shared scope gives its connection back to the engine's pool."""

    async def body() -> None:
        engine = database.engine()
        factory = AsyncSessionFactory(engine)
        backends = set()
        for scope in (factory.session_scope(), session_scope(engine)):
            async with scope as shared:
                backends.add(await shared.scalar(BACKEND))
        await engine.dispose()
        assert len(backends) == 1

    run(body)


@pytest.mark.parametrize("form", ["function", "sessionmaker", "factory", "instance", "class"])
@pytest.mark.parametrize("kind", ["session_scope", "session_scope_fresh"])
def test_every_form_yields_a_working_session(database: Database, form: str, kind: str) -> None:
    """Each way to write a scope yields a session on the database of the engine."""
    engine = database.engine()
    factory = AsyncSessionFactory(engine)
    function = getattr(loopsentry, kind)
    scope = {
        "function": lambda: function(engine),
        "sessionmaker": lambda: function(async_sessionmaker(engine)),
        "factory": lambda: function(factory),
        "instance": getattr(factory, kind),
        "class": getattr(AsyncSessionFactory, kind),
    }[form]

    async def body() -> None:
        async with scope() as opened:
            assert await opened.scalar(text("show application_name")) == database.name
        await engine.dispose()
        assert await database.backends() == 0

    run(body)


def test_factory_takes_a_url(url: str) -> None:
    """A factory made of a URL makes its own engine and hands options to the sessionmaker."""

    async def body() -> None:
        factory = AsyncSessionFactory(url, expire_on_commit=False)
        async with factory.session_scope_fresh() as fresh:
            assert await fresh.scalar(text("select 1")) == 1
            assert fresh.sync_session.expire_on_commit is False

    run(body)


@pytest.mark.parametrize("source", [None, 3, "engine"])
def test_wrong_source_is_refused_at_once(source: Any) -> None:
    """What is no engine, no sessionmaker and no factory is a TypeError, before any await."""
    with pytest.raises(TypeError, match="expected an AsyncEngine"):
        session_scope_fresh(source)


def test_sessionmaker_without_engine_is_refused() -> None:
    """A sessionmaker that names no engine leaves nothing to make a fresh engine of."""
    with pytest.raises(loopsentry.EngineNotChosenError, match="bind"):
        session_scope_fresh(async_sessionmaker())


def test_sessionmaker_options_survive(database: Database) -> None:
    """A fresh session has the options of its sessionmaker."""
    maker = async_sessionmaker(database.engine(), expire_on_commit=False, info={"tenant": "acme"})

    async def body() -> None:
        async with session_scope_fresh(maker) as fresh:
            assert fresh.sync_session.expire_on_commit is False
            assert fresh.info == {"tenant": "acme"}

    run(body)


@pytest.mark.parametrize("scope", [session_scope, session_scope_fresh])
def test_session_options_pass_through(database: Database, scope: Any) -> None:
    """Options of a scope are the session's, and come before those of its sessionmaker."""
    maker = async_sessionmaker(database.engine(), expire_on_commit=True, info={"tenant": "acme"})

    async def body() -> None:
        async with scope(maker, expire_on_commit=False, autoflush=False) as session:
            assert session.sync_session.expire_on_commit is False
            assert session.sync_session.autoflush is False
            assert session.info == {"tenant": "acme"}
        factory = loopsentry.AsyncSessionFactory(database.engine())
        async with getattr(factory, scope.__name__)(expire_on_commit=False) as session:
            assert session.sync_session.expire_on_commit is False

    run(body)


@pytest.mark.parametrize("scope", [session_scope, session_scope_fresh])
@pytest.mark.parametrize("name", ["bind", "binds"])
def test_a_scope_binds_the_session_itself(url: str, scope: Any, name: str) -> None:
    """An engine among the session's options is refused at once, with the way to name it."""
    with pytest.raises(TypeError, match=f"{name}= cannot be given.*first argument"):
        scope(create_async_engine(url), **{name: None})


@pytest.mark.parametrize("warm", [True, False])
def test_json_codec_survives(database: Database, warm: bool) -> None:
    """JSON arrives decoded in a fresh session, whether or not the engine had connected before."""

    async def body() -> None:
        engine = database.engine()
        if warm:
            async with engine.connect() as connection:
                await connection.scalar(BACKEND)
        async with session_scope_fresh(engine) as fresh:
            assert await fresh.scalar(text("""select '{"a": 1}'::jsonb""")) == {"a": 1}
        await engine.dispose()

    run(body)


def test_own_serializer_and_execution_options_survive(database: Database) -> None:
    """A codec and an isolation level chosen on the engine hold in a fresh session."""
    engine = database.engine(json_deserializer=lambda _: "decoded").execution_options(
        isolation_level="SERIALIZABLE"
    )

    async def body() -> None:
        async with session_scope_fresh(engine) as fresh:
            assert await fresh.scalar(text("select '{}'::json")) == "decoded"
            level = await fresh.scalar(text("show transaction_isolation"))
            assert level == "serializable"

    run(body)


def test_events_survive(database: Database) -> None:
    """Listeners of the engine and of its pool hear the fresh engine, each event once."""
    heard: list[str] = []

    async def body() -> None:
        engine = database.engine()
        sync = engine.sync_engine
        event.listen(sync, "before_cursor_execute", lambda *_: heard.append("execute"))
        event.listen(sync, "connect", lambda *_: heard.append("connect"))
        event.listen(sync.pool, "checkout", lambda *_: heard.append("checkout"))
        event.listen(sync, "engine_disposed", lambda *_: heard.append("disposed"))
        async with engine.connect() as connection:
            await connection.scalar(BACKEND)
        await engine.dispose()
        heard.clear()
        async with session_scope_fresh(engine) as fresh:
            await fresh.scalar(BACKEND)

    run(body)
    assert heard == ["connect", "checkout", "execute"]


def test_source_pool_is_untouched(database: Database) -> None:
    """Neither the source's pool nor its checked-out connections notice a fresh scope."""

    async def body() -> None:
        engine = database.engine()
        pool = engine.sync_engine.pool
        async with engine.connect() as connection:
            held = await connection.scalar(BACKEND)
            async with session_scope_fresh(engine) as fresh:
                assert await fresh.scalar(BACKEND) != held
            assert await connection.scalar(BACKEND) == held
        assert engine.sync_engine.pool is pool
        await engine.dispose()

    run(body)


@pytest.mark.parametrize("kind", ["session_scope", "session_scope_fresh"])
def test_scope_neither_commits_nor_swallows(database: Database, kind: str) -> None:
    """An exception leaves a scope as it is, and what was not committed is gone."""
    failure = LookupError("mine")
    table = f"t{uuid4().hex}"

    async def body() -> None:
        engine = database.engine()

        async def fail() -> None:
            async with getattr(loopsentry, kind)(engine) as opened:
                await opened.execute(text(f"create table {table} (name text)"))
                raise failure

        with pytest.raises(LookupError) as caught:
            await fail()
        assert caught.value is failure
        async with session_scope(engine) as opened:
            assert await opened.scalar(text(f"select to_regclass('{table}')::text")) is None
        await engine.dispose()
        assert await database.backends() == 0

    run(body)


def test_cancelled_body_leaves_no_backend(database: Database) -> None:
    """A fresh scope whose body is cancelled in a statement is cancelled and leaves no backend."""

    async def sleep_long(engine: AsyncEngine) -> None:
        async with session_scope_fresh(engine) as fresh:
            await fresh.execute(text("select pg_sleep(20)"))

    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await sleep_long(database.engine())
        assert await database.backends() == 0

    run(body)


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_closing_leaves_no_backend(
    database: Database, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation, even a second one, while the scope closes leaves no backend behind."""
    monkeypatch.setattr(session, "GRACE", 0.2)
    closing = asyncio.Event()

    async def hold(engine: AsyncEngine) -> None:
        async with session_scope_fresh(engine) as fresh:
            await fresh.scalar(BACKEND)
            real = fresh.close

            async def close_slowly() -> None:
                closing.set()
                await asyncio.sleep(0.1 if times == 1 else 5)
                await real()

            monkeypatch.setattr(fresh, "close", close_slowly)

    async def body() -> None:
        task = asyncio.create_task(hold(database.engine()))
        await closing.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await database.backends() == 0

    run(body)


def test_end_of_the_loop_leaves_no_backend(database: Database) -> None:
    """A fresh scope still open when `asyncio.run` cancels everything leaves no backend."""

    async def hold(engine: AsyncEngine) -> None:
        async with session_scope_fresh(engine) as fresh:
            await fresh.scalar(BACKEND)
            await asyncio.sleep(20)

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(hold(database.engine()))
        await asyncio.sleep(0.3)
        return task

    assert asyncio.run(leave()).cancelled()

    async def body() -> None:
        assert await database.backends() == 0

    run(body)


def test_failing_close_still_disposes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the session cannot be closed, the program hears of it and no backend stays behind."""

    async def refuse() -> None:
        raise OSError("cannot close")

    async def work() -> None:
        async with session_scope_fresh(database.engine()) as fresh:
            await fresh.scalar(BACKEND)
            monkeypatch.setattr(fresh, "close", refuse)

    async def body() -> None:
        with pytest.raises(OSError, match="cannot close"):
            await work()
        assert await database.backends() == 0

    run(body)


def test_many_fresh_scopes_at_once_know_their_server(database: Database) -> None:
    """Fresh scopes that open the very first connections together all know the server's version."""

    async def ask(engine: AsyncEngine) -> Any:
        async with session_scope_fresh(engine) as fresh:
            connection = await fresh.connection()
            return connection.dialect.default_schema_name

    async def body() -> None:
        engine = database.engine()
        names = await asyncio.gather(*(ask(engine) for _ in range(8)))
        assert set(names) == {"public"}
        assert engine.dialect.default_schema_name == "public"

    run(body)


CLASS_FORM = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from loopsentry import AsyncSessionFactory, EngineNotChosenError

URL = "postgresql+asyncpg://user:hunter2@db.example/{name}?sslpassword=hunter3"
"""


def program(body: str) -> str:
    """Write a program around a body."""
    return CLASS_FORM + textwrap.dedent(body)


@pytest.mark.parametrize("under", [True, False])
def test_class_form_finds_the_only_engine(run_program: RunProgram, under: bool) -> None:
    """On the class, a scope is of the one engine in memory, however many fresh ones there were."""
    ended = run_program(
        program("""
        engine = create_async_engine(os.environ["DATABASE_URL"])

        async def main():
            for _ in range(3):
                async with AsyncSessionFactory.session_scope_fresh() as session:
                    async with AsyncSessionFactory.session_scope_fresh() as inner:
                        print(await inner.scalar(text("select 42")))
            view = engine.execution_options(isolation_level="SERIALIZABLE")
            async with AsyncSessionFactory.session_scope() as session:
                print(session.bind.sync_engine.pool is engine.sync_engine.pool)
            await view.dispose()

        asyncio.run(main())
        """),
        under=under,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["42", "42", "42", "True"]
    assert ended.records == []


def test_class_form_without_engine_says_what_to_do(run_program: RunProgram) -> None:
    """On the class and without any engine, the error says how to name one."""
    ended = run_program(
        program("""
        try:
            AsyncSessionFactory.session_scope_fresh()
        except LookupError as exc:
            print(type(exc).__name__, exc)
        """),
        under=False,
    )
    assert ended.stdout.startswith("EngineNotChosenError no async engine is known")
    assert "session_scope_fresh(engine)" in ended.stdout


def test_class_form_with_several_engines_lists_them(run_program: RunProgram) -> None:
    """On the class and with several engines, the error lists them without their secrets."""
    ended = run_program(
        program("""
        engines = [create_async_engine(URL.format(name=name)) for name in ("one", "two")]
        try:
            AsyncSessionFactory.session_scope()
        except EngineNotChosenError as exc:
            print(exc)
        """),
        under=False,
    )
    assert ended.stdout.startswith("2 async engines are known in this process: ")
    assert "db.example/one" in ended.stdout
    assert "db.example/two" in ended.stdout
    assert "hunter" not in ended.stdout


def test_class_form_prefers_the_only_factory(run_program: RunProgram) -> None:
    """On the class, a living factory is chosen before any other engine, with its options."""
    ended = run_program(
        program("""
        other = create_async_engine(URL.format(name="other"))
        db = AsyncSessionFactory(os.environ["DATABASE_URL"], expire_on_commit=False)

        async def main():
            async with AsyncSessionFactory.session_scope_fresh() as session:
                print(await session.scalar(text("select 1")))
                print(session.sync_session.expire_on_commit)

        asyncio.run(main())
        """),
        under=False,
    )
    assert (ended.stdout.split(), ended.stderr) == (["1", "False"], "")


def test_scopes_work_switched_off(run_program: RunProgram) -> None:
    """With `LOOPSENTRY=off` the scopes work as ever, across two loops, and nothing is reported."""
    ended = run_program(
        program("""
        import loopsentry
        loopsentry.install()
        engine = create_async_engine(os.environ["DATABASE_URL"])

        async def main():
            async with loopsentry.session_scope_fresh(engine) as session:
                print(await session.scalar(text("select 7")))

        asyncio.run(main())
        asyncio.run(main())
        """),
        env={"LOOPSENTRY": "off"},
    )
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["7", "7"], "")
    assert ended.records == []


def test_session_module_does_not_load_the_diagnostics(run_program: RunProgram) -> None:
    """The scopes do not import the installation, its probes or its hooks."""
    ended = run_program(
        program("""
        import sys
        print([n for n in ("installation", "probes", "hooks") if f"loopsentry.{n}" in sys.modules])
        """),
        under=False,
    )
    assert ended.stdout.strip() == "[]"


def test_sqlite_file_works(tmp_path: Any) -> None:
    """A fresh scope works with another driver too."""
    path = os.fspath(tmp_path / "data.db")

    async def body() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with session_scope_fresh(engine) as fresh:
            assert await fresh.scalar(text("select 5")) == 5
        await engine.dispose()

    run(body)
