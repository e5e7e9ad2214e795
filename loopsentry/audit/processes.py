"""Which starts of a loop meet in one process: how often each runs, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from . import syntax
from .entries import MANY, ONCE, is_test
from .facts import Arm, Call, Function
from .findings import Certainty
from .names import POLLING, SERVERS
from .program import Program
from .reach import Step
from .starts import Start
from .symbols import Outside, Resource
from .syntax import last_name, plain

#: Starts, with the shared objects that each leaves bound to its loop.
Suspects = dict[Start, list[Resource]]

_WORDS = {
    "task": "a task, which a worker runs many times",
    "handler": "a request handler, while the server's loop runs",
    "thread": "a function that threads run",
    "process": "a function that each process of a pool runs many times",
    "job": "a scheduled job, which runs many times",
    "invocation": "called by a serverless platform, many times in a warm process",
    "rerun": "run again for each interaction",
    "callback": "a callback, which may be called many times",
}
_EXACT = frozenset({"task", "job", "invocation", "rerun"})
#: Folders of what is often run apart from the application, or before it.
_APART = frozenset({"cli", "commands", "management", "scripts"})
DEEP = 6
#: The start in the entry itself, or one call below it.
NEAR = 2


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two loops that use one object.

    Attributes:
        start: where one of them is started.
        resource: the object.
        certainty: how sure it is that both run in one process.
        reason: why.
        how: "many" runs of one entry, "twice" in a row, or a "server" afterwards.
        above: the calls on the way to the start, from the entry.
        other: the way of the other loop to the object; empty where it is the same one.
    """

    start: Start
    resource: Resource
    certainty: Certainty
    reason: str
    how: Literal["many", "twice", "server"]
    above: tuple[Step, ...] = ()
    other: tuple[Step, ...] = ()


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


def find_meetings(program: Program, suspects: Suspects) -> list[Meeting]:
    """The surest way in which each start's object meets another loop."""
    found: dict[tuple[Start, Resource], Meeting] = {}
    lasting = {start: [e for e in each if e.shared] for start, each in suspects.items()}
    for search in (_repeated, _many, _sequences, _unreached):
        for meeting in search(program, lasting):
            found.setdefault((meeting.start, meeting.resource), meeting)
    for meeting in _handed_on(program, suspects):
        found.setdefault((meeting.start, meeting.resource), meeting)
    return list(found.values())


# objects of one function ---------------------------------------------------------------------


def _handed_on(program: Program, suspects: Suspects) -> Iterator[Meeting]:
    """What a function makes, or one of its runs, and hands on to a later run of its own."""
    homes = {start.function for start, each in suspects.items() if not all(e.shared for e in each)}
    for home in sorted(homes, key=lambda each: (str(each.module.path), each.line)):
        for first, second in find_pairs(program, home):
            if first.start is None or second.start is None or first.way or second.way:
                continue
            for engine in suspects.get(second.start, ()):
                earlier = suspects.get(first.start, ())
                given = engine in earlier or engine.origin in earlier
                if given and not engine.shared and not _makes(program, second.start, engine):
                    why = f"the loop started in line {first.start.line} used it before"
                    other = tuple(_way_of(program, first.start, engine))
                    yield Meeting(second.start, engine, "proven", why, "twice", (), other)
        yield from _handed_to_many(suspects, home)


def _handed_to_many(suspects: Suspects, home: Function) -> Iterator[Meeting]:
    """Starts in the body of a loop, with what was made before the loop."""
    once = {call.line for call in home.calls if not call.repeated}
    for start, engines in suspects.items():
        if start.function is not home or not start.call.repeated or start.loop is not None:
            continue
        for engine in engines:
            if engine.maker is home and not engine.shared and engine.line in once:
                why = "the start stands in the body of a loop"
                yield Meeting(start, engine, "proven", why, "twice")


def _way_of(program: Program, start: Start, engine: Resource) -> list[Step]:
    """The way from a start to the use of an object."""
    reached = program.reached_by(start)
    used = engine if engine in reached.uses else engine.origin
    down = reached.chain_to(used) if used is not None and used in reached.uses else []
    return [(start.function, start.line), *(s for s in down if s[0] is not start.function)]


def _makes(program: Program, start: Start, engine: Resource) -> bool:
    """Whether each run of a start makes the object anew."""
    return engine.maker in program.reached_by(start).parents


def steps_of(meeting: Meeting) -> list[Step]:
    """The way from the entry to the start."""
    return [*meeting.above, (meeting.start.function, meeting.start.line)]


# how often it runs ---------------------------------------------------------------------------


def _repeated(program: Program, suspects: Suspects) -> Iterator[Meeting]:
    """Starts in the body of a loop."""
    for start, engines in suspects.items():
        if start.call.repeated and start.call.function is start.function and start.loop is None:
            for engine in engines:
                why = "the start stands in the body of a loop"
                yield Meeting(start, engine, "proven", why, "twice")
            continue
        above = _repeating_caller(program, start)
        if above is not None:
            for engine in engines:
                why = f"{above[0].name} calls {start.function.name}() in the body of a loop"
                yield Meeting(start, engine, "proven", why, "twice", (above,))


def _repeating_caller(program: Program, start: Start) -> Step | None:
    """Who calls the function that holds a start in the body of a loop."""
    for caller, call in program.reach.calls_of(start.function):
        if call.repeated and not is_test(caller):
            return caller, call.line
    return None


def _many(program: Program, suspects: Suspects) -> Iterator[Meeting]:
    """Starts below an entry that runs many times in a process."""
    for start, engines in suspects.items():
        if start.threaded:
            for engine in engines:
                why = "the runner is handed to a thread, while other loops run"
                yield Meeting(start, engine, "likely", why, "many")
            continue
        for chain in program.reach.up(start.function):
            kind = program.kind(chain[0][0])
            if kind not in MANY:
                continue
            entry = chain[0][0]
            met = [each for each in engines if not _is_alone(program, suspects, entry, each)]
            met = [each for each in met if not _is_made_anew(program, entry, each)]
            near = len(chain) <= NEAR and kind in _EXACT
            why = f"{entry.name}() is {_WORDS[kind]}"
            for engine in met:
                sure: Certainty = "proven" if near else "likely"
                yield Meeting(start, engine, sure, why, "many", tuple(chain[:-1]))
            break


def _is_made_anew(program: Program, entry: Function, engine: Resource) -> bool:
    """Whether a script that is run again makes what its module has again, too."""
    if entry.parent is not None or program.kind(entry) != "rerun":
        return False
    maker = engine.maker
    cached = maker is not None and program.symbols.flows.is_cached(maker)
    return engine.module is entry.module and not cached


def _is_alone(program: Program, suspects: Suspects, entry: Function, engine: Resource) -> bool:
    """Whether one thread, started once in a process, is all that uses an object."""
    calls = program.entries.handed.get(entry, ())
    others = [start for start, each in suspects.items() if engine in each]
    if len(calls) != 1 or len(others) != 1 or engine in program.served():
        return False
    call = calls[0]
    if last_name(call.node.func) != "Thread" or call.repeated:
        return False
    kinds = {program.kind(each) for each in program.reach.above(call.function)} - {None}
    return bool(kinds) and kinds <= ONCE


def _sequences(program: Program, suspects: Suspects) -> Iterator[Meeting]:
    """Two starts, or a start and a server, one after the other in one process."""
    entries = {each for start in suspects for each in program.reach.above(start.function)}
    for entry in sorted(entries, key=lambda each: (each.module.number, each.line)):
        if program.kind(entry) not in ONCE:
            continue
        yield from _imported(program, suspects, entry)
        for first, second in find_pairs(program, entry):
            if first.start in suspects:
                yield from _pair(program, suspects, entry, (first, second))


def find_pairs(program: Program, entry: Function) -> Iterator[tuple[Run, Run]]:
    """Two runs, one after the other, that one call of a function comes to, on two loops."""
    runs = list(_runs_of(program, entry, (), 0))
    runs = [*_callbacks(program, entry), *runs]
    for index, first in enumerate(runs):
        for second in runs[index + 1 :]:
            apart = exclude(first.arms, second.arms) or _is_one_loop(first, second)
            # What a forked child inherits is another mistake.
            if not apart and not _is_in_child(program, second):
                yield first, second


def _imported(program: Program, suspects: Suspects, entry: Function) -> Iterator[Meeting]:
    """Starts in the body of a module that a server imports."""
    if entry.parent is not None:
        return
    own = (start for start in suspects if start.function is entry)
    for start in own:
        if start.call.main or not _has_handlers(program, entry):
            continue
        for engine in suspects[start]:
            if engine in program.served():
                why = "it runs when the server imports this module, and its handlers use it too"
                other = tuple(program.way_of_handlers(engine))
                yield Meeting(start, engine, "likely", why, "server", (), other)


def _has_handlers(program: Program, body: Function) -> bool:
    return any(program.kind(each) == "handler" for each in body.module.functions())


def _pair(
    program: Program, suspects: Suspects, entry: Function, runs: tuple[Run, Run]
) -> Iterator[Meeting]:
    first, second = runs
    if first.start is None:
        return
    for engine in suspects[first.start]:
        if second.start is None or program.serves(second.start):
            if engine in program.served() and not serves_elsewhere(second.call):
                why = "the server that starts afterwards in the same process uses it too"
                served = ((entry, second.call.line), *program.way_of_handlers(engine))
                yield Meeting(first.start, engine, "likely", why, "server", first.way, served)
        elif second.start in suspects and engine in suspects[second.start]:
            where = f"{first.start.function.name}(), line {first.start.line}"
            why = f"{entry.name} starts two loops, one after the other: the first in {where}"
            other = (*first.way, *_way_of(program, first.start, engine))
            yield Meeting(second.start, engine, "proven", why, "twice", second.way, other)


def _unreached(program: Program, suspects: Suspects) -> Iterator[Meeting]:
    """Starts that nothing in the tree calls: they are used from elsewhere, or not at all."""
    for start, engines in suspects.items():
        kinds = {program.kind(each) for each in program.reach.above(start.function)}
        if not kinds - {None}:
            for engine in engines:
                why = "nothing in this tree calls it, so how often it runs is not known"
                if _APART & set(start.function.module.parts):
                    why += "; where it stands, it is often run apart from the application"
                yield Meeting(start, engine, "latent", why, "many")


# the order of starts -------------------------------------------------------------------------


def _runs_of(
    program: Program, function: Function, way: tuple[Step, ...], deep: int
) -> Iterator[Run]:
    """The starts that a function comes to, in the order of its lines."""
    if deep > DEEP or any(step[0] is function for step in way):
        return
    decorated = program.decorated.get(function)
    if decorated is not None:
        yield Run(decorated, (), decorated.call, way)
        return
    for call in sorted(function.calls, key=lambda each: each.line):
        start = program.begun.get(call)
        if start is not None and start.function is function:
            yield Run(start, call.arms, call, way)
            continue
        callee = program.symbols.resolve(call.node.func, function)
        if isinstance(callee, Outside) and _serves(callee.name):
            yield Run(None, call.arms, call, way)
        elif isinstance(callee, Function) and _runs_here(program, callee):
            step = (*way, (function, call.line))
            for run in _runs_of(program, callee, step, deep + 1):
                yield replace(run, arms=(*call.arms, *run.arms))


def _serves(name: str) -> bool:
    return name in SERVERS or name.rpartition(".")[2] in POLLING


def _runs_here(program: Program, function: Function) -> bool:
    """Whether calling a function runs it, and does not only make a coroutine."""
    return not function.asynchronous or function in program.decorated


def _callbacks(program: Program, entry: Function, deep: int = DEEP) -> Iterator[Run]:
    """What a command's application runs first: its callback or its group, in the same process."""
    yield from _groups(program, entry, deep)
    own = {_application(plain(each)) for each in entry.decorations}
    for function in entry.module.functions():
        if function is entry or "callback" not in function.decorators:
            continue
        names = {_application(plain(each), "callback") for each in function.decorations} - {None}
        if names & own:
            yield from _runs_of(program, function, (), 0)


def _groups(program: Program, entry: Function, deep: int) -> Iterator[Run]:
    """What click's groups around a command run before it, the outermost first."""
    scope = entry.parent or entry.module.body
    for each in map(plain, entry.decorations):
        if deep and isinstance(each, syntax.Attribute) and each.attr in ("command", "group"):
            group = program.symbols.resolve(each.value, scope)
            if isinstance(group, Function) and "group" in group.decorators:
                yield from _groups(program, group, deep - 1)
                yield from _runs_of(program, group, (), 0)


def _application(decorator: syntax.Node, method: str | None = None) -> str | None:
    if not isinstance(decorator, syntax.Attribute) or not isinstance(decorator.value, syntax.Name):
        return None
    return decorator.value.id if method in (None, decorator.attr) else None


def _is_one_loop(first: Run, second: Run) -> bool:
    """Whether both run on the loop that one variable of one function holds."""
    one, two = first.start, second.start
    if one is None or two is None or one.function is not two.function:
        return False
    return one.loop is not None and one.loop == two.loop


def parents_arms(fork: Call) -> set[tuple[int, int]]:
    """The branches in which the parent goes on: those where the fork did not give 0."""
    bound = {n for n, values in fork.function.bindings.items() if fork.node in values}
    found: set[tuple[int, int]] = set()
    for number, test in fork.function.branches:
        read = [each for each in syntax.walk(test) if each is fork.node or _named(each) in bound]
        if read:
            equal = isinstance(test, syntax.Compare) and test.ops[0] == "Eq"
            found.add((number, 1 if equal or isinstance(test, syntax.UnaryOp) else 0))
    return found


def _named(node: syntax.Node) -> str | None:
    return node.id if isinstance(node, syntax.Name) else None


def _is_in_child(program: Program, run: Run) -> bool:
    """Whether a run stands where only a forked child comes."""
    call = run.call
    arms = {(number, arm) for number, arm, _ in call.arms}
    for other in call.function.calls if arms else ():
        forks = last_name(other.node.func) == "fork" and other.line <= call.line
        if forks and program.symbols.outside(other.node.func, call.function) == "os.fork":
            return any((number, 1 - arm) in arms for number, arm in parents_arms(other))
    return False


def exclude(before: tuple[Arm, ...], after: tuple[Arm, ...]) -> bool:
    """Whether two calls never follow each other: other arms, or the first one's leaves."""
    others = {number: arm for number, arm, _ in after}
    return any(
        others[number] != arm if number in others else leaves for number, arm, leaves in before
    )


def serves_elsewhere(call: Call) -> bool:
    """Whether a server serves from child processes."""
    for keyword in call.node.keywords:
        value = keyword.value
        if keyword.arg == "reload" and isinstance(value, syntax.Constant) and value.value is True:
            return True
        if keyword.arg == "workers" and not (
            isinstance(value, syntax.Constant) and value.value == 1
        ):
            return True
    return False
