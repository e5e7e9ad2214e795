"""tasks that run at the same time share one session

A session, and a connection, does one thing at a time. What `asyncio.gather` or a task group runs at
once on one session meets in the middle of it: *another operation is in progress*, *this session is
provisioning a new connection*.

Give each task a session of its own, opened inside the task, or await one after the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Call, Function, dotted
from loopsentry.audit.findings import Finding
from loopsentry.audit.program import Program
from loopsentry.audit.symbols import Instance, Outside, Resource

CODE = "LSA106"
NAME = "gather-on-one-session"

#: One member of what runs at once, and whether there are several of its kind.
Member = tuple[ast.expr, bool]

_SESSIONS = (
    "sqlalchemy.ext.asyncio.AsyncSession",
    "sqlalchemy.ext.asyncio.AsyncConnection",
    "sqlalchemy.ext.asyncio.session.AsyncSession",
    "sqlmodel.ext.asyncio.session.AsyncSession",
)
_GROUPS = ("asyncio.TaskGroup()", "anyio.create_task_group()")
_STARTERS = ("create_task", "start_soon")


def find(program: Program) -> Iterator[Finding]:
    """Find gathers and task groups of which two members use one session."""
    for function in program.functions:
        if not function.asynchronous or is_test(function):
            continue
        sessions = _sessions_of(program, function)
        if sessions:
            for line, members in _at_once(program, function):
                yield from _shared(program, function, sessions, line, members)


def _sessions_of(program: Program, function: Function) -> set[str]:
    """The names that hold a session in a function."""
    found: set[str] = set()
    for name, node in function.entered.items():
        made = program.symbols.entered(node, function)
        if isinstance(made, Resource) and made.kind in ("engine", "sessionmaker"):
            found.add(name)
    for parameter in function.parameters:
        if parameter.annotation is not None and _is_session(
            program, function, parameter.annotation
        ):
            found.add(parameter.arg)
    return found


def _is_session(program: Program, function: Function, annotation: ast.expr) -> bool:
    plain = annotation
    if isinstance(plain, ast.Subscript) and (dotted(plain.value) or "").endswith("Annotated"):
        plain = plain.slice.elts[0] if isinstance(plain.slice, ast.Tuple) else plain.slice
    found = program.symbols.resolve(plain, function.module.body)
    return isinstance(found, Outside) and found.name in _SESSIONS


def _at_once(program: Program, function: Function) -> Iterator[tuple[int, list[Member]]]:
    """What a function runs at once: each gather's members, and each task group's."""
    groups: dict[str, tuple[int, list[Member]]] = {}
    for call in function.calls:
        callee = program.symbols.resolve(call.node.func, function)
        if isinstance(callee, Outside) and callee.name == "asyncio.gather":
            members = (m for argument in call.node.args for m in _members(function, argument))
            yield call.line, list(members)
        elif isinstance(call.node.func, ast.Attribute) and call.node.func.attr in _STARTERS:
            name = dotted(call.node.func.value) or ""
            group = program.symbols.resolve(call.node.func.value, function)
            if isinstance(group, Outside) and group.name in _GROUPS and call.node.args:
                member = _started(program, call)
                line, found = groups.get(name, (call.line, []))
                groups[name] = (line, [*found, (member, call.repeated)])
    yield from groups.values()


def _started(program: Program, call: Call) -> ast.expr:
    """What is started: a coroutine, or a function with its arguments, as anyio has it."""
    first, *rest = call.node.args
    if rest and not isinstance(first, ast.Call):
        return program.symbols.make_call(first, rest, first)
    return first


def _members(function: Function, node: ast.expr) -> Iterator[Member]:
    if not isinstance(node, ast.Starred):
        yield node, False
        return
    listed = node.value
    if isinstance(listed, ast.Name):
        for value in function.bindings.get(listed.id, ()):
            yield from _listed(value)
        for call in function.calls:
            appends = isinstance(call.node.func, ast.Attribute) and call.node.func.attr == "append"
            if appends and dotted(call.node.func) == f"{listed.id}.append":
                yield from ((argument, call.repeated) for argument in call.node.args)
    else:
        yield from _listed(listed)


def _listed(node: ast.expr) -> Iterator[Member]:
    if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):
        yield node.elt, True
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
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


def _uses(program: Program, function: Function, member: ast.expr, name: str) -> bool:
    """Whether a member awaits something on a session: its own method, or a function given it."""
    if not isinstance(member, ast.Call):
        return False
    if (dotted(member.func) or "").partition(".")[0] == name:
        return True
    callee = program.symbols.resolve(member.func, function)
    if isinstance(callee, Instance) or not isinstance(callee, Function):
        return any(_uses(program, function, each, name) for each in member.args)
    parameters = callee.parameters[1:] if callee.owner is not None else callee.parameters
    given = dict(zip((p.arg for p in parameters), member.args, strict=False))
    given.update({k.arg: k.value for k in member.keywords if k.arg})
    own = {arg for arg, value in given.items() if dotted(value) == name}
    if callee.parent is function and name not in callee.bindings:
        own.add(name)  # a function inside this one, which sees the session
    return any(_awaits_on(each, own) for each in callee.calls)


def _awaits_on(call: Call, names: set[str]) -> bool:
    first = (dotted(call.node.func) or "").partition(".")[0]
    passed = any(dotted(argument) in names for argument in call.node.args)
    return call.awaited and (first in names or passed)
