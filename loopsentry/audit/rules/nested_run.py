"""an event loop is started inside a running one

`asyncio.run` and `run_until_complete` refuse to run where a loop runs already, in the same thread:
*asyncio.run() cannot be called from a running event loop*. The coroutine that was made for it is
never awaited.

Await the coroutine instead. Synchronous code that is called from both worlds has to be told apart
from its asynchronous twin, or run in a thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Function
from loopsentry.audit.findings import Certainty, Finding
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.starts import Start
from loopsentry.audit.syntax import dotted

CODE = "LSA102"
NAME = "nested-run"

BROKEN = """\
import asyncio


async def load() -> int:
    return 1


async def show() -> int:
    return asyncio.run(load())
"""
CURED = """\
import asyncio


async def load() -> int:
    return 1


async def show() -> int:
    return await load()
"""

#: Who asks whether a loop runs knows what it does; nest_asyncio allows it.
_ELSEWHERE = ("thread", "process")
_DEEP = 4
#: On a longer way something is more often asked, or never passed.
_NEAR = 3
_GUARDS = frozenset({"get_running_loop", "_get_running_loop", "is_running"})


def find(program: Program) -> Iterator[Finding]:
    """Find starts in coroutines, and in functions that coroutines call."""
    if any("nest_asyncio" in module.body.imports for module in program.project.modules):
        return
    for start in program.starts:
        function = start.call.function
        # One inside a decorator runs where the decorated function is called.
        if is_test(start.function) or function is not start.function:
            continue
        if start.call.deferred or start.elsewhere:
            continue
        if any(_is_guarded(each) for each in (function, *start.through)):
            continue
        found = _above(program, start)
        if found is not None:
            certainty, chain = found
            yield _finding(program, start, certainty, chain)


def _above(program: Program, start: Start) -> tuple[Certainty, list[Step]] | None:
    """How sure it is that a loop runs there, and through whom."""
    function = start.function
    here = (function, start.line)
    if function.asynchronous:
        return "proven", [here]
    if program.kind(function) == "thread":
        return None
    return _coroutine_above(program, [here])


def _coroutine_above(program: Program, here: list[Step]) -> tuple[Certainty, list[Step]] | None:
    """The nearest coroutine that comes to call a function, through calls alone."""
    waiting, seen = deque([here]), {here[0][0]}
    while waiting:
        way = waiting.popleft()
        for caller, call in program.reach.calls_of(way[0][0]):
            if caller in seen or call.deferred or is_test(caller) or _is_guarded(caller):
                continue
            seen.add(caller)
            longer = [(caller, call.line), *way]
            if caller.asynchronous and caller not in program.decorated:
                return ("likely" if len(longer) <= _NEAR else "latent"), longer
            inside = not caller.asynchronous and caller.parent is not None
            if inside and len(longer) <= _DEEP and program.kind(caller) not in _ELSEWHERE:
                waiting.append(longer)
    return None


def _is_guarded(function: Function) -> bool:
    names = {(dotted(call.node.func) or "").rpartition(".")[2] for call in function.calls}
    # A coroutine that asks for its running loop is not asking whether there is one.
    return bool(names & ({"is_running"} if function.asynchronous else _GUARDS))


def _finding(program: Program, start: Start, certainty: Certainty, chain: list[Step]) -> Finding:
    outer = chain[0][0].name
    return Finding(
        code=CODE,
        kind=NAME,
        certainty=certainty,
        file=program.project.relative(start.function.module.path),
        line=start.line,
        message=f"a loop is started where the one that runs {outer}() still runs",
        chain=tuple(program.links(chain)),
        reason=f"{outer}() is a coroutine",
        fixes=("await-instead",),
    )
