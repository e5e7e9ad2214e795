"""Whether an engine keeps connections that a loop can leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import syntax
from .facts import Function
from .flows import argument_of
from .names import LOOPS, OWN_POOLS, TOLERANT
from .syntax import dotted

_DEEP = 4
_COMPARES = frozenset({"Is", "IsNot", "Eq", "NotEq"})

if TYPE_CHECKING:
    from .symbols import Resource, Symbols


def is_tolerant(symbols: Symbols, node: syntax.Call, scope: Function) -> bool:
    """Whether the URL, where it is written out, names a driver that is bound to no loop."""
    texts = [text for each in node.args[:1] for text in _texts(symbols, each, scope, _DEEP)]
    bound = any("+asyncpg" in text for text in texts)
    return not bound and any(driver in text for text in texts for driver in TOLERANT)


def _texts(symbols: Symbols, node: syntax.Node, scope: Function, deep: int) -> Iterator[str]:
    """The texts that an expression is made of, also where a variable, or settings, hold them."""
    for each in syntax.walk(node):
        if isinstance(each, syntax.Constant) and isinstance(each.value, str):
            yield each.value
        elif isinstance(each, (syntax.Name, syntax.Attribute)) and deep:
            for value, home in _values(symbols, each, scope):
                yield from _texts(symbols, value, home, deep - 1)


def _values(
    symbols: Symbols, node: syntax.Name | syntax.Attribute, scope: Function
) -> Iterator[tuple[syntax.Node, Function]]:
    """What is assigned to a variable, or as a class's default to an attribute."""
    if isinstance(node, syntax.Attribute):
        holder = symbols.resolve(node.value, scope)
        kind = symbols.class_of(holder)
        for each in symbols.lineage(kind) if kind is not None else ():
            yield from ((value, each.body) for value in each.bindings.get(node.attr, ()))
        return
    around: Function | None = scope
    while around is not None:
        if node.id in around.bindings:
            yield from ((value, around) for value in around.bindings[node.id])
            return
        if node.id in around.imports:
            found = symbols.module_of(around.imports[node.id], around.module)
            if found is not None:
                body = found[0].body
                yield from ((value, body) for value in body.bindings.get(found[1], ()))
            return
        around = around.parent


def is_pooled(symbols: Symbols, node: syntax.Call, scope: Function) -> bool | None:
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


def is_pooled_by(
    symbols: Symbols, made: Resource, call: syntax.Call, scope: Function
) -> bool | None:
    """The same where an argument of the function that makes it decides."""
    function = made.maker
    if function is None or "poolclass" not in function.parameters:
        return made.pooled
    given = argument_of(call, "poolclass", function)
    return True if given is None else _pool_of(symbols, given, scope)


def _is_made_for_a_loop(symbols: Symbols, scope: Function) -> bool:
    """Whether a function makes an object anew where another loop runs than before."""
    if scope.parent is None:
        return False
    for node in scope.compares:
        if node.ops[0] in _COMPARES:
            sides = (node.left, *node.comparators)
            constant = any(isinstance(each, syntax.Constant) for each in sides)
            if not constant and any(_is_loop(symbols, each, scope) for each in sides):
                return True
    return False


def _is_loop(symbols: Symbols, node: syntax.Node, scope: Function) -> bool:
    """Whether an expression is the running loop, or its identity."""
    values = scope.bindings.get(node.id, ()) if isinstance(node, syntax.Name) else (node,)
    for value in values:
        if isinstance(value, syntax.Call) and dotted(value.func) == "id" and value.args:
            return _is_loop(symbols, value.args[0], scope)
        if isinstance(value, syntax.Call) and symbols.outside(value, scope) in LOOPS:
            return True
    return False


def _is_in_process(symbols: Symbols, node: syntax.Node, scope: Function) -> bool:
    """Whether an HTTP client's transport calls an application, and opens no connection."""
    return symbols.outside(node, scope).endswith("ASGITransport()")


def _pool_of(symbols: Symbols, node: syntax.Node, scope: Function) -> bool | None:
    if isinstance(node, syntax.IfExp):
        return None
    name = dotted(node)
    if name in scope.parameters:
        return None  # each call of the function decides
    return symbols.outside(node, scope) not in OWN_POOLS


def _pool_in(symbols: Symbols, node: syntax.Node, scope: Function) -> bool | None:
    """What a dictionary of options says, where it is written out in the same function."""
    name = dotted(node) or ""
    for home in (scope, scope.module.body):
        for each in home.bindings.get(name, ()):
            for key, value in _options(each):
                if key == "poolclass":
                    return _pool_of(symbols, value, home)
        for option, value, decided in home.elements.get(name, ()):
            if isinstance(option, syntax.Constant) and option.value == "poolclass":
                return None if decided else _pool_of(symbols, value, home)
    return None if "NullPool" in scope.module.words else True


def _options(node: syntax.Node) -> list[tuple[object, syntax.Node]]:
    """The options that a dictionary, or a call of `dict`, spells out."""
    if isinstance(node, syntax.Call):
        return [(keyword.arg, keyword.value) for keyword in node.keywords]
    if isinstance(node, syntax.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [(key.value, value) for key, value in pairs if isinstance(key, syntax.Constant)]
    return []
