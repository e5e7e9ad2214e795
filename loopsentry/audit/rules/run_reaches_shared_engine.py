"""two event loops use one engine, pool or client

`asyncio.run` makes an event loop and closes it. What a coroutine opens on it stays in the pool of
a module's engine, and the next `asyncio.run`, the next task of a worker or the server that starts
afterwards takes it out on another loop: *attached to a different loop* once, *another operation is
in progress* from then on.

Give what runs on a loop of its own an engine of its own (`session_scope_fresh()`), one pool for
each loop (`LoopLocalPool`), no pool (`NullPool`), or dispose of the engine before the loop ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from loopsentry.audit.entries import is_test
from loopsentry.audit.findings import Finding
from loopsentry.audit.processes import Meeting, Suspects, find_meetings, steps_of
from loopsentry.audit.program import Program
from loopsentry.audit.starts import Start
from loopsentry.audit.symbols import Resource

CODE = "LSA101"
NAME = "run-reaches-shared-engine"

BROKEN = """\
import asyncio

from celery import shared_task
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")


async def count() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("select 1")).scalar_one()


@shared_task
def report() -> int:
    return asyncio.run(count())
"""
CURED = """\
import asyncio

from celery import shared_task
from loopsentry import LoopLocalPool
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop", poolclass=LoopLocalPool)


async def count() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("select 1")).scalar_one()


@shared_task
def report() -> int:
    return asyncio.run(count())
"""

_FIXES = {
    "many": ("fresh-session", "loop-local-pool", "worker-loop", "null-pool", "dispose-in-loop"),
    "twice": ("single-run", "dispose-in-loop", "fresh-session", "loop-local-pool"),
    "server": ("fresh-session", "dispose-in-loop", "lifespan-engine", "loop-local-pool"),
}
_CLIENT_FIXES = {
    "many": ("client-per-loop", "worker-loop"),
    "twice": ("client-per-loop", "single-run"),
    "server": ("client-per-loop", "lifespan-engine"),
}


_NOTHING = ("nothing-shared", "it reaches no shared engine, pool or client")


def find(program: Program) -> Iterator[Finding]:
    """Find starts whose shared objects meet another loop in the same process."""
    suspects: Suspects = {}
    for start in program.starts:
        engines = _shared(program, start)
        if engines:
            suspects[start] = engines
    meetings = find_meetings(program, suspects)
    met = {meeting.start for meeting in meetings}
    for start, engines in suspects.items():
        if start not in met and any(engine.shared for engine in engines):
            program.say_nothing(start, "one-run", "only this start runs in its process")
        elif start not in met:
            program.say_nothing(start, *_NOTHING)
    yield from (_finding(program, _as_sure_as_the_pool(meeting)) for meeting in meetings)


# what is shared ------------------------------------------------------------------------------


def _shared(program: Program, start: Start) -> list[Resource]:
    """The shared objects that a start leaves bound to its loop; empty, with the reason noted."""
    if is_test(start.function):
        program.say_nothing(start, "test", "it stands in a test")
        return []
    if start.kept:
        program.say_nothing(start, "kept-loop", "its loop is kept and used again")
        return []
    reached = program.reached_by(start)
    shared = [each for each in reached.uses if each.kind != "primitive" and not each.module.is_test]
    bound = [resource for resource in shared if not resource.tolerant]
    if shared and not bound:
        words = f"the connections of `{shared[0].name}` survive a change of loop"
        program.say_nothing(start, "tolerant-driver", words)
        return []
    if not shared:
        program.say_nothing(start, *_NOTHING)
        return []
    pooled = [resource for resource in bound if resource.pooled is not False]
    if not pooled:
        program.say_nothing(start, "own-pool", f"`{shared[0].name}` keeps no pool between loops")
        return []
    ended = {
        *reached.ended,
        *program.reach.ended_in(start.function),
        *program.reach.down(start.through).ended,
    }
    left = [resource for resource in pooled if resource not in ended]
    if not left:
        program.say_nothing(start, "disposed", f"`{pooled[0].name}` is disposed of on that loop")
    return left


# words ---------------------------------------------------------------------------------------


def _as_sure_as_the_pool(meeting: Meeting) -> Meeting:
    """A meeting is no surer than that the engine keeps a pool between its loops."""
    if meeting.resource.pooled is not None:
        return meeting
    doubt = f"whether `{meeting.resource.name}` keeps a pool depends on a setting"
    sure = "likely" if meeting.certainty == "proven" else meeting.certainty
    return replace(meeting, certainty=sure, reason=f"{meeting.reason}; {doubt}")


def _finding(program: Program, meeting: Meeting) -> Finding:
    start, engine = meeting.start, meeting.resource
    kind = engine.kind
    down = program.reached_by(start).chain_to(engine)
    shared = "shared " if engine.shared else ""
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=meeting.certainty,
        file=program.project.relative(start.function.module.path),
        line=start.line,
        message=f"a loop started in {start.function.name} uses the {shared}{kind} `{engine.name}`,"
        " which another loop uses too",
        chain=program.chain(steps_of(meeting), start, down, f"uses the {kind} `{engine.name}`"),
        other=tuple(program.links(meeting.other)),
        object=program.thing(engine),
        reason=meeting.reason,
        fixes=(_CLIENT_FIXES if kind == "client" else _FIXES)[meeting.how],
    )
