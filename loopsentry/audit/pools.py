"""Whether an engine keeps connections that a loop can leave behind."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from .facts import Function, dotted
from .flows import argument_of
from .names import LOOPS, OWN_POOLS, TOLERANT

if TYPE_CHECKING:
    from .symbols import Resource, Symbols


def is_tolerant(node: ast.Call, scope: Function) -> bool:
    """Whether the URL, where it is written out, names a driver that is bound to no loop."""
    given = node.args[:1]
    name = dotted(given[0]) if given else None
    homes = (scope.bindings, scope.module.body.bindings)
    values = [*given, *(v for home in homes for v in home.get(name or "", ()))]
    texts = (
        each.value
        for value in values
        for each in ast.walk(value)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    )
    return any(driver in text for text in texts for driver in TOLERANT)


def is_pooled(symbols: Symbols, node: ast.Call, scope: Function) -> bool | None:
    """Whether what a call makes keeps a pool between its uses; None if that depends."""
    if _is_made_for_a_loop(symbols, scope):
        return False
    for keyword in node.keywords:
        if keyword.arg == "transport" and _is_in_process(symbols, keyword.value, scope):
            return False
        if keyword.arg == "poolclass":
            return _pool_of(symbols, keyword.value, scope)
    for keyword in node.keywords:
        if keyword.arg is None:
            return _pool_in(symbols, keyword.value, scope)
    return True


def is_pooled_by(symbols: Symbols, made: Resource, call: ast.Call, scope: Function) -> bool | None:
    """The same where an argument of the function that makes it decides."""
    function = made.maker
    names = [parameter.arg for parameter in function.parameters] if function is not None else []
    if function is None or "poolclass" not in names:
        return made.pooled
    given = argument_of(call, "poolclass", function)
    return True if given is None else _pool_of(symbols, given, scope)


def _is_made_for_a_loop(symbols: Symbols, scope: Function) -> bool:
    """Whether a function makes an object anew where another loop runs than before."""
    if scope.parent is None:
        return False
    compared = {
        each.id
        for node in ast.walk(scope.node)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Is, ast.IsNot))
        for each in (node.left, *node.comparators)
        if isinstance(each, ast.Name)
    }
    values = (value for name in compared for value in scope.bindings.get(name, ()))
    return any(symbols.outside(value, scope) in LOOPS for value in values)


def _is_in_process(symbols: Symbols, node: ast.expr, scope: Function) -> bool:
    """Whether an HTTP client's transport calls an application, and opens no connection."""
    return symbols.outside(node, scope).endswith("ASGITransport()")


def _pool_of(symbols: Symbols, node: ast.expr, scope: Function) -> bool | None:
    if isinstance(node, ast.IfExp):
        return None
    name = dotted(node)
    if name in {parameter.arg for parameter in scope.parameters}:
        return None  # each call of the function decides
    return symbols.outside(node, scope) not in OWN_POOLS


def _pool_in(symbols: Symbols, node: ast.expr, scope: Function) -> bool | None:
    """What a dictionary of options says, where it is written out in the same function."""
    name = dotted(node) or ""
    for home in (scope, scope.module.body):
        for each in home.bindings.get(name, ()):
            for key, value in _options(each):
                if key == "poolclass":
                    return _pool_of(symbols, value, home)
        for option, value, decided in home.elements.get(name, ()):
            if isinstance(option, ast.Constant) and option.value == "poolclass":
                return None if decided else _pool_of(symbols, value, home)
    return None if any("NullPool" in line for line in scope.module.lines) else True


def _options(node: ast.expr) -> list[tuple[object, ast.expr]]:
    """The options that a dictionary, or a call of `dict`, spells out."""
    if isinstance(node, ast.Call):
        return [(keyword.arg, keyword.value) for keyword in node.keywords]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [(key.value, value) for key, value in pairs if isinstance(key, ast.Constant)]
    return []
