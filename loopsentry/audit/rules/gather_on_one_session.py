"""tasks that run at the same time share one session

A session, and a connection, does one thing at a time. What `asyncio.gather` or a task group runs at
once on one session meets in the middle of it: *another operation is in progress*, *this session is
provisioning a new connection*.

Give each task a session of its own, opened inside the task, or await one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Call, Class, Function
from loopsentry.audit.findings import Finding
from loopsentry.audit.program import Program
from loopsentry.audit.symbols import Instance, Outside, Resource
from loopsentry.audit.syntax import dotted

CODE = "LSA106"
NAME = "gather-on-one-session"

BROKEN = """\
import asyncio

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


async def load(session: AsyncSession, table: str) -> None:
    await session.execute(table)


async def show(session: AsyncSession) -> None:
    await asyncio.gather(load(session, "users"), load(session, "orders"))
"""
CURED = """\
import asyncio

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


async def load(session: AsyncSession, table: str) -> None:
    await session.execute(table)


async def show(session: AsyncSession) -> None:
    await load(session, "users")
    await load(session, "orders")
"""

#: One member of what runs at once, and whether there are several of its kind.
Member = tuple[syntax.Node, bool]

_SESSIONS = (
    "sqlalchemy.ext.asyncio.AsyncSession",
    "sqlalchemy.ext.asyncio.AsyncConnection",
    "sqlalchemy.ext.asyncio.session.AsyncSession",
    "sqlmodel.ext.asyncio.session.AsyncSession",
)
_CONNECTS = ("asyncpg.connect", "asyncpg.connection.connect")
_DEEP = 3
_GROUPS = ("asyncio.TaskGroup()", "anyio.create_task_group()")
_TASKS = ("asyncio.create_task", "asyncio.ensure_future")
_STARTERS = ("create_task", "start_soon")


def find(program: Program) -> Iterator[Finding]:
    """Find gathers and task groups of which two members use one session."""
    names = ("gather", *_STARTERS, *(name.rpartition(".")[2] for name in _TASKS))
    candidates = (each for name in names for each in program.project.callers_of(name))
    for function in dict.fromkeys(candidates):
        if not function.asynchronous or is_test(function):
            continue
        sessions = _sessions_of(program, function)
        if sessions:
            for line, members in _at_once(program, function):
                yield from _shared(program, function, sessions, line, members)


def _sessions_of(program: Program, function: Function) -> set[str]:
    """The names that hold a session or a connection in a function, its object's too."""
    names = {*function.entered, *function.bindings, *function.parameters}
    found = {name for name in names if _holds_session(program, name, function, _DEEP)}
    if function.owner is not None and function.parameters:
        me = function.parameters[0]
        kept = _kept_sessions(program, function.owner)
        found |= {f"{me}.{name}" for name in kept}
    for name, values in function.bindings.items():
        kinds = (program.symbols.kind_of(value, function) for value in values)
        kind = next((each for each in kinds if each is not None), None)
        if kind is not None:
            found |= {f"{name}.{each}" for each in _kept_sessions(program, kind)}
    return found


def _kept_sessions(program: Program, kind: Class) -> set[str]:
    """The attributes in which the objects of a class keep a session that they were given."""
    return {
        name
        for each in program.symbols.lineage(kind)
        for name, values in each.attributes.items()
        for method, value in values
        if isinstance(value, syntax.Name) and _holds_session(program, value.id, method, _DEEP)
    }


def _holds_session(program: Program, name: str, function: Function, deep: int) -> bool:
    """Whether a name of a function holds a session or a connection."""
    if name in function.entered:
        return _opens(program, function.entered[name], function)
    if name in function.parameters:
        annotation = function.annotations.get(name)
        if annotation is not None:
            return _is_session(program, function, annotation)
        given = [] if not deep else [*program.symbols.flows.arguments(name, function)]
        named = [(a.id, scope) for a, scope in given if isinstance(a, syntax.Name)]
        return bool(named) and all(
            _holds_session(program, each, scope, deep - 1) for each, scope in named
        )
    values = function.bindings.get(name, ())
    return bool(values) and all(_opens(program, value, function) for value in values)


def _opens(program: Program, node: syntax.Node, function: Function) -> bool:
    """Whether an expression opens a session or a connection."""
    node = node.value if isinstance(node, syntax.Await) else node
    if not isinstance(node, syntax.Call):
        return False
    made = program.symbols.entered(node, function)
    method = node.func.attr if isinstance(node.func, syntax.Attribute) else ""
    callee = program.symbols.resolve(node.func, function)
    if isinstance(callee, Outside) and callee.name in _CONNECTS:
        return True
    if not isinstance(made, Resource):
        return False
    if made.kind == "pool":
        return method == "acquire" and made.made_by.startswith("asyncpg.")
    if made.kind == "engine":
        return method in ("connect", "begin")
    return made.kind == "sessionmaker" and not _makes_factory(program, node, function)


def _makes_factory(program: Program, node: syntax.Call, function: Function) -> bool:
    """Whether a call makes a factory of sessions, and not a session."""
    return program.symbols.outside(node.func, function).endswith("sessionmaker")


def _is_session(program: Program, function: Function, annotation: syntax.Node) -> bool:
    plain, scope = program.symbols.annotated(annotation, function)
    return program.symbols.outside(plain, scope) in _SESSIONS


def _at_once(program: Program, function: Function) -> Iterator[tuple[int, list[Member]]]:
    """What a function runs at once: each gather's members, and each task group's."""
    yield from _tasks_in_a_row(program, function)
    yield from _beside_a_task(program, function)
    groups: dict[str, tuple[int, list[Member]]] = {}
    for call in function.calls:
        callee = program.symbols.resolve(call.node.func, function)
        if isinstance(callee, Outside) and callee.name == "asyncio.gather":
            members = (m for argument in call.node.args for m in _members(function, argument))
            yield call.line, list(members)
        elif isinstance(call.node.func, syntax.Attribute) and call.node.func.attr in _STARTERS:
            name = dotted(call.node.func.value) or ""
            group = program.symbols.resolve(call.node.func.value, function)
            if isinstance(group, Outside) and group.name in _GROUPS and call.node.args:
                member = _started(program, call)
                line, found = groups.get(name, (call.line, []))
                groups[name] = (line, [*found, (member, call.repeated)])
    yield from groups.values()


def _tasks_in_a_row(program: Program, function: Function) -> Iterator[tuple[int, list[Member]]]:
    """Tasks that a function starts one after the other, and awaits later."""
    row: list[Call] = []
    for call in function.calls:
        name = program.symbols.outside(call.node.func, function)
        if name not in _TASKS or not call.node.args or not _is_bound(function, call):
            continue
        last = row[-1] if row else call
        if last.arms != call.arms or any(last.line < line < call.line for line in function.awaits):
            row = []
        row.append(call)
        if len(row) > 1:
            yield row[0].line, [(each.node.args[0], False) for each in row]


def _beside_a_task(program: Program, function: Function) -> Iterator[tuple[int, list[Member]]]:
    """A task that a function starts, and what it awaits itself before it awaits the task."""
    for index, call in enumerate(function.calls):
        name = program.symbols.outside(call.node.func, function)
        if name not in _TASKS or not call.node.args:
            continue
        names = [n for n, values in function.bindings.items() if call.node in values]
        for later in function.calls[index + 1 :]:
            waits = any(dotted(argument) in names for argument in later.node.args)
            over = any(call.line < line <= later.line for line in function.awaits)
            if waits or over or later.arms[: len(call.arms)] != call.arms:
                break
            if later.awaited and later.line > call.line:
                yield call.line, [(call.node.args[0], False), (later.node, False)]


def _is_bound(function: Function, call: Call) -> bool:
    return any(call.node in values for values in function.bindings.values())


def _started(program: Program, call: Call) -> syntax.Node:
    """What is started: a coroutine, or a function with its arguments, as anyio has it."""
    first, *rest = call.node.args
    if rest and not isinstance(first, syntax.Call):
        return program.symbols.make_call(first, rest, first)
    return first


def _members(function: Function, node: syntax.Node) -> Iterator[Member]:
    if not isinstance(node, syntax.Starred):
        yield node, False
        return
    listed = node.value
    if isinstance(listed, syntax.Name):
        for value in function.bindings.get(listed.id, ()):
            yield from _listed(value)
        for call in function.calls:
            appends = (
                isinstance(call.node.func, syntax.Attribute) and call.node.func.attr == "append"
            )
            if appends and dotted(call.node.func) == f"{listed.id}.append":
                yield from ((argument, call.repeated) for argument in call.node.args)
    else:
        yield from _listed(listed)


def _listed(node: syntax.Node) -> Iterator[Member]:
    if isinstance(node, (syntax.ListComp, syntax.GeneratorExp, syntax.SetComp)):
        yield node.elt, True
    elif isinstance(node, (syntax.List, syntax.Tuple, syntax.Set)):
        yield from ((element, False) for element in node.elts)


def _shared(
    program: Program, function: Function, sessions: set[str], line: int, members: list[Member]
) -> Iterator[Finding]:
    """The finding of a session that two members use."""
    for name in sorted(sessions):
        using = [(m, many) for m, many in members if _uses(program, function, m, name)]
        if len(using) + sum(many for _, many in using) > 1:
            yield Finding(
                code=CODE,
                kind=NAME,
                certainty="proven",
                file=program.project.relative(function.module.path),
                line=line,
                message=f"tasks that run at the same time in {function.name}() share `{name}`",
                chain=(program.link((function, line), f"runs them at once on `{name}`"),),
                reason="each of them awaits something on the session",
                fixes=("session-per-task",),
            )


def _uses(program: Program, function: Function, member: syntax.Node, name: str) -> bool:
    """Whether a member awaits something on a session: its own method, or a function given it."""
    if not isinstance(member, syntax.Call):
        return False
    path = dotted(member.func) or ""
    if path.startswith(f"{name}."):
        return True
    callee = program.symbols.resolve(member.func, function)
    if isinstance(callee, Instance) or not isinstance(callee, Function):
        return any(_uses(program, function, each, name) for each in member.args)
    own = _names_inside(function, member, callee, name)
    holder, _, attribute = name.rpartition(".")
    if holder and path == f"{holder}.{callee.name}" and callee.parameters:
        own.add(f"{callee.parameters[0]}.{attribute}")
    if _takes_turns(program, callee):
        return False
    return any(_awaits_on(each, own) for each in callee.calls)


def _names_inside(function: Function, member: syntax.Call, callee: Function, name: str) -> set[str]:
    """By which names the function of a member knows a session."""
    parameters = callee.parameters[1:] if callee.owner is not None else callee.parameters
    given = dict(zip(parameters, member.args, strict=False))
    given.update({k.arg: k.value for k in member.keywords if k.arg})
    own = {arg for arg, value in given.items() if dotted(value) == name}
    if callee.parent is function and name.partition(".")[0] not in callee.bindings:
        own.add(name)  # a function inside this one, which sees the session
    return own


def _takes_turns(program: Program, callee: Function) -> bool:
    """Whether a lock lets one at a time through."""
    entered = (program.symbols.resolve(each, callee) for each in callee.contexts)
    return any(isinstance(each, Resource) and each.made_by == "asyncio.Lock" for each in entered)


def _awaits_on(call: Call, names: set[str]) -> bool:
    path = dotted(call.node.func) or ""
    passed = any(dotted(argument) in names for argument in call.node.args)
    return call.awaited and (passed or any(path.startswith(f"{name}.") for name in names))
