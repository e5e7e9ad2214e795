"""a coroutine blocks the loop that it waits for

`asyncio.run_coroutine_threadsafe(…).result()` waits in the thread. Called in a coroutine it stops
its own event loop; where the work was submitted to that very loop, it waits for ever.

Await the coroutine, or `asyncio.wrap_future(…)` of what another thread's loop does.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Call, Function
from loopsentry.audit.findings import Finding
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.syntax import dotted

CODE = "LSA110"
NAME = "blocking-result-in-loop"

BROKEN = """\
import asyncio


async def load() -> int:
    return 1


async def show() -> int:
    loop = asyncio.get_running_loop()
    return asyncio.run_coroutine_threadsafe(load(), loop).result()
"""
CURED = """\
import asyncio


async def load() -> int:
    return 1


async def show() -> int:
    return await load()
"""

_SUBMIT = "asyncio.run_coroutine_threadsafe"
_OWN = ("asyncio.get_running_loop()", "asyncio.get_event_loop()")


def find(program: Program) -> Iterator[Finding]:
    """Find coroutines that wait for a submitted coroutine's result."""
    for call in program.project.calls_of("result"):
        function = call.function
        submitted = None if is_test(function) else _submitted(program, function, call)
        if submitted is None:
            continue
        if function.asynchronous:
            yield _finding(program, function, call, submitted)
        elif (caller := _coroutine_above(program, function)) is not None:
            yield _below(program, caller, (function, call.line))


def _coroutine_above(program: Program, function: Function) -> Step | None:
    """A coroutine that calls a function itself, not in a thread."""
    for caller, call in program.reach.calls_of(function):
        if caller.asynchronous and not is_test(caller):
            return caller, call.line
    return None


def _below(program: Program, caller: Step, here: Step) -> Finding:
    function, line = here
    return Finding(
        code=CODE,
        kind=NAME,
        certainty="likely",
        file=program.project.relative(function.module.path),
        line=line,
        message=f"{function.name}() waits in the thread of the loop that runs {caller[0].name}()",
        chain=(program.link(caller), program.link(here, "waits in the loop's thread")),
        reason=f"{caller[0].name}() is a coroutine, and calls it",
        fixes=("await-instead", "submit-to-owner"),
    )


def _submitted(program: Program, function: Function, call: Call) -> syntax.Call | None:
    """The submission whose result a call waits for."""
    node = call.node.func
    if not isinstance(node, syntax.Attribute) or node.attr != "result":
        return None
    values = [node.value, *function.bindings.get(dotted(node.value) or "", ())]
    outside = program.symbols.outside
    for value in values:
        if isinstance(value, syntax.Call) and outside(value.func, function) == _SUBMIT:
            return value
    return None


def _finding(program: Program, function: Function, call: Call, submitted: syntax.Call) -> Finding:
    given = [*submitted.args[1:2], *(k.value for k in submitted.keywords if k.arg == "loop")]
    own = bool(given) and program.symbols.outside(given[0], function) in _OWN
    bounded = bool(call.node.args or call.node.keywords)
    ends = "until the time-out" if bounded else "for ever"
    words = f"waits {ends} for its own loop" if own else "stops its loop while it waits for another"
    return Finding(
        code=CODE,
        kind=NAME,
        certainty="proven" if own else "likely",
        file=program.project.relative(function.module.path),
        line=call.line,
        message=f"{function.name}() {words}",
        chain=(program.link((function, call.line), "waits in the loop's thread"),),
        reason="the coroutine was submitted to the running loop" if own else "it is a coroutine",
        fixes=("await-instead", "submit-to-owner"),
    )
