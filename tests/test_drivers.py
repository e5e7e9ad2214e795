"""Adding a driver is adding one file: an imaginary one, with attribute names of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunProgram

# It answers over a socket that its loop reads, and keeps its results in SQLite.
DRIVER = """
import asyncio, socket, sqlite3

class Error(Exception):
    pass

class Far(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)

class Near(asyncio.Protocol):
    waiting = None
    def data_received(self, data):
        if self.waiting is not None and not self.waiting.done(): self.waiting.set_result(None)

async def connect():
    line = Line()
    line.home = asyncio.get_running_loop()
    near, far = socket.socketpair()
    line.wire, line.near = await line.home.create_connection(Near, sock=near)
    line.far, _ = await line.home.create_connection(Far, sock=far)
    line._connection = line.sheet = sqlite3.connect(":memory:", check_same_thread=False)
    return line

class Line:
    taken = over = False
    pause = 0
    isolation_level = None
    async def talk(self):
        if self.taken:
            raise Error("the line is taken by another caller")
        self.taken = True
        self.near.waiting = self.home.create_future()
        self.wire.write(b"x")
        await self.near.waiting
        await asyncio.sleep(self.pause)
        self.taken = False
    def cursor(self):
        return Pencil(self)
    async def commit(self):
        await self.talk()
        self.sheet.commit()
    async def rollback(self):
        await self.talk()
        self.sheet.rollback()
    async def create_function(self, name, count, function, **options):
        self.sheet.create_function(name, count, function, **options)
    async def close(self):
        self.stop()
    def stop(self):
        self.over = True
        self.wire.abort(), self.far.abort()

class Pencil:
    def __init__(self, line):
        self.line, self.inner = line, line.sheet.cursor()
    def __getattr__(self, name):
        return getattr(self.inner, name)
    async def __aenter__(self):
        return self
    def __await__(self):  # as SQLAlchemy 2.0 takes a cursor
        return self
        yield
    async def execute(self, statement, parameters=()):
        await self.line.talk()
        self.inner.execute(statement, parameters)
    async def fetchall(self):
        return self.inner.fetchall()
    async def close(self):
        self.inner.close()
"""

PROBE = '''
"""The imaginary driver: what its lines say of their own loop."""

import sys

from loopsentry.exceptions import type_name_of
from loopsentry.model import Sighting, Symptom

PACKAGES = ("fancydb",)
OPERATIONS = ("fancydb",)


def read(exc, text):
    if type_name_of(exc) == "fancydb.Error" and "line is taken" in text:
        return Symptom(kind="busy", library="fancydb", type="fancydb.Error", text=text, sent=False)
    return None


def sight(target):
    fancydb = sys.modules.get("fancydb")
    if fancydb is None or not issubclass(type(target), fancydb.Line):
        return None
    return Sighting(kind="connection", label="fancydb line", library="fancydb", target=target,
                    loop=target.home, closed=target.over)


def transport_of(target):
    return getattr(target, "wire", None)
'''

START = """
import asyncio, os, shutil
import loopsentry.probes
os.makedirs("shelf")
shutil.move("probe.py", "shelf/fancydb.py")
loopsentry.probes.__path__.append(os.path.abspath("shelf"))
import fancydb
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
lines = []
async def make():
    lines.append(await fancydb.connect())
    return lines[-1]
def tell(diagnosis):
    print("TOLD", diagnosis.code, diagnosis.certainty, getattr(diagnosis.object, "label", None),
          diagnosis.data, diagnosis.action, *(fix.id for fix in diagnosis.fixes[:1]))
loopsentry.subscribe(tell)
engine = create_async_engine("sqlite+aiosqlite://", async_creator=make, pool_size=1,
                             max_overflow=0, poolclass=AsyncAdaptedQueuePool)
async def use():
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))
def run(function):
    try:
        print("GOT", asyncio.run(function()))
    except Exception as exc:
        print("RAISED", type(exc).__name__, *getattr(exc, "__notes__", ()))
"""


def run(run_program: RunProgram, program: str) -> list[str]:
    """Run a program that uses the imaginary driver; give what it printed."""
    files = {"fancydb.py": DRIVER, "probe.py": PROBE, "main.py": START + program}
    ended = run_program(files, under=False)
    assert ended.returncode == 0, ended.output
    assert "loopsentry failed" not in ended.output
    assert "asyncpg" not in ended.output
    return ended.stdout.splitlines()


def test_a_crossing_is_proven(run_program: RunProgram) -> None:
    """Its line's own loop is read through the probe, and the message speaks of the line."""
    shown = run(run_program, "loopsentry.install()\nrun(use); run(use)\n")
    assert shown[0] == "GOT 1"
    assert shown[1].startswith("TOLD LS101 proven fancydb line")
    raised = "\n".join(shown[2:])
    assert "use(); engine `engine`, main.py" in raised
    assert "session_scope_fresh(engine)" in raised


def test_a_line_from_before_is_known_by_what_it_says(run_program: RunProgram) -> None:
    """A line that was opened before install() is judged by its own attribute."""
    shown = run(run_program, "run(use)\nloopsentry.install()\nrun(use)\n")
    assert any(line.startswith("TOLD LS101 proven") for line in shown)


def test_sharing_is_told_apart(run_program: RunProgram) -> None:
    """Two tasks on one line are LS201, by the driver's own complaint."""
    program = """
loopsentry.install()
async def share():
    async with engine.connect() as connection:
        await connection.scalar(text("select 1"))
        lines[-1].pause = 0.2
        await asyncio.gather(connection.commit(), connection.scalar(text("select 2")))
run(share)
"""
    assert any(line.startswith("TOLD LS201 proven") for line in run(run_program, program))


def test_a_crossing_is_stopped(run_program: RunProgram) -> None:
    """In mode raise nothing is sent on a line of another loop."""
    program = "loopsentry.install(on_mismatch='raise')\nrun(use); run(use)\nprint(lines[0].taken)\n"
    shown = run(run_program, program)
    assert any(line.startswith("TOLD LS101 proven fancydb line not-sent raised") for line in shown)
    assert any(line.startswith("RAISED LoopMismatchError") for line in shown)
    assert shown[-1] == "False"


def test_a_crossing_is_healed_and_the_line_ended(run_program: RunProgram) -> None:
    """In mode reconnect the foreign line is replaced, and ended through the probe's transport."""
    program = (
        "loopsentry.install(on_mismatch='reconnect')\nrun(use); run(use)\n"
        "print(len(lines), lines[0].wire.is_closing() or lines[0].wire._sock is None)\n"
    )
    shown = run(run_program, program)
    assert shown.count("GOT 1") == 2
    assert any(line.startswith("TOLD LS101 proven") and "reconnected" in line for line in shown)
    assert shown[-1] == "2 True"


@pytest.mark.parametrize("arrangement", ["watched", "asserted"])
def test_the_harness_knows_that_it_is_not_tolerant(
    run_program: RunProgram, arrangement: str
) -> None:
    """`watch_crossings` and `assert_loop_safe` see a driver that does not survive a crossing."""
    watched = """
from loopsentry.testing import watch_crossings
with watch_crossings() as crossings:
    run(use); run(use)
print(crossings[0].driver, crossings[0].tolerant)
"""
    asserted = """
from loopsentry.testing import assert_loop_safe
try:
    assert_loop_safe(use, skip=("forked-child",))
except AssertionError as exc:
    told = " ".join(exc.__notes__)
    print("session_scope_fresh(engine)" in told, "survives" in told)
"""
    shown = run(run_program, watched if arrangement == "watched" else asserted)
    expected = "fancydb False" if arrangement == "watched" else "True False"
    assert shown[-1] == expected, shown


STREAMS = """
import asyncio, socket, threading

server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        accepted, _ = server.accept()
        threading.Thread(
            target=lambda: [accepted.sendall(data) for data in iter(lambda: accepted.recv(9), b"")],
            daemon=True,
        ).start()
threading.Thread(target=serve, daemon=True).start()

class Client:
    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*server.getsockname())
    async def ask(self):
        self.writer.write(b"1\\n")
        return await self.reader.readline()
    async def wait(self):
        return await self.reader.readline()
client = Client()
"""
#: What is done with a client that the program made of asyncio's streams, and what is told.
USES = {
    "on two loops": (
        "asyncio.run(client.open())\nasyncio.run(client.ask())",
        ("LS101", "asyncio stream"),
    ),
    "by two tasks": (
        (
            "async def main():\n    await client.open()\n"
            "    await asyncio.gather(client.wait(), client.wait())\nasyncio.run(main())"
        ),
        ("LS201", "asyncio stream"),
    ),
}


@pytest.mark.parametrize("use", USES)
def test_a_client_made_of_streams_is_one_too(run_program: RunProgram, use: str) -> None:
    """A protocol of the program's own, over asyncio's streams, is judged as a library's client."""
    body, expected = USES[use]
    ended = run_program(STREAMS + body)
    [record] = ended.records
    assert (record["code"], record["object"]["label"]) == expected, ended.output
    assert not {"fresh-session", "loop-local-pool"} & {fix["id"] for fix in record["fixes"]}
