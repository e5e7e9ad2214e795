"""two event loops use one engine, pool or client

`asyncio.run` makes an event loop and closes it. What a coroutine opens on it stays in the pool of
a module's engine, and the next `asyncio.run`, the next task of a worker or the server that starts
afterwards takes it out on another loop: *attached to a different loop* once, *another operation is
in progress* from then on.

Give what runs on a loop of its own an engine of its own (`session_scope_fresh()`), one pool for
each loop (`LoopLocalPool`), no pool (`NullPool`), or dispose of the engine before the loop ends.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from loopsentry.audit.entries import MANY, ONCE, SERVERS, is_test, is_test_module
from loopsentry.audit.facts import Arm, Call, Function
from loopsentry.audit.findings import Certainty, Finding, Link
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.starts import Start
from loopsentry.audit.symbols import Outside, Resource

CODE = "LSA101"
NAME = "run-reaches-shared-engine"

_WORDS = {
    "task": "a task, which a worker runs many times",
    "handler": "a request handler, while the server's loop runs",
    "thread": "a function that threads run",
    "job": "a scheduled job, which runs many times",
    "invocation": "called by a serverless platform, many times in a warm process",
    "rerun": "run again by Streamlit for each interaction",
}
_FIXES = {
    "many": ("fresh-session", "loop-local-pool", "worker-loop", "null-pool", "dispose-in-loop"),
    "twice": ("single-run", "dispose-in-loop", "fresh-session", "loop-local-pool"),
    "server": ("fresh-session", "dispose-in-loop", "lifespan-engine", "loop-local-pool"),
    "client": ("client-per-loop", "single-run"),
}
_EXACT = frozenset({"task", "job", "invocation", "rerun"})
DEEP = 6
#: The start in the entry itself, or one call below it.
NEAR = 2


@dataclass(frozen=True, slots=True)
class Run:
    """A start, or a server's, as it is met on the way through an entry.

    Attributes:
        start: the start, None for a server.
        arms: the branches it stands in.
        call: the call on the way to it in the entry.
        way: the calls on the way, from the entry.
    """

    start: Start | None
    arms: tuple[Arm, ...]
    call: Call
    way: tuple[Step, ...] = ()


def find(program: Program) -> Iterator[Finding]:
    """Find starts whose shared objects meet another loop in the same process."""
    suspects: dict[Start, list[Resource]] = {}
    for start in program.starts:
        engines = _shared(program, start)
        if engines:
            suspects[start] = engines
    found: dict[tuple[Start, Resource], Finding] = {}
    for finding_of in (_repeated, _many, _sequences, _unreached):
        for start, engine, finding in finding_of(program, suspects):
            found.setdefault((start, engine), finding)
    for start in suspects:
        if not any(known is start for known, _ in found):
            program.say_nothing(start, "one-run", "only this start runs in its process")
    yield from found.values()


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
    shared = [r for r in reached.uses if r.shared and not is_test_module(r.module)]
    bound = [resource for resource in shared if not resource.tolerant]
    if shared and not bound:
        words = f"the connections of `{shared[0].name}` survive a change of loop"
        program.say_nothing(start, "tolerant-driver", words)
        return []
    if not shared:
        program.say_nothing(start, "nothing-shared", "it reaches no shared engine, pool or client")
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


# how often it runs ---------------------------------------------------------------------------

Judged = Iterator[tuple[Start, Resource, Finding]]
Suspects = dict[Start, list[Resource]]


def _repeated(program: Program, suspects: Suspects) -> Judged:
    """Starts in the body of a loop."""
    for start, engines in suspects.items():
        if start.call.repeated and start.call.function is start.function and start.loop is None:
            for engine in engines:
                why = "the start stands in the body of a loop"
                yield start, engine, _finding(program, start, engine, [], "proven", why, "twice")
            continue
        above = _repeating_caller(program, start)
        if above is not None:
            for engine in engines:
                why = f"{above[0].name} calls {start.function.name}() in the body of a loop"
                chain = [above, (start.function, start.line)]
                yield start, engine, _finding(program, start, engine, chain, "proven", why, "twice")


def _repeating_caller(program: Program, start: Start) -> Step | None:
    """Who calls the function that holds a start in the body of a loop."""
    for caller, _ in program.reach.callers(start.function):
        for call in caller.calls:
            if call.repeated and not is_test(caller):
                found = program.symbols.resolve(call.node.func, caller)
                if found is start.function:
                    return caller, call.line
    return None


def _many(program: Program, suspects: Suspects) -> Judged:
    """Starts below an entry that runs many times in a process."""
    for start, engines in suspects.items():
        if start.threaded:
            for engine in engines:
                why = "the runner is handed to a thread, while other loops run"
                yield start, engine, _finding(program, start, engine, [], "likely", why, "many")
            continue
        for chain in program.reach.up(start.function, DEEP):
            kind = program.entries.kind(chain[0][0])
            if kind not in MANY:
                continue
            near = len(chain) <= NEAR and kind in _EXACT
            why = f"{chain[0][0].name}() is {_WORDS[kind]}"
            for engine in engines:
                sure: Certainty = "proven" if near else "likely"
                yield start, engine, _finding(program, start, engine, chain, sure, why, "many")
            break


def _sequences(program: Program, suspects: Suspects) -> Judged:
    """Two starts, or a start and a server, one after the other in one process."""
    begun = {start.call: start for start in program.starts if not start.through[:1]}
    begun.update({start.call: start for start in program.starts})
    for entry in program.functions:
        if program.entries.kind(entry) not in ONCE:
            continue
        yield from _imported(program, suspects, entry)
        runs = list(_runs_of(program, entry, begun, (), 0))
        runs = [*_callbacks(program, entry, begun), *runs]
        for index, first in enumerate(runs):
            if first.start is None or first.start not in suspects:
                continue
            for second in runs[index + 1 :]:
                if not _exclude(first, second) and not _is_one_loop(first, second):
                    yield from _pair(program, suspects, entry, (first, second))


def _imported(program: Program, suspects: Suspects, entry: Function) -> Judged:
    """Starts in the body of a module that a server imports."""
    if entry.parent is not None:
        return
    own = (start for start in suspects if start.function is entry)
    for start in own:
        if start.call in entry.module.main or not _has_handlers(program, entry):
            continue
        for engine in suspects[start]:
            if engine in program.served():
                why = "it runs when the server imports this module, and its handlers use it too"
                yield start, engine, _finding(program, start, engine, [], "likely", why, "server")


def _has_handlers(program: Program, body: Function) -> bool:
    return any(program.entries.kind(each) == "handler" for each in body.module.functions())


def _pair(program: Program, suspects: Suspects, entry: Function, runs: tuple[Run, Run]) -> Judged:
    first, second = runs
    if first.start is None:
        return
    for engine in suspects[first.start]:
        if second.start is None:
            if engine in program.served() and not _serves_elsewhere(second.call):
                why = "the server that starts afterwards in the same process uses it too"
                chain = [*first.way, (first.start.function, first.start.line)]
                finding = _finding(program, first.start, engine, chain, "likely", why, "server")
                yield first.start, engine, finding
        elif second.start in suspects and engine in suspects[second.start]:
            where = f"{first.start.function.name}(), line {first.start.line}"
            why = f"{entry.name} starts two loops, one after the other: the first in {where}"
            chain = [*second.way, (second.start.function, second.start.line)]
            finding = _finding(program, second.start, engine, chain, "proven", why, "twice")
            yield second.start, engine, finding


def _unreached(program: Program, suspects: Suspects) -> Judged:
    """Starts that nothing in the tree calls: they are used from elsewhere, or not at all."""
    for start, engines in suspects.items():
        kinds = {program.entries.kind(c[0][0]) for c in program.reach.up(start.function, DEEP)}
        if not kinds - {None}:
            for engine in engines:
                why = "nothing in this tree calls it, so how often it runs is not known"
                yield start, engine, _finding(program, start, engine, [], "latent", why, "many")


# the order of starts -------------------------------------------------------------------------


def _runs_of(
    program: Program,
    function: Function,
    begun: dict[Call, Start],
    way: tuple[Step, ...],
    deep: int,
) -> Iterator[Run]:
    """The starts that a function comes to, in the order of its lines."""
    if deep > DEEP or any(step[0] is function for step in way):
        return
    decorated = _decorated(program, function)
    if decorated is not None:
        yield Run(decorated, (), decorated.call, way)
        return
    for call in sorted(function.calls, key=lambda each: (each.line, each.node.col_offset)):
        start = begun.get(call)
        if start is not None and start.function is function:
            yield Run(start, call.arms, call, way)
            continue
        callee = program.symbols.resolve(call.node.func, function)
        if isinstance(callee, Outside) and callee.name in SERVERS:
            yield Run(None, call.arms, call, way)
        elif isinstance(callee, Function) and callee is not function:
            decorated = next(
                (s for s in program.starts if s.function is callee and s.through), None
            )
            step = (*way, (function, call.line))
            if decorated is not None and decorated.call.function is not callee:
                yield Run(decorated, call.arms, call, step)
            elif not callee.asynchronous:
                for run in _runs_of(program, callee, begun, step, deep + 1):
                    yield replace(run, arms=(*call.arms, *run.arms), call=run.call)


def _decorated(program: Program, function: Function) -> Start | None:
    """The start that a decorator makes of an asynchronous function."""
    own = (s for s in program.starts if s.function is function and s.call.function is not function)
    return next(own, None) if function.asynchronous else None


def _callbacks(program: Program, entry: Function, begun: dict[Call, Start]) -> Iterator[Run]:
    """What a command's application runs first: its callback, in the same process."""
    own = {_application(each) for each in entry.decorators}
    for function in entry.module.functions():
        names = {_application(each, "callback") for each in function.decorators} - {None}
        if function is not entry and names & own:
            yield from _runs_of(program, function, begun, (), 0)


def _application(decorator: ast.expr, method: str | None = None) -> str | None:
    plain = decorator.func if isinstance(decorator, ast.Call) else decorator
    if not isinstance(plain, ast.Attribute) or not isinstance(plain.value, ast.Name):
        return None
    return plain.value.id if method in (None, plain.attr) else None


def _is_one_loop(first: Run, second: Run) -> bool:
    """Whether both run on the loop that one variable of one function holds."""
    one, two = first.start, second.start
    if one is None or two is None or one.function is not two.function:
        return False
    return one.loop is not None and one.loop == two.loop


def _exclude(first: Run, second: Run) -> bool:
    """Whether two runs never happen in one process: other arms, or the first one's leaves."""
    others = {number: arm for number, arm, _ in second.arms}
    for number, arm, leaves in first.arms:
        if number in others:
            if others[number] != arm:
                return True
        elif leaves:
            return True
    return False


def _serves_elsewhere(call: Call) -> bool:
    """Whether a server serves from child processes."""
    for keyword in call.node.keywords:
        value = keyword.value
        if keyword.arg == "reload" and isinstance(value, ast.Constant) and value.value is True:
            return True
        if keyword.arg == "workers" and not (isinstance(value, ast.Constant) and value.value == 1):
            return True
    return False


# words ---------------------------------------------------------------------------------------


def _finding(  # noqa: PLR0913, PLR0917 - the parts of one sentence
    program: Program,
    start: Start,
    engine: Resource,
    above: list[Step],
    certainty: Certainty,
    reason: str,
    fixes: str,
) -> Finding:
    reached = program.reached_by(start)
    down = reached.chain_to(engine)
    kind = "engine" if engine.kind == "sessionmaker" else engine.kind
    if engine.pooled is None:
        certainty = "likely" if certainty == "proven" else certainty
        reason = f"{reason}; whether `{engine.name}` keeps a pool depends on a setting"
    links: list[Link] = [program.link(step) for step in above[:-1]]
    links.append(program.link((start.function, start.line), "starts a loop"))
    below = [step for step in down[:-1] if step[0] is not start.function]
    links += [program.link(step) for step in below]
    links.append(program.link(down[-1], f"uses the {kind} `{engine.name}`"))
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=certainty,
        file=program.project.relative(start.function.module.path),
        line=start.line,
        message=f"a loop started in {start.function.name} uses the shared {kind} `{engine.name}`,"
        " which another loop uses too",
        chain=tuple(links),
        object=program.thing(engine),
        reason=reason,
        fixes=_FIXES["client"] if kind == "client" else _FIXES[fixes],
    )
