"""Nothing secret leaves: marked secrets, looked for in all that loopsentry adds."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import create_async_engine

import loopsentry
from loopsentry._safely import safely
from loopsentry.engines import masked

if TYPE_CHECKING:
    from conftest import Result, RunProgram

SECRET = re.compile(r"(?i)s3cr3t\w*")

# Every place where a program keeps a secret has its own mark, so that a leak names its source.
PROGRAM = """
import asyncio, logging, os, sys
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
import loopsentry

class Printer(logging.Handler):
    def emit(self, record):
        print("LOG", record.getMessage(), vars(record).get("loopsentry"))

logger = logging.getLogger("loopsentry")
logger.addHandler(Printer())
logger.setLevel(logging.DEBUG)

url = make_url(os.environ["DATABASE_URL"]).set(password="S3cr3tUrl")
url = url.update_query_dict({"password": "S3cr3tQuery", "sslpassword": "S3cr3tSsl"})
engine = create_async_engine(url, pool_pre_ping="ping" in sys.argv)

@event.listens_for(engine.sync_engine, "do_connect")
def connect(dialect, record, args, kwargs):
    kwargs.pop("password", None), kwargs.pop("sslpassword", None)

async def use(s3cr3tparameter="S3cr3tArgument"):
    s3cr3t_local = "S3cr3tLocal"
    async with AsyncSession(engine) as session:
        await session.execute(text("select cast(:word as text)"), {"word": "S3cr3tParameter"})
        await session.commit()

class Application:
    def __init__(self): self.password = "S3cr3tAttribute"
    async def __call__(self, scope, receive, send):
        request = await receive()
        await use()

async def receive():
    return {"type": "http.request", "body": b"S3cr3tBody"}

async def call():
    scope = {"type": "http", "method": "POST", "path": "/S3cr3tPath",
             "raw_path": b"/S3cr3tPath", "query_string": b"token=S3cr3tQueryString",
             "headers": [(b"authorization", b"S3cr3tHeader"), (b"cookie", b"S3cr3tCookie")]}
    await loopsentry.LoopSentryMiddleware(Application())(scope, receive, None)

loopsentry.install(verbose="verbose" in sys.argv)
loopsentry.subscribe(lambda diagnosis: print("DIAGNOSIS", repr(diagnosis)))
asyncio.run(use())
for _ in range(2):
    try:
        asyncio.run(call() if "request" in sys.argv else use())
    except Exception as exc:
        inner = [exc, *([exc.orig] if hasattr(exc, "orig") else [])]
        for each in inner:
            for note in getattr(each, "__notes__", ()):
                print("NOTE", note)
            added = str(each).partition("[LS")[2].partition("[SQL")[0]
            print("TEXT", added)
if "dispose" in sys.argv:
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "do_connect", connect)
    asyncio.run(use())
    asyncio.run(engine.dispose())
"""


def additions(ended: Result) -> str:
    """Give all that loopsentry printed, reported or logged."""
    assert ended.records, ended.output
    assert "NOTE" in ended.stdout
    assert "TEXT" in ended.stdout
    assert "LOG" in ended.stdout
    assert "DIAGNOSIS" in ended.stdout
    return ended.output + json.dumps(ended.records)


@pytest.mark.parametrize("way", ["session", "request", "ping", "verbose", "dispose"])
def test_no_secret_is_in_anything_that_is_added(run_program: RunProgram, way: str) -> None:
    """Passwords, parameters, variables, headers and bodies are in no note, record, log or text."""
    ended = run_program(PROGRAM, way, env={"PYTHONWARNINGS": "ignore"})
    assert ended.returncode == 0, ended.stderr
    assert SECRET.findall(additions(ended)) == []


def test_the_engine_is_still_told(run_program: RunProgram) -> None:
    """The URL is in the record with its secrets masked, so that the engine can be recognised."""
    (record, *_) = run_program(PROGRAM, "session", env={"PYTHONWARNINGS": "ignore"}).records
    assert record["engine"]["url"].startswith("postgresql+asyncpg://")
    assert "***" in record["engine"]["url"]


def test_a_failure_of_its_own_tells_nothing_of_the_programs(
    caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """The traceback that loopsentry logs of itself leaves out the exception it was looking at."""

    @safely
    def look() -> None:
        raise LookupError("of our own")

    engine = create_async_engine(url)
    shown: list[str] = []
    secret = f"S3cr{3}tParameter"  # not in any line that a traceback quotes

    async def fail() -> None:
        try:
            async with engine.connect() as connection:
                await connection.execute(text("select :word / 0"), {"word": secret})
        except DBAPIError as exc:
            shown.append(str(exc))
            look()
        finally:
            await engine.dispose()

    asyncio.run(fail())
    assert SECRET.search(shown[0])
    assert "of our own" in caplog.text
    assert SECRET.findall(caplog.text) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://app:S3cr3t@db:5432/shop",
        "postgresql+asyncpg://S3cr3t@db/shop",
        "postgresql+asyncpg://db/shop?pwd=S3cr3t",
        "postgresql+asyncpg://db/shop?auth=S3cr3t&sig=S3cr3t",
        "postgresql+asyncpg://db/shop?dsn=postgres://u:S3cr3t@db/shop",
        "postgresql+psycopg://db/shop?conninfo=host%3Ddb%20password%3DS3cr3t",
        "mssql+aioodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DS3cr3t",
        "postgresql+asyncpg://db/shop?ssl=S3cr3t%0Apassword%3DS3cr3t",
        "postgresql+asyncpg://db/postgres://u:S3cr3t@db",
    ],
)
def test_a_url_shows_what_can_be_no_secret(url: str) -> None:
    """Wherever a URL carries a secret, only its harmless parts are told, and that there is more."""
    shown = masked(make_url(url))
    assert SECRET.findall(shown) == []
    assert shown.startswith(url.partition("://")[0])


@given(
    st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1), st.text(min_size=1), max_size=4
    )
)
def test_no_option_of_an_unknown_name_is_shown(query: dict[str, str]) -> None:
    """Options that are not known to be harmless are left out, by name and by value."""
    url = make_url("postgresql+asyncpg://db/shop").set(query={f"x{k}": v for k, v in query.items()})
    assert masked(url) == f"postgresql+asyncpg://db/shop{'?***' if query else ''}"


def test_what_another_exception_said_is_not_repeated() -> None:
    """SQLAlchemy quotes an earlier failure with its parameters; that part is left out."""
    words = "This Session's transaction has been rolled back due to a previous exception"
    exc = PendingRollbackError(f"{words}. Original exception was: [parameters: ('S3cr3t',)]")
    diagnosis = loopsentry.diagnose(exc)
    assert SECRET.findall(repr(diagnosis)) == []


DEBUG_PAGE = """
import asyncio, logging, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
import httpx, loopsentry
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use():
    async with AsyncSession(engine) as session:
        word = os.environ["WORD"]
        return await session.scalar(text("select cast(:word as text)"), {"word": word})
async def show(request):
    return PlainTextResponse(await use())
asyncio.run(use())
loopsentry.install(verbose=True)
application = Starlette(debug=True, routes=[Route("/{name}", show)])
application.add_middleware(loopsentry.LoopSentryMiddleware)
async def ask():
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        for accept in ("text/html", "text/plain"):
            answer = await client.get("/" + word, headers={"accept": accept, "x-key": word})
            print("ANSWER", answer.status_code, answer.text)
word = os.environ["WORD"]
print(asyncio.run(ask()))
"""


def test_a_debug_page_shows_the_story_without_secrets(run_program: RunProgram) -> None:
    """Starlette's pages in debug mode, and the log at DEBUG, show the note and no value."""
    secret = {"WORD": "S3cr3tWord"}
    ended = run_program(DEBUG_PAGE, env=secret, under=False)
    page, text = ended.stdout.split("ANSWER 500 ")[1:]
    assert "LS101" in page
    assert "error[LS101]" in text
    for shown in (page, text):
        # The statement's parameters are SQLAlchemy's own words.
        ours = shown.partition("error[LS")[2].partition("original:")[0]
        assert SECRET.findall(ours) == []


HEADLINE = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use():
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))
asyncio.run(use())
try:
    asyncio.run(use())
except RuntimeError as exc:
    print(str(exc).partition(" [LS")[2])
    print(os.getpid(), __file__)
"""


def test_the_message_gains_neither_a_path_nor_a_process(run_program: RunProgram) -> None:
    """What an application may send to its clients gains one line without path and pid."""
    added, ours = run_program(HEADLINE).stdout.splitlines()
    process, file = ours.split()
    assert added.startswith("101] ")
    assert process not in added
    assert "main.py" not in added
    assert file not in added
    assert "/" not in added


def test_a_text_of_asyncio_with_a_secret_in_a_coroutines_name_is_left_alone(
    run_program: RunProgram,
) -> None:
    """The original text, which is the program's own, is kept as it was."""
    (record,) = run_program(HEADLINE).records
    assert record["original"]["type"] == "builtins.RuntimeError"
    assert "attached to a different loop" in record["original"]["message"]
    assert "[LS101]" not in record["original"]["message"]
