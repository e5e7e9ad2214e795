"""Failures that were told before: counted, explained all the same, and never taken for others."""

from __future__ import annotations

import json

import pytest
from conftest import RunProgram

STORM = """
import asyncio, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry
from loopsentry import installation

loopsentry.install()
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0)
full, told = [], []
gravest = installation._installed[0].examiner._gravest
installation._installed[0].examiner._gravest = lambda *of: (full.append(of), gravest(*of))[1]

async def use():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))

async def storm():
    for _ in range(200):
        try: await use()
        except Exception as exc:
            told.append("error[LS101]" in "".join(exc.__notes__) and "[LS101]" in str(exc))

asyncio.run(use())
asyncio.run(storm())
print(len(told), all(told), len(full))
"""


def test_a_storm_is_one_mistake(run_program: RunProgram) -> None:
    """Each of many failures tells its story; evidence is collected for the first and its echo."""
    ended = run_program(STORM)
    assert ended.stdout.split() == ["200", "True", "2"]
    assert [record["code"] for record in ended.records] == ["LS101"]


ORACLE = """
import asyncio, contextlib, json, os, random, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
import loopsentry
from loopsentry import installation, report

loopsentry.install(evict=sys.argv[2] == "evict")
repeated, differing = [], []
original = report.Examiner._repeat

def words(diagnosis):
    places = [loop and (loop.label, loop.runner, loop.started_by, loop.state)
              for loop in (diagnosis.owner_loop, diagnosis.current_loop)]
    return (diagnosis.code, diagnosis.certainty, diagnosis.used_at, diagnosis.title, places,
            diagnosis.notes, [fix.id for fix in diagnosis.fixes], diagnosis.data,
            diagnosis.object.label, diagnosis.object.variable,
            diagnosis.engine and diagnosis.engine.variable,
            diagnosis.object.birth and diagnosis.object.birth.place, diagnosis.other_operation)

# The frame of what compares stands on the stack: it has to be no line of the program's.
ORACLE = '''
def repeat(self, exc, clue, told):
    repeated.append(1)
    found = self._gravest(exc, clue)
    if found is None or words(found[1]) != words(told.diagnosis):
        differing.append((words(told.diagnosis), found and words(found[1])))
    return original(self, exc, clue, told)
'''
exec(compile(ORACLE, report.__file__, "exec"))
report.Examiner._repeat = repeat
"""

MIXED = """
options = {"pool_size": 1, "max_overflow": 1, "pool_timeout": 1}
engines = [create_async_engine(os.environ["DATABASE_URL"], **options) for _ in range(2)]

async def one(engine):
    async with engine.connect() as connection: await connection.execute(text("select 1"))
async def two(engine):
    async with AsyncSession(engine) as session: await session.execute(text("select 1"))
async def both(engine):
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(text("select 1")); await second.execute(text("select 1"))
async def late(engine):
    async with AsyncSession(engine) as session:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01): await session.execute(text("select pg_sleep(1)"))
        await session.execute(text("select 1"))
async def shared(engine):
    async with AsyncSession(engine) as session:
        await asyncio.gather(*(session.execute(text("select pg_sleep(0.01)")) for _ in range(2)))
async def wrong(engine):
    async with engine.connect() as connection: await connection.execute(text("select nothing"))
async def again(engine):
    for work in (one, two, one, two):
        with contextlib.suppress(Exception): await work(engine)

kept = asyncio.new_event_loop()  # a running one could crash the interpreter
def in_run(work): asyncio.run(asyncio.wait_for(work, 3))
def in_another_run(work): asyncio.run(asyncio.wait_for(work, 3))
def on_another_loop(work): kept.run_until_complete(asyncio.wait_for(work, 3))

chance = random.Random(int(sys.argv[1]))
for _ in range(60):
    run = chance.choice((in_run, in_run, in_another_run, on_another_loop))
    work = chance.choice((one, one, two, both, late, shared, wrong, again))
    with contextlib.suppress(Exception): run(work(chance.choice(engines)))
    if chance.random() < 0.05:
        with contextlib.suppress(Exception): asyncio.run(chance.choice(engines).dispose())
print(json.dumps([len(repeated), [repr(pair) for pair in differing]]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("evict", ["keep", "evict"])
@pytest.mark.parametrize("seed", range(3))
def test_a_repeat_is_what_evidence_would_have_told(
    run_program: RunProgram, seed: int, evict: str
) -> None:
    """In any mixture of failures, one that is recognised has the diagnosis it would have had."""
    ended = run_program(ORACLE + MIXED, str(seed), evict, under=False, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
    repeated, differing = json.loads(ended.stdout.splitlines()[-1])
    assert differing == []
    assert evict == "evict" or repeated > 0


PRIMITIVES = """
names = ("red", "blue")
red, blue = asyncio.Lock(), asyncio.Lock()
class Store:
    def __init__(self): self.event, self.queue = asyncio.Event(), asyncio.Queue(1)
store, other = Store(), Store()

async def lock(which, owned):
    if owned: await which.acquire()
    async with which: pass
async def event(which, owned): await which.event.wait()
async def queue(which, owned):
    for _ in range(3 - owned): await which.queue.put(1)
def any_of(work):
    if work is not lock: return chance.choice((store, other))
    return chance.choice((red, blue, asyncio.Lock(), asyncio.Lock()))

async def application(scope, receive, send):
    await scope["work"](scope["which"], scope["owned"])
guarded = loopsentry.LoopSentryMiddleware(application)
async def request(work, which, owned):
    scope = {"type": "http", "method": "GET", "path": "/", "work": work, "which": which,
             "owned": owned}
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(guarded(scope, None, None), 0.01)

async def several():
    for _ in range(12):
        work = chance.choice((lock, event, queue))
        which, owned = any_of(work), chance.random() < 0.5
        for _ in range(chance.choice((1, 2, 3))):
            with contextlib.suppress(RuntimeError): await request(work, which, owned)
def in_run(): asyncio.run(several())
def in_another_run(): asyncio.run(several())
chance = random.Random(int(sys.argv[1]))
for _ in range(15): chance.choice((in_run, in_another_run))()
print(json.dumps([len(repeated), [repr(pair) for pair in differing]]))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_repeated_refusal_is_what_evidence_would_have_told(
    run_program: RunProgram, seed: int
) -> None:
    """Locks, events and queues that refuse again are recognised, and never one for another."""
    ended = run_program(ORACLE + PRIMITIVES, str(seed), "keep", under=False, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
    repeated, differing = json.loads(ended.stdout.splitlines()[-1])
    assert differing == []
    assert repeated > 0
