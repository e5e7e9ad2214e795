"""The rules of the audit that look at one place: what they find, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopsentry.audit.auditor import audit

HEAD = """
import asyncio
import threading
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
engine = create_async_engine("postgresql+asyncpg://db/shop")
Session = async_sessionmaker(engine)
cache = {}
async def load(session, number=0):
    return await session.execute("select 1")
async def name_of(session):
    return repr(session)
async def load_alone(number=0):
    async with Session() as session:
        return await session.execute("select 1")
"""

APP = """
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
app = FastAPI()
@app.get("/")
async def show():
    return await load_alone()
"""
TESTS = """
def test_one(client):
    client.get("/")
def test_two(client):
    client.get("/")
"""

LOCK = """
lock = asyncio.Lock()
async def guarded():
    async with lock:
        await asyncio.sleep(0)
async def both():
    await asyncio.gather(guarded(), guarded())
def main():
    asyncio.run(both())
    asyncio.run(both())
if __name__ == "__main__":
    main()
"""
QUEUE = """
from celery import shared_task
queue = asyncio.Queue()
async def put():
    await queue.put(1)
async def work():
    asyncio.create_task(put())
    return await queue.get()
@shared_task
def send():
    asyncio.run(work())
"""
OWN_LOCK = LOCK.replace("lock = asyncio.Lock()\n", "", 1).replace(
    "async def guarded():", "async def guarded(lock=None):\n    lock = asyncio.Lock()"
)

FORKS = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
def child():
    asyncio.run(load_alone())
"""
FORKED = f"""{FORKS}
def main():
    asyncio.run(load_alone())
    multiprocessing.Process(target=child).start()
"""
BY_HAND = f"""{FORKS}
def main():
    asyncio.run(load_alone())
    if os.fork() == 0:
        asyncio.run(load_alone())
"""
POOLED = f"""{FORKS}
async def main():
    await load_alone()
    with ProcessPoolExecutor() as pool:
        pool.submit(child)
"""
CONTEXT = f"""{FORKS}
def main():
    asyncio.run(load_alone())
    begin()
def begin():
    context = multiprocessing.get_context("fork")
    context.Process(target=child).start()
"""
SUITE = """
import pytest
import pytest_asyncio
@pytest_asyncio.fixture(scope="session")
async def database():
    made = create_async_engine("postgresql+asyncpg://db/shop")
    async with made.begin() as connection:
        await connection.execute("create")
    yield made
    await made.dispose()
@pytest.fixture
def sessions(database):
    return async_sessionmaker(database)
@pytest.mark.asyncio
async def test_one(sessions):
    async with sessions() as session:
        await session.execute("select 1")
"""
PLAIN = """
import pytest
@pytest.fixture(scope="module")
def database():
    return create_async_engine("postgresql+asyncpg://db/shop")
@pytest.mark.asyncio
class TestShop:
    async def test_one(self, database):
        async with database.connect() as connection:
            await connection.execute("select 1")
    async def test_two(self, database):
        async with database.connect() as connection:
            await connection.execute("select 2")
"""
NARROW = SUITE.replace('fixture(scope="session")', 'fixture(loop_scope="session")')
DISPOSED = """
import atexit
def main():
    asyncio.run(load_alone())
    asyncio.run(engine.dispose())
"""
AT_EXIT = """
import atexit
from celery import shared_task
@shared_task
def send():
    asyncio.run(load_alone())
async def close():
    await engine.dispose()
def clean():
    asyncio.run(close())
atexit.register(clean)
"""
AFTER_SERVER = """
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
async def show():
    return await load_alone()
def main():
    uvicorn.run(app)
    asyncio.run(engine.dispose())
"""

#: For each rule: programs that it finds, with the certainty.
FOUND: dict[str, dict[str, tuple[str, str]]] = {
    "LSA102": {
        "in a coroutine": ("async def show():\n    return asyncio.run(load_alone())\n", "proven"),
        "a loop of its own": (
            (
                "async def show():\n    loop = asyncio.new_event_loop()\n"
                "    return loop.run_until_complete(load_alone())\n"
            ),
            "proven",
        ),
        "below a coroutine": (
            (
                "def helper():\n    return asyncio.run(load_alone())\n"
                "async def show():\n    return helper()\n"
            ),
            "likely",
        ),
        "far below a coroutine": (
            (
                "def one():\n    return asyncio.run(load_alone())\ndef two():\n    return one()\n"
                "def three():\n    return two()\nasync def show():\n    return three()\n"
            ),
            "latent",
        ),
        "two below a coroutine": (
            (
                "def one():\n    return asyncio.run(load_alone())\ndef two():\n    return one()\n"
                "async def show():\n    return two()\n"
            ),
            "likely",
        ),
        "in a method": (
            "class Page:\n    async def show(self):\n        asyncio.run(load_alone())\n",
            "proven",
        ),
    },
    "LSA103": {
        "a process": (FORKED, "likely"),
        "a fork by hand": (BY_HAND, "proven"),
        "a pool of processes": (POOLED, "likely"),
        "a context, further down": (CONTEXT, "proven"),
        "a class that is a process": (
            FORKED.replace(
                "def main",
                "class Work(multiprocessing.Process):\n"
                "    def run(self):\n        child()\ndef main",
            ).replace("multiprocessing.Process(target=child)", "Work()"),
            "likely",
        ),
    },
    "LSA104": {
        "a lock of two runs": (LOCK, "proven"),
        "a queue of a task": (QUEUE, "proven"),
        "one task at a time": (
            LOCK.replace("gather(guarded(), guarded())", "sleep(0)").replace(
                "await asyncio.sleep(0)\ndef", "await guarded()\ndef"
            ),
            "latent",
        ),
    },
    "LSA105": {
        "a module's client": (
            (
                f"{APP}client = TestClient(app)\ndef test_one():\n    client.get('/')\n"
                "def test_two():\n    client.get('/')\n"
            ),
            "likely",
        ),
        "a fixture": (
            f"{APP}@pytest.fixture\ndef client():\n    return TestClient(app)\n{TESTS}",
            "likely",
        ),
        "one test": (
            (
                f"{APP}def test_one():\n    client = TestClient(app)\n"
                "    client.get('/')\n    client.post('/')\n"
            ),
            "likely",
        ),
    },
    "LSA106": {
        "two statements": (
            (
                "async def show():\n    async with Session() as session:\n"
                "        await asyncio.gather(session.execute('a'), session.execute('b'))\n"
            ),
            "proven",
        ),
        "two functions": (
            (
                "async def show(db: AsyncSession):\n"
                "    await asyncio.gather(load(db), load(session=db))\n"
            ),
            "proven",
        ),
        "a comprehension": (
            (
                "async def show(db: AsyncSession):\n"
                "    await asyncio.gather(*(load(db, n) for n in range(3)))\n"
            ),
            "proven",
        ),
        "a list that grows": (
            (
                "async def show(db: AsyncSession):\n    work = []\n    for n in range(3):\n"
                "        work.append(load(db, n))\n    await asyncio.gather(*work)\n"
            ),
            "proven",
        ),
        "a task group": (
            (
                "async def show(db: AsyncSession):\n    async with asyncio.TaskGroup() as group:\n"
                "        group.create_task(load(db))\n        group.create_task(load(db))\n"
            ),
            "proven",
        ),
        "an inner function": (
            (
                "async def show(db: AsyncSession):\n    async def one(n):\n"
                "        await db.execute('a')\n    await asyncio.gather(one(1), one(2))\n"
            ),
            "proven",
        ),
    },
    "LSA107": {
        "a dictionary": (
            (
                "def engine_here():\n    key = id(asyncio.get_running_loop())\n"
                "    if key not in cache:\n        cache[key] = engine\n    return cache[key]\n"
            ),
            "proven",
        ),
        "a lookup": (
            "def engine_here():\n    return cache.get(id(asyncio.get_event_loop()))\n",
            "proven",
        ),
        "a tuple": (
            (
                "def engine_here(url):\n    loop = asyncio.get_running_loop()\n"
                "    return cache[(url, id(loop))]\n"
            ),
            "proven",
        ),
    },
    "LSA108": {
        "a session's fixture": (SUITE, "proven"),
        "a module's engine": (PLAIN, "proven"),
        "a fixture on another loop": (NARROW, "proven"),
        "a class of tests on a loop of its own": (
            PLAIN.replace("asyncio\nclass", 'asyncio(loop_scope="class")\nclass'),
            "proven",
        ),
    },
    "LSA109": {
        "one run after another": (DISPOSED, "proven"),
        "at exit": (AT_EXIT, "likely"),
        "after a server": (AFTER_SERVER, "likely"),
        "through a helper": (
            DISPOSED.replace("def main", "def run(work):\n    asyncio.run(work)\ndef main")
            .replace("asyncio.run(load_alone())", "run(load_alone())")
            .replace("asyncio.run(engine", "run(engine"),
            "proven",
        ),
    },
    "LSA110": {
        "its own loop": (
            (
                "async def show():\n    loop = asyncio.get_running_loop()\n"
                "    return asyncio.run_coroutine_threadsafe(load_alone(), loop).result()\n"
            ),
            "proven",
        ),
        "in two steps": (
            (
                "async def show():\n    loop = asyncio.get_running_loop()\n"
                "    future = asyncio.run_coroutine_threadsafe(load_alone(), loop)\n"
                "    return future.result(5)\n"
            ),
            "proven",
        ),
        "below a coroutine": (
            (
                "def load_now(loop):\n"
                "    return asyncio.run_coroutine_threadsafe(load_alone(), loop).result()\n"
                "async def show(loop):\n    return load_now(loop)\n"
            ),
            "likely",
        ),
        "another's loop": (
            (
                "async def show(other):\n"
                "    return asyncio.run_coroutine_threadsafe(load_alone(), other).result()\n"
            ),
            "likely",
        ),
    },
}

#: For each rule: look-alikes about which it says nothing.
SILENT: dict[str, dict[str, str]] = {
    "LSA102": {
        "awaited": "async def show():\n    return await load_alone()\n",
        "synchronous": "def show():\n    return asyncio.run(load_alone())\n",
        "guarded": (
            "def helper():\n    try:\n        asyncio.get_running_loop()\n"
            "    except RuntimeError:\n        return asyncio.run(load_alone())\n"
            "async def show():\n    return helper()\n"
        ),
        "in a thread": (
            "def helper():\n    asyncio.run(load_alone())\n"
            "async def show():\n    await asyncio.to_thread(helper)\n"
        ),
        "nest_asyncio": (
            "import nest_asyncio\nnest_asyncio.apply()\n"
            "async def show():\n    asyncio.run(load_alone())\n"
        ),
    },
    "LSA103": {
        "forked first": FORKED.replace(
            "    asyncio.run(load_alone())\n    multiprocessing.Process(target=child).start()",
            "    multiprocessing.Process(target=child).start()\n    asyncio.run(load_alone())",
        ),
        "disposed before": FORKED.replace(
            "    multiprocessing.Process(",
            "    engine.sync_engine.dispose()\n    multiprocessing.Process(",
        ),
        "forgotten in the child": FORKED.replace(
            "def child():\n", "def child():\n    engine.sync_engine.dispose(close=False)\n"
        ),
        "spawned": CONTEXT.replace('"fork"', '"spawn"'),
        "spawned by default": FORKED.replace(
            "def main():", 'multiprocessing.set_start_method("spawn")\ndef main():'
        ),
        "a pool that spawns": POOLED.replace(
            "ProcessPoolExecutor()",
            'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))',
        ),
        "the parent's alone": BY_HAND.replace("if os.fork() == 0:", "if os.fork():"),
        "nothing in the child": FORKED.replace("target=child", "target=print"),
        "one or the other": FORKED.replace(
            "    asyncio.run(load_alone())\n    multi",
            "    if cache:\n        asyncio.run(load_alone())\n        return\n    multi",
        ),
    },
    "LSA104": {
        "made on the loop": OWN_LOCK,
        "made when it is needed": LOCK.replace(
            "lock = asyncio.Lock()\n",
            "lock = None\ndef make():\n    global lock\n    lock = asyncio.Lock()\n",
        ),
        "one run": LOCK.replace("    asyncio.run(both())\nif", "if"),
        "a lock of threads": LOCK.replace("asyncio.Lock()", "threading.Lock()"),
    },
    "LSA105": {
        "entered": (
            f"{APP}@pytest.fixture\ndef client():\n"
            f"    with TestClient(app) as client:\n        yield client\n{TESTS}"
        ),
        "one request": (f"{APP}client = TestClient(app)\ndef test_one():\n    client.get('/')\n"),
        "overridden": (
            f"{APP}client = TestClient(app)\napp.dependency_overrides[load] = load_alone\n"
            "def test_one():\n    client.get('/')\n    client.get('/')\n"
        ),
        "an application of its own": (
            f"{APP}def test_one():\n    small = FastAPI()\n    client = TestClient(small)\n"
            "    client.get('/')\n    client.get('/')\n"
        ),
        "no engine": (
            APP.replace("await load_alone()", "1") + "client = TestClient(app)\ndef test_one():\n"
            "    client.get('/')\n    client.get('/')\n"
        ),
    },
    "LSA106": {
        "one of them": (
            "async def show(db: AsyncSession):\n    await asyncio.gather(load(db), load_alone())\n"
        ),
        "a session each": (
            "async def show(db: AsyncSession):\n"
            "    await asyncio.gather(*(load_alone(n) for n in range(3)))\n"
        ),
        "nothing awaited on it": (
            "async def show(db: AsyncSession):\n"
            "    await asyncio.gather(name_of(db), name_of(db))\n"
        ),
        "one after the other": (
            "async def show(db: AsyncSession):\n    await load(db)\n    await load(db)\n"
        ),
    },
    "LSA107": {
        "a log line": "def tell():\n    print(id(asyncio.get_running_loop()))\n",
        "a text": (
            "def tell():\n    name = f'loop {id(asyncio.get_running_loop())}'\n    return name\n"
        ),
        "the loop itself": "def engine_here():\n    return cache[asyncio.get_running_loop()]\n",
        "another's identity": "def look(item):\n    return cache[id(item)]\n",
    },
    "LSA108": {
        "tests on that loop": SUITE.replace(
            "pytest.mark.asyncio", 'pytest.mark.asyncio(loop_scope="session")'
        ),
        "a module's mark": SUITE.replace(
            "@pytest.mark.asyncio\n", 'pytestmark = pytest.mark.asyncio(loop_scope="session")\n'
        ),
        "a function's fixture": SUITE.replace('fixture(scope="session")', "fixture"),
        "no pool": SUITE.replace(
            '"postgresql+asyncpg://db/shop")\n    async',
            '"postgresql+asyncpg://db/shop", poolclass=NullPool)\n    async',
        ).replace("import pytest\n", "import pytest\nfrom sqlalchemy.pool import NullPool\n"),
        "a driver that is bound to no loop": SUITE.replace(
            '"postgresql+asyncpg://db/shop")\n    async', '"sqlite+aiosqlite://")\n    async'
        ),
        "disposed of before it is given": SUITE.replace(
            "    yield made", "    await made.dispose()\n    yield made"
        ).replace('fixture(scope="session")', 'fixture(scope="session", loop_scope="function")'),
        "one test": PLAIN.replace("test_two", "other"),
        "its address": PLAIN.replace("database.connect()", "print(database.url)"),
        "a loop of the suite's own": f"{SUITE}@pytest.fixture\ndef event_loop():\n    yield None\n",
        "anyio's loop": SUITE.replace("pytest.mark.asyncio", "pytest.mark.anyio"),
    },
    "LSA109": {
        "in the coroutine": DISPOSED.replace("asyncio.run(engine.dispose())", "pass"),
        "one runner": DISPOSED.replace(
            "    asyncio.run(load_alone())\n    asyncio.run(engine.dispose())",
            "    with asyncio.Runner() as runner:\n        runner.run(load_alone())\n"
            "        runner.run(engine.dispose())",
        ),
        "never connected": DISPOSED.replace("    asyncio.run(load_alone())\n", ""),
        "before": DISPOSED.replace(
            "    asyncio.run(load_alone())\n    asyncio.run(engine.dispose())",
            "    asyncio.run(engine.dispose())\n    asyncio.run(load_alone())",
        ),
        "nothing of it": DISPOSED.replace("engine.dispose()", "asyncio.sleep(0)"),
        "another engine": DISPOSED.replace(
            "def main", 'other = create_async_engine("postgresql+asyncpg://db/b")\ndef main'
        ).replace("engine.dispose()", "other.dispose()"),
    },
    "LSA110": {
        "given to a thread": (
            "def load_now(loop):\n"
            "    return asyncio.run_coroutine_threadsafe(load_alone(), loop).result()\n"
            "async def show(loop):\n    return await asyncio.to_thread(load_now, loop)\n"
        ),
        "in a thread": (
            "def show(loop):\n"
            "    return asyncio.run_coroutine_threadsafe(load_alone(), loop).result()\n"
        ),
        "wrapped": (
            "async def show(loop):\n    return await asyncio.wrap_future(\n"
            "        asyncio.run_coroutine_threadsafe(load_alone(), loop))\n"
        ),
        "a task's result": (
            "async def show():\n    task = asyncio.create_task(load_alone())\n    await task\n"
            "    return task.result()\n"
        ),
    },
}


#: The files in which a rule looks, where it is not in any.
FILES = {"LSA108": "test_shop.py"}


@pytest.mark.parametrize(
    ("code", "case"), [(code, case) for code, cases in FOUND.items() for case in cases]
)
def test_a_mistake_is_found(tmp_path: Path, code: str, case: str) -> None:
    """The rule finds it once, in the function that is wrong, as surely as can be."""
    source, certainty = FOUND[code][case]
    (tmp_path / FILES.get(code, "shop.py")).write_text(HEAD + source, "utf-8")
    (finding,) = [each for each in audit([tmp_path]).findings if each.code == code]
    assert finding.certainty == certainty
    assert finding.line > HEAD.count("\n")
    assert finding.chain
    assert finding.fixes


@pytest.mark.parametrize(
    ("code", "case"), [(code, case) for code, cases in SILENT.items() for case in cases]
)
def test_a_look_alike_is_left_alone(tmp_path: Path, code: str, case: str) -> None:
    """The rule says nothing about what only looks like its mistake."""
    (tmp_path / FILES.get(code, "shop.py")).write_text(HEAD + SILENT[code][case], "utf-8")
    assert [each for each in audit([tmp_path]).findings if each.code == code] == []
