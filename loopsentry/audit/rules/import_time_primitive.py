"""a lock, queue or event of a module is waited for on two event loops

An `asyncio.Lock`, `Queue`, `Semaphore` or `Event` is bound to the loop of its first *wait*, which
needs two tasks that want it at once. Kept by a module it outlives that loop, and the first wait on
another one fails: *is bound to a different event loop*.

Make it inside the coroutine that the loop runs, or run everything on one loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Function
from loopsentry.audit.findings import Certainty, Finding
from loopsentry.audit.names import COMBINERS
from loopsentry.audit.processes import Meeting, Suspects, find_meetings, steps_of
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.starts import Start
from loopsentry.audit.symbols import Outside, Resource

CODE = "LSA104"
NAME = "import-time-primitive"

BROKEN = """\
import asyncio

lock = asyncio.Lock()


async def work() -> None:
    async with lock:
        await asyncio.sleep(0)


async def both() -> None:
    await asyncio.gather(work(), work())


def main() -> None:
    for _ in range(2):
        asyncio.run(both())
"""
CURED = """\
import asyncio

async def work(lock: asyncio.Lock) -> None:
    async with lock:
        await asyncio.sleep(0)


async def both() -> None:
    lock = asyncio.Lock()
    await asyncio.gather(work(lock), work(lock))


def main() -> None:
    for _ in range(2):
        asyncio.run(both())
"""

_WAITS = COMBINERS - {"asyncio.wait_for", "asyncio.shield"}
_METHODS = frozenset({"acquire", "wait", "wait_for", "get", "put", "join"})
_GROUPS = frozenset({"create_task", "start_soon"})


def find(program: Program) -> Iterator[Finding]:
    """Find primitives of modules that starts reach which meet in one process; one for each."""
    suspects: Suspects = {}
    for start in program.starts:
        if is_test(start.function) or start.kept:
            continue
        kept = (each for each in program.reached_by(start).uses if _is_kept(each))
        waited = [each for each in kept if _wait(program, start, each) is not None]
        if waited:
            suspects[start] = waited
    told: set[Resource] = set()
    for meeting in find_meetings(program, suspects):
        if meeting.resource not in told:
            told.add(meeting.resource)
            yield _finding(program, meeting)


def _is_kept(resource: Resource) -> bool:
    """Whether a primitive is made by an import, or with an object that a module keeps."""
    if resource.kind != "primitive" or not resource.shared or resource.late:
        return False
    return not resource.module.is_test


def _wait(program: Program, start: Start, primitive: Resource) -> Step | None:
    """Where a run comes to wait for a primitive, the nearest first."""
    for function in program.reached_by(start).parents:
        lines = [line for symbol, line in program.reach.edges(function) if symbol is primitive]
        if lines and _waits(program, function, primitive):
            return function, lines[0]
    return None


def _waits(program: Program, function: Function, primitive: Resource) -> bool:
    waited = [
        *function.contexts,
        *(
            call.node.func.value
            for call in function.calls
            if isinstance(call.node.func, syntax.Attribute) and call.node.func.attr in _METHODS
        ),
    ]
    return any(program.symbols.resolve(each, function) is primitive for each in waited)


def _finding(program: Program, meeting: Meeting) -> Finding:
    start, primitive = meeting.start, meeting.resource
    last = _wait(program, start, primitive) or (start.function, start.line)
    way = program.reached_by(start).chain_of(last)
    several = any(_runs_at_once(program, function) for function, _ in way)
    # Nobody waits where one task at a time wants it, and it is bound to nothing then.
    certainty: Certainty = meeting.certainty if several else "latent"
    doubt = "" if several else "; no two tasks that want it at once are seen"
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=certainty,
        file=program.project.relative(start.function.module.path),
        line=start.line,
        message=f"`{primitive.name}` of a module is used by a loop started in"
        f" {start.function.name}, and by another loop",
        chain=program.chain(steps_of(meeting), start, way, f"waits for `{primitive.name}`"),
        other=tuple(program.links(meeting.other)),
        object=program.thing(primitive),
        reason=f"{meeting.reason}{doubt}",
        fixes=("create-in-loop", "single-run"),
    )


def _runs_at_once(program: Program, function: Function) -> bool:
    """Whether a coroutine starts several others at once."""
    for call in function.calls:
        callee = program.symbols.resolve(call.node.func, function)
        if isinstance(callee, Outside):
            last = callee.name.rpartition(".")[2]
            if callee.name in _WAITS or last in _GROUPS:
                return True
    return False
