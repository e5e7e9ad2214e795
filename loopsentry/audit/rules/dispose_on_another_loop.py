"""an engine is disposed of on a loop that did not open its connections

`dispose()` closes connections, and each closes on the event loop that opened it. `asyncio.run(
engine.dispose())` after another `asyncio.run`, after a server, or at exit runs on a new loop: the
connections cannot say goodbye, *Event loop is closed* is logged, and the server keeps them until it
notices.

Dispose of the engine in a `finally` of the coroutine that used it, in the application's lifespan,
or on the same `asyncio.Runner`.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Function
from loopsentry.audit.findings import Certainty, Finding
from loopsentry.audit.processes import Run, Suspects, find_pairs, serves_elsewhere
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.starts import Start
from loopsentry.audit.symbols import Resource
from loopsentry.audit.syntax import last_name, plain

CODE = "LSA109"
NAME = "dispose-on-another-loop"

BROKEN = """\
import asyncio

from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")


async def count() -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("select 1")


def main() -> None:
    asyncio.run(count())
    asyncio.run(engine.dispose())
"""
CURED = """\
import asyncio

from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")


async def count() -> None:
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("select 1")
    finally:
        await engine.dispose()


def main() -> None:
    asyncio.run(count())
"""

#: Decorators that may hand a function to what ends the process.
_REGISTERS = frozenset({"register", "on_event", "connect", "connect_via"})
#: A run that disposes, of what, on the way from where, how sure it is, and why.
Late = tuple[Start, Resource, tuple[Step, ...], Certainty, str]


def find(program: Program) -> Iterator[Finding]:
    """Find runs that only dispose of what other runs, or a server, left connected."""
    enders = {s: ended for s in program.starts if (ended := _ended(program, s))}
    if not enders:
        return
    users = {s: left for s in program.starts if (left := _left_by(program, s))}
    told: set[tuple[Start, Resource]] = set()
    for search in (_afterwards, _at_exit):
        for start, engine, way, certainty, why in search(program, enders, users):
            if (start, engine) not in told:
                told.add((start, engine))
                yield _finding(program, (start, engine, way, certainty, why))


def _ended(program: Program, start: Start) -> list[Resource]:
    """The shared, bound objects that a run of its own disposes of."""
    if start.kept or is_test(start.function):
        return []
    return [each for each in program.ended_by(start) if _is_bound(each)]


def _left_by(program: Program, start: Start) -> list[Resource]:
    """The shared, bound objects that a run leaves connected."""
    if is_test(start.function):
        return []
    reached = program.reached_by(start)
    return [each for each in reached.uses if _is_bound(each) and each not in reached.ended]


def _is_bound(resource: Resource) -> bool:
    kept = resource.shared and resource.pooled is not False
    return kept and not resource.tolerant and resource.kind != "primitive"


def _afterwards(program: Program, enders: Suspects, users: Suspects) -> Iterator[Late]:
    """Runs that dispose after another run, or after a server, in one process."""
    above = (entry for start in enders for entry in program.reach.above(start.function))
    entries = dict.fromkeys(above)
    homes = {start.function for start in enders}
    for entry in entries:
        if is_test(entry) or not (entry in homes or program.kind(entry)):
            continue
        for first, second in find_pairs(program, entry):
            if second.start is None or second.start not in enders:
                continue
            for engine in enders[second.start]:
                if _uses(program, first, users, engine):
                    told = _words(first, entry)
                    yield second.start, engine, second.way, *told


def _uses(program: Program, run: Run, users: Suspects, engine: Resource) -> bool:
    if run.start is None:
        return engine in program.served() and not serves_elsewhere(run.call)
    return engine in users.get(run.start, ())


def _words(first: Run, entry: Function) -> tuple[Certainty, str]:
    if first.start is None:
        return "likely", f"the server in {entry.name}, line {first.call.line}, used it before"
    where = f"{first.start.function.name}, line {first.start.line}"
    return "proven", f"the loop started in {where}, used it before, and is over"


def _at_exit(program: Program, enders: Suspects, users: Suspects) -> Iterator[Late]:
    """Runs that dispose when the process ends."""
    used = {engine for engines in users.values() for engine in engines} | program.served().keys()
    ending = {start.function for start in enders} & set(_registered(program))
    for start, engines in enders.items():
        if start.function in ending:
            for engine in engines:
                if engine in used:
                    why = "it runs when the process ends, after the loops that used it"
                    yield start, engine, (), "likely", why


def _registered(program: Program) -> Iterator[Function]:
    """The functions that run when a process ends."""
    for function in program.functions:
        nodes = function.decorations if _REGISTERS & set(function.decorators) else ()
        if any(_is_ending(program, node, function) for node in nodes):
            yield function
    for call in program.project.calls_of("register"):
        if program.symbols.outside(call.node.func, call.function) == "atexit.register":
            for argument in call.node.args[:1]:
                yield from _meant(program, argument, call.function)


def _meant(program: Program, node: syntax.Node, scope: Function) -> Iterator[Function]:
    """The function that an expression is; a lambda's calls stand in the function around it."""
    if isinstance(node, syntax.Lambda):
        yield scope
        return
    found = program.symbols.resolve(node, scope)
    if isinstance(found, Function):
        yield found


def _is_ending(program: Program, node: syntax.Node, function: Function) -> bool:
    """Whether a decorator registers its function for the end of the process."""
    decorator = plain(node)
    scope = function.parent or function.module.body
    if program.symbols.outside(decorator, scope) == "atexit.register":
        return True
    given = node.args if isinstance(node, syntax.Call) else ()
    event = any(isinstance(each, syntax.Constant) and each.value == "shutdown" for each in given)
    signal = isinstance(decorator, syntax.Attribute) and "shutdown" in last_name(decorator.value)
    name = last_name(decorator)
    return (name == "on_event" and event) or (name in ("connect", "connect_via") and signal)


def _finding(program: Program, late: Late) -> Finding:
    start, engine, way, certainty, why = late
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=certainty,
        file=program.project.relative(start.function.module.path),
        line=start.line,
        message=f"the {engine.kind} `{engine.name}` is disposed of in {start.function.name}"
        " on a loop that did not open its connections",
        chain=(
            *program.links(way),
            program.link((start.function, start.line), "starts a loop only to dispose"),
        ),
        object=program.thing(engine),
        reason=why,
        fixes=("dispose-in-loop", "single-run", "lifespan-engine"),
    )
