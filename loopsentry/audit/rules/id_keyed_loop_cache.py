"""objects are kept by the identity of a loop

`id(loop)` is used again: twenty runs of `asyncio.run` gave one or two different ones. A cache keyed
by it hands the engine of a closed loop to the next loop, which looks the same.

Keep the object in a `weakref.WeakKeyDictionary` by the loop itself, or use `LoopLocalPool`, which
does.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.entries import is_test
from loopsentry.audit.facts import Call, Function
from loopsentry.audit.findings import Finding
from loopsentry.audit.names import LOOPS
from loopsentry.audit.program import Program
from loopsentry.audit.symbols import Outside
from loopsentry.audit.syntax import dotted

CODE = "LSA107"
NAME = "id-keyed-loop-cache"

BROKEN = """\
import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

engines: dict[int, AsyncEngine] = {}


def engine_here() -> AsyncEngine:
    key = id(asyncio.get_running_loop())
    if key not in engines:
        engines[key] = create_async_engine("postgresql+asyncpg://db/shop")
    return engines[key]
"""
CURED = """\
import asyncio
import weakref

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = (
    weakref.WeakKeyDictionary()
)


def engine_here() -> AsyncEngine:
    key = asyncio.get_running_loop()
    if key not in engines:
        engines[key] = create_async_engine("postgresql+asyncpg://db/shop")
    return engines[key]
"""

_LOOKUPS = frozenset({"get", "setdefault", "pop"})


def find(program: Program) -> Iterator[Finding]:
    """Find identities of loops that are used as keys."""
    for function in program.project.callers_of("id"):
        if is_test(function):
            continue
        made = [call for call in function.calls if _is_identity(program, function, call)]
        if not made:
            continue
        identities = {id(call.node) for call in made}
        names = {
            name
            for name, values in function.bindings.items()
            if any(_holds(value, identities, set()) for value in values)
        }
        if _is_key(function, identities, names):
            yield _finding(program, function, made[0])


def _is_identity(program: Program, function: Function, call: Call) -> bool:
    if dotted(call.node.func) != "id" or len(call.node.args) != 1:
        return False
    found = program.symbols.value(call.node.args[0], function)
    return isinstance(found, Outside) and found.name in LOOPS


def _holds(node: syntax.Node, identities: set[int], names: set[str]) -> bool:
    """Whether an expression is an identity, or a tuple or text with one in it."""
    return any(
        id(each) in identities or (isinstance(each, syntax.Name) and each.id in names)
        for each in syntax.walk(node)
    )


def _is_key(function: Function, identities: set[int], names: set[str]) -> bool:
    """Whether an identity is looked up, or stored by; in a log line it does no harm."""
    return any(_holds(key, identities, names) for key in _keys(function))


def _keys(function: Function) -> Iterator[syntax.Node]:
    """What is looked up in a function, or compared with what outlives it."""
    yield from (each.slice for each in function.subscripts)
    for call in function.calls:
        node = call.node
        if isinstance(node.func, syntax.Attribute) and node.func.attr in _LOOKUPS and node.args:
            yield node.args[0]
    for compare in function.compares:
        left, right = compare.left, compare.comparators[0]
        if compare.ops[0] in ("In", "NotIn"):
            yield left
        elif compare.ops[0] in ("Eq", "NotEq"):
            yield from [left] if _is_kept(function, right) else []
            yield from [right] if _is_kept(function, left) else []


def _is_kept(function: Function, node: syntax.Node) -> bool:
    """Whether an expression is an attribute, or a variable of the module: it outlives the call."""
    return isinstance(node, syntax.Attribute) or (
        isinstance(node, syntax.Name) and node.id in function.shared
    )


def _finding(program: Program, function: Function, call: Call) -> Finding:
    return Finding(
        code=CODE,
        kind=NAME,
        certainty="proven",
        file=program.project.relative(function.module.path),
        line=call.line,
        message=f"{function.name}() keeps objects by `id()` of a loop, which is used again",
        chain=(program.link((function, call.line), "takes the identity of a loop"),),
        reason="an identity is unique among living objects only",
        fixes=("loop-local-pool",),
    )
