"""LoopLocalPool and the modes over TLS."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from conftest import Database
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import loopsentry
from loopsentry import LoopLocalPool, LoopMismatchError
from loopsentry.model import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class Terminator:
    """Speaks TLS as PostgreSQL does, and passes everything on to a server that does not."""

    def __init__(self, dsn: str, context: ssl.SSLContext) -> None:
        self.known = make_url(dsn)
        self.context = context
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        starting = asyncio.start_server(self.handle, "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(10)
        self.port = self.server.sockets[0].getsockname()[1]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the request for TLS, then be a pipe."""
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(self.context)
            inner_reader, inner_writer = await self.connect()
            await asyncio.gather(
                self.pass_on(reader, inner_writer), self.pass_on(inner_reader, writer)
            )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server, through its socket or its port."""
        folder = self.known.query.get("host") or self.known.host or "127.0.0.1"
        port = self.known.port or 5432
        if str(folder).startswith("/"):
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        return await asyncio.open_connection(str(folder), port)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, and its end."""
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    def close(self) -> None:
        """Stop listening."""

        async def finish() -> None:
            self.server.close()
            pending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(finish(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def secured(dsn: str) -> Iterator[tuple[str, str, ssl.SSLContext]]:
    """Give the server's URL, the same over TLS, and a context that trusts that."""
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    terminator = Terminator(dsn, serving)
    known = make_url(dsn)
    url = URL.create(
        "postgresql+asyncpg",
        username=known.username,
        password=known.password,
        host="127.0.0.1",
        port=terminator.port,
        database=known.database,
    )
    yield dsn, url.render_as_string(hide_password=False), trusting
    terminator.close()


class SecuredDatabase(Database):
    """Makes engines that use TLS."""

    def __init__(self, dsn: str, url: str, context: ssl.SSLContext) -> None:
        super().__init__(dsn, url)
        self.context = context

    def engine(self, **options: Any) -> AsyncEngine:
        """Make an engine whose connections carry the name, and are encrypted."""
        settings = {"server_settings": {"application_name": self.name}, "ssl": self.context}
        return create_async_engine(self.url, connect_args=settings, **options)


@pytest.fixture
def database(secured: tuple[str, str, ssl.SSLContext]) -> SecuredDatabase:
    """Give a way to make encrypted engines."""
    return SecuredDatabase(*secured)


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Give a way to make a loop, of each kind."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop: Any = pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


async def ask(engine: AsyncEngine) -> bool:
    """Say whether the answer comes over TLS."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        raw: Any = await connection.get_raw_connection()
        transport = raw.driver_connection._transport
        return transport.get_extra_info("ssl_object") is not None


def run(work: Coroutine[Any, Any, Any], new_loop: Callable[[], Any]) -> Any:
    """Run a coroutine on a loop of its own."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # uvloop's, of a bare close
def test_backends_end_with_their_loop(
    database: SecuredDatabase, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """However a loop ends, and wherever the engine is disposed of, no encrypted backend stays."""
    engine = database.engine(poolclass=LoopLocalPool)
    assert run(ask(engine), new_loop) is True
    assert asyncio.run(database.backends()) == 0
    bare = new_loop()
    bare.run_until_complete(ask(engine))
    bare.close()
    assert asyncio.run(database.backends()) == 0
    stopped = new_loop()
    stopped.run_until_complete(ask(engine))
    asyncio.run(engine.dispose())
    assert asyncio.run(database.backends()) == 0
    assert stopped.run_until_complete(ask(engine)) is True
    stopped.run_until_complete(stopped.shutdown_asyncgens())
    stopped.close()


@pytest.mark.parametrize("mode", ["raise", "reconnect"])
def test_a_foreign_connection_is_ended_unharmed(
    database: SecuredDatabase, new_loop: Callable[[], asyncio.AbstractEventLoop], mode: Mode
) -> None:
    """A connection of a living loop is refused or replaced, and its owner sees no trouble."""
    troubles: list[object] = []
    owner = new_loop()
    owner.set_exception_handler(lambda _loop, context: troubles.append(context))
    thread = threading.Thread(target=owner.run_forever)
    thread.start()
    with loopsentry.install(on_mismatch=mode):
        engine = database.engine()
        asyncio.run_coroutine_threadsafe(ask(engine), owner).result(30)
        if mode == "raise":
            with pytest.raises(LoopMismatchError, match="LS102"):
                run(ask(engine), new_loop)
        else:
            assert run(_ask_and_dispose(engine), new_loop) is True
        assert asyncio.run(database.backends()) == 0
    asyncio.run_coroutine_threadsafe(_finish(), owner).result(30)
    owner.call_soon_threadsafe(owner.stop)
    thread.join(30)
    owner.close()
    assert troubles == []


async def _finish() -> None:
    """Let a loop end the connections that it is taking leave of: TLS waits for the other side."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)
    for _ in range(3):
        await asyncio.sleep(0)


async def _ask_and_dispose(engine: AsyncEngine) -> bool:
    answer = await ask(engine)
    await engine.dispose()
    return answer
