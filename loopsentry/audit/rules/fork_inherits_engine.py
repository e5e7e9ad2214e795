"""a forked process inherits connections that its parent opened

A fork copies the sockets in an engine's pool. Parent and child then talk on one connection: answers
go to whoever reads first, *protocol state* errors follow, and the first of the two that closes ends
the other's session. The child's new event loop is not the one that opened them, either.

Fork first and connect afterwards, start children with `spawn` or `forkserver`, or begin the child
with `engine.sync_engine.dispose(close=False)`, which forgets the inherited connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Arm, Call, Class, Function
from loopsentry.audit.findings import Certainty, Finding
from loopsentry.audit.names import PROCESS_POOLS
from loopsentry.audit.processes import exclude, parents_arms
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.symbols import Outside, Resource, Symbol

CODE = "LSA103"
NAME = "fork-inherits-engine"

BROKEN = """\
import asyncio
import multiprocessing

from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")


async def count() -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("select 1")


def child() -> None:
    asyncio.run(count())


def main() -> None:
    asyncio.run(count())
    multiprocessing.get_context("fork").Process(target=child).start()
"""
CURED = """\
import asyncio
import multiprocessing

from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")


async def count() -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("select 1")


def child() -> None:
    engine.sync_engine.dispose(close=False)
    asyncio.run(count())


def main() -> None:
    asyncio.run(count())
    multiprocessing.get_context("fork").Process(target=child).start()
"""

_PROCESSES = frozenset({"multiprocessing.Process", "multiprocessing.context.ForkProcess"})
_GET_CONTEXT = "multiprocessing.get_context"
#: What a pool of processes runs, by the method that is given it.
_HANDED = frozenset(
    {
        *("submit", "map", "apply", "apply_async", "map_async", "starmap", "starmap_async"),
        *("imap", "imap_unordered"),
    }
)
_DEEP = 4


@dataclass(frozen=True, slots=True)
class Fork:
    """A place where a child process begins.

    Attributes:
        call: the call that begins it.
        function: who holds it.
        explicit: whether the source says that it is a fork, and no other way of starting.
        uses: the ways on which the child comes to use what it does not forget first.
    """

    call: Call
    function: Function
    explicit: bool
    uses: dict[Resource, list[Step]]


def find(program: Program) -> Iterator[Finding]:
    """Find forks after their parent used an engine that the child uses too."""
    default = _default_method(program)
    for fork in _forks(program, default):
        if is_test(fork.function):
            continue
        inherited = [each for each in fork.uses if each.shared and each.pooled is not False]
        told: set[Resource] = set()
        for way in program.reach.up(fork.function, _DEEP):
            for engine, step in _used_before(program, way, fork, inherited):
                if engine not in told and engine.kind != "primitive":
                    told.add(engine)
                    yield _finding(program, fork, engine, (step, way))


# forks ---------------------------------------------------------------------------------------


def _default_method(program: Program) -> str | None:
    """How the project starts child processes, if it says so."""
    for call in program.project.calls_of("set_start_method"):
        name = program.symbols.outside(call.node.func, call.function)
        if name == "multiprocessing.set_start_method":
            return _method_of(call.node) or ""
    return None


def _method_of(node: syntax.Call) -> str | None:
    """The way of starting processes that a call is given; "" for one that is worked out."""
    given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "method")]
    if not given:
        return None
    return str(given[0].value) if isinstance(given[0], syntax.Constant) else ""


def _forks(program: Program, default: str | None) -> Iterator[Fork]:
    kinds = program.project.subclasses("Process")
    names = {"fork", "Process", "run_in_executor", *_HANDED, *kinds}
    for call in (call for name in sorted(names) for call in program.project.calls_of(name)):
        function = call.function
        callee = program.symbols.resolve(call.node.func, function)
        name = callee.name if isinstance(callee, Outside) else ""
        if name == "os.fork":
            yield Fork(call, function, explicit=True, uses=_used_after(program, call))
            continue
        made = _process_of(program, call, callee, name)
        if made is None:
            continue
        method, targets = made
        method = default if method is None else method
        if targets and method in (None, "fork"):
            reached = program.reach.down(targets)
            left = (each for each in reached.uses if each not in reached.ended)
            uses = {each: reached.chain_to(each) for each in left}
            yield Fork(call, function, explicit=method == "fork", uses=uses)


def _used_after(program: Program, fork: Call) -> dict[Resource, list[Step]]:
    """What the child of `os.fork` uses in the function that forked, and does not forget."""
    function = fork.function
    parents = parents_arms(fork)
    uses: dict[Resource, list[Step]] = {}
    forgotten: set[Resource] = set()
    for call in function.calls:
        if call.line <= fork.line or parents & {(number, arm) for number, arm, _ in call.arms}:
            continue
        used, ended = _effect(program, call)
        forgotten |= ended
        for engine in used - forgotten:
            uses.setdefault(engine, [(function, call.line)])
    return uses


def _process_of(
    program: Program, call: Call, callee: Symbol, name: str
) -> tuple[str | None, tuple[Function, ...]] | None:
    """How a call begins processes, and what runs in them; None if it does not."""
    function = call.function
    base, _, last = name.rpartition(".")
    if name in _PROCESSES or last == "Process":
        method = None if name in _PROCESSES else _context(program, call.node.func, function)
        if method is None and name not in _PROCESSES:
            return None
        return method, tuple(_meant(program, call.node, function, ("target",)))
    if isinstance(callee, Class) and _is_process(program, callee):
        run = callee.methods.get("run")
        return None, (run,) if run is not None else ()
    if last in _HANDED and base.removesuffix("()") in PROCESS_POOLS:
        handed = tuple(_meant(program, call.node, function, ("fn", "func")))
        return _method_of_pool(program, call), handed
    if last == "run_in_executor" and call.node.args:
        pool = program.symbols.outside(call.node.args[0], function)
        if pool.removesuffix("()") in PROCESS_POOLS:
            return None, tuple(_meant(program, call.node, function, (), first=1))
    return None


def _context(program: Program, node: syntax.Node, function: Function) -> str | None:
    """The method of the context whose `Process` is called."""
    if not isinstance(node, syntax.Attribute):
        return None
    outside = program.symbols.outside
    for value in (node.value, *_values(node.value, function)):
        if isinstance(value, syntax.Call) and outside(value.func, function) == _GET_CONTEXT:
            return _method_of(value)
    return None


def _values(node: syntax.Node, function: Function) -> list[syntax.Node]:
    if not isinstance(node, syntax.Name):
        return []
    entered = [function.entered[node.id]] if node.id in function.entered else []
    values = function.bindings.get(node.id) or function.module.body.bindings.get(node.id, [])
    return [*entered, *values]


def _method_of_pool(program: Program, call: Call) -> str | None:
    """The way in which a pool's processes are started, if it is given one."""
    node = call.node.func
    made = _values(node.value, call.function) if isinstance(node, syntax.Attribute) else []
    for value in made:
        if isinstance(value, syntax.Call):
            for keyword in value.keywords:
                if keyword.arg == "mp_context" and isinstance(keyword.value, syntax.Call):
                    return _method_of(keyword.value)
                if keyword.arg == "mp_context":
                    return ""
            method = _context(program, value.func, call.function)
            if method is not None:
                return method
    return None


def _is_process(program: Program, kind: Class) -> bool:
    return any(
        program.symbols.outside(base, each.scope) in _PROCESSES
        for each in program.symbols.lineage(kind)
        for base in each.bases
    )


def _meant(
    program: Program, node: syntax.Call, scope: Function, keywords: tuple[str, ...], first: int = 0
) -> Iterator[Function]:
    """The functions that a call is handed to run in a process."""
    given = [k.value for k in node.keywords if k.arg in keywords] or node.args[first : first + 1]
    for each in given:
        found = program.symbols.resolve(each, scope)
        if isinstance(found, Function):
            yield found


# before it -----------------------------------------------------------------------------------


def _used_before(
    program: Program, way: list[Step], fork: Fork, inherited: list[Resource]
) -> Iterator[tuple[Resource, Step]]:
    """The objects that the outermost function of a way used before it came to the fork."""
    function, line = way[0]
    here = fork.call if len(way) == 1 else None
    limit = fork.call.line if here is not None else line
    arms = here.arms if here is not None else _arms_at(function, line)
    used: dict[Resource, Step] = {}
    for call in function.calls:
        if call.line >= limit or exclude(call.arms, arms):
            continue
        uses, ended = _effect(program, call)
        for engine in inherited:
            if engine in uses:
                used.setdefault(engine, (function, call.line))
            if engine in ended:
                used.pop(engine, None)
    yield from used.items()


def _arms_at(function: Function, line: int) -> tuple[Arm, ...]:
    return next((call.arms for call in function.calls if call.line == line), ())


def _effect(program: Program, call: Call) -> tuple[set[Resource], set[Resource]]:
    """What one call leaves connected, and what it disposes of."""
    start = program.begun.get(call)
    if start is not None:
        reached = program.reached_by(start)
        ended = {*reached.ended, *program.ended_by(start)}
        return set(reached.uses) - ended, ended
    ended = set(program.reach.ended_by(call.node.func, call.function))
    if ended:
        return set(), ended
    callee = program.symbols.resolve(call.node.func, call.function)
    if isinstance(callee, Resource):
        return {callee.engine}, set()
    if isinstance(callee, Function):
        reached = program.reach.down([callee])
        return set(reached.uses) - reached.ended, reached.ended
    return set(), set()


# words ---------------------------------------------------------------------------------------


def _finding(
    program: Program, fork: Fork, engine: Resource, before: tuple[Step, list[Step]]
) -> Finding:
    step, way = before
    certainty: Certainty = "proven" if fork.explicit else "likely"
    how = "it is a fork" if fork.explicit else "it is a fork on Linux before Python 3.14"
    down = fork.uses[engine]
    here = (fork.function, fork.call.line)
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=certainty,
        file=program.project.relative(fork.function.module.path),
        line=fork.call.line,
        message=f"a process forked in {fork.function.name} inherits connections of the"
        f" {engine.kind} `{engine.name}`, and uses them",
        chain=(
            program.link(step, f"connects `{engine.name}` in the parent"),
            *program.links(way[:-1]),
            program.link(here, "forks"),
            *program.links(down[:-1]),
            program.link(down[-1], f"uses the {engine.kind} `{engine.name}` in the child"),
        ),
        object=program.thing(engine),
        reason=f"{how}; the parent used it before, and the child does not forget it",
        fixes=("dispose-after-fork", "loop-local-pool"),
    )
