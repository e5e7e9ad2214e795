"""Expressions as the audit keeps them: like `ast`, but small, and written as plain tuples.

A function's expressions are one table of tuples, in which a tuple names its parts by their places
further up. Such a table is a pure value: it goes through a pipe and into a file as it is, and
becomes objects only for the functions that a search comes to.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

#: A row of a table: what it is, its line, and its parts.
Row = tuple[Any, ...]
_TEXT = 500


class Node:
    """An expression.

    Attributes:
        lineno: where it begins.
    """

    __slots__ = ("lineno",)
    _parts: tuple[str, ...] = ()

    def __init__(self, lineno: int, *parts: Any) -> None:
        self.lineno = lineno
        for name, part in zip(self._parts, parts, strict=True):
            setattr(self, name, part)

    @property
    def children(self) -> list[Node]:
        """The expressions that it consists of."""
        found: list[Node] = []
        for name in self._parts:
            part = getattr(self, name)
            if isinstance(part, Node):
                found.append(part)
            elif isinstance(part, list):
                found += [each for each in part if isinstance(each, Node)]
        return found


class Name(Node):
    """A name."""

    __slots__ = ("id",)
    _parts = ("id",)

    def __init__(self, lineno: int, id: str) -> None:  # noqa: A002 - as `ast` calls it
        self.lineno = lineno
        self.id = id


class Attribute(Node):
    """`value.attr`."""

    __slots__ = ("attr", "value")
    _parts = ("value", "attr")

    def __init__(self, lineno: int, value: Node, attr: str) -> None:
        self.lineno = lineno
        self.value = value
        self.attr = attr


class Keyword(Node):
    """`arg=value` in a call; without a name `**value`."""

    __slots__ = ("arg", "value")
    _parts = ("arg", "value")

    def __init__(self, lineno: int, arg: str | None, value: Node) -> None:
        self.lineno = lineno
        self.arg = arg
        self.value = value


class Call(Node):
    """`func(args, keywords)`."""

    __slots__ = ("args", "func", "keywords")
    _parts = ("func", "args", "keywords")

    def __init__(self, lineno: int, func: Node, args: list[Node], keywords: list[Keyword]) -> None:
        self.lineno = lineno
        self.func = func
        self.args = args
        self.keywords = keywords


class Constant(Node):
    """A text, a number or the like; of a long text the beginning."""

    __slots__ = ("value",)
    _parts = ("value",)

    def __init__(self, lineno: int, value: Any) -> None:
        self.lineno = lineno
        self.value = value


class Subscript(Node):
    """`value[slice]`."""

    __slots__ = ("slice", "value")
    _parts = ("value", "slice")
    value: Node
    slice: Node


class Wrapped(Node):
    """What stands around one expression."""

    __slots__ = ("value",)
    _parts = ("value",)
    value: Node


class Starred(Wrapped):
    """`*value`."""

    __slots__ = ()


class Await(Wrapped):
    """`await value`."""

    __slots__ = ()


class NamedExpr(Wrapped):
    """`(name := value)`."""

    __slots__ = ()


class IfExp(Node):
    """`body if test else orelse`."""

    __slots__ = ("body", "orelse", "test")
    _parts = ("test", "body", "orelse")
    test: Node
    body: Node
    orelse: Node


class BoolOp(Node):
    """`values[0] or values[1]`."""

    __slots__ = ("values",)
    _parts = ("values",)
    values: list[Node]


class BinOp(Node):
    """`left | right`, or another operator between the two."""

    __slots__ = ("left", "op", "right")
    _parts = ("left", "right", "op")
    left: Node
    right: Node
    op: str


class UnaryOp(Node):
    """`not operand`, or another operator before it."""

    __slots__ = ("op", "operand")
    _parts = ("operand", "op")
    operand: Node
    op: str


class Lambda(Node):
    """`lambda: body`."""

    __slots__ = ("body",)
    _parts = ("body",)
    body: Node


class Elements(Node):
    """What lists its elements."""

    __slots__ = ("elts",)
    _parts = ("elts",)
    elts: list[Node]


class Tuple(Elements):
    """`a, b`."""

    __slots__ = ()


class List(Elements):
    """`[a, b]`."""

    __slots__ = ()


class Set(Elements):
    """`{a, b}`."""

    __slots__ = ()


class Dict(Node):
    """`{key: value}`; a key is None for `**value`."""

    __slots__ = ("keys", "values")
    _parts = ("keys", "values")
    keys: list[Node | None]
    values: list[Node]


class Comprehension(Node):
    """What makes an element for each turn; `others` are its loops' expressions."""

    __slots__ = ("elt", "others")
    _parts = ("elt", "others")
    elt: Node
    others: list[Node]


class ListComp(Comprehension):
    """`[elt for …]`."""

    __slots__ = ()


class SetComp(Comprehension):
    """`{elt for …}`."""

    __slots__ = ()


class GeneratorExp(Comprehension):
    """`(elt for …)`."""

    __slots__ = ()


class DictComp(Node):
    """`{key: value for …}`."""

    __slots__ = ("key", "others", "value")
    _parts = ("key", "value", "others")
    key: Node
    value: Node
    others: list[Node]


class Compare(Node):
    """`left op comparators[0] …`; the operators by the names that `ast` has for them."""

    __slots__ = ("comparators", "left", "ops")
    _parts = ("left", "ops", "comparators")
    left: Node
    ops: list[str]
    comparators: list[Node]


class Other(Node):
    """Any other expression, as its parts."""

    __slots__ = ("parts",)
    _parts = ("parts",)
    parts: list[Node]


_KINDS: tuple[type[Node], ...] = (
    *(Name, Attribute, Call, Constant, Subscript, Starred, Await, NamedExpr, IfExp, BoolOp, BinOp),
    *(UnaryOp, Lambda, Tuple, List, Set, Dict, ListComp, SetComp, GeneratorExp, DictComp, Compare),
    Other,
)
_TAGS = {kind.__name__: tag for tag, kind in enumerate(_KINDS)}


def walk(node: Node) -> Iterator[Node]:
    """An expression and all expressions in it."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += each.children


# writing -------------------------------------------------------------------------------------


def write(node: ast.expr, add: Callable[[ast.expr], int]) -> Row:
    """The row of an expression, whose parts `add` writes before it."""
    if isinstance(node, ast.Call):
        return (
            2,
            node.lineno,
            add(node.func),
            [add(each) for each in node.args],
            [(each.arg, add(each.value)) for each in node.keywords],
        )
    if isinstance(node, ast.Constant):
        return (3, node.lineno, _constant(node.value))
    return _write_rare(node, add)


def _write_rare(  # noqa: C901, PLR0912 - one arm for each kind
    node: ast.expr, add: Callable[[ast.expr], int]
) -> Row:
    tag, line = _TAGS.get(type(node).__name__, _TAGS["Other"]), node.lineno
    parts: tuple[Any, ...]
    match node:
        case ast.Name():
            return (0, line, node.id)
        case ast.Attribute():
            return (1, line, add(node.value), node.attr)
        case ast.Subscript():
            parts = (add(node.value), add(node.slice))
        case ast.Starred() | ast.Await() | ast.NamedExpr():
            parts = (add(node.value),)
        case ast.IfExp():
            parts = (add(node.test), add(node.body), add(node.orelse))
        case ast.BoolOp():
            parts = ([add(each) for each in node.values],)
        case ast.BinOp():
            parts = (add(node.left), add(node.right), type(node.op).__name__)
        case ast.UnaryOp():
            parts = (add(node.operand), type(node.op).__name__)
        case ast.Lambda():
            parts = (add(node.body),)
        case ast.Tuple() | ast.List() | ast.Set():
            parts = ([add(each) for each in node.elts],)
        case ast.Dict():
            keys = [-1 if each is None else add(each) for each in node.keys]
            parts = (keys, [add(each) for each in node.values])
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            parts = (add(node.elt), [add(each) for each in _turns(node.generators)])
        case ast.DictComp():
            others = [add(each) for each in _turns(node.generators)]
            parts = (add(node.key), add(node.value), others)
        case ast.Compare():
            names = [type(each).__name__ for each in node.ops]
            parts = (add(node.left), names, [add(each) for each in node.comparators])
        case _:
            parts = ([add(each) for each in _inside(node)],)
    return (tag, line, *parts)


def _constant(value: Any) -> Any:
    """A constant that a file can hold; of texts the beginning."""
    if isinstance(value, str):
        return value[:_TEXT]
    return value if isinstance(value, (bool, int, float, type(None))) else None


def _turns(generators: list[ast.comprehension]) -> Iterator[ast.expr]:
    for each in generators:
        yield each.iter
        yield from each.ifs


def _inside(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        else:
            yield from _inside(child)


# reading -------------------------------------------------------------------------------------


def read(rows: list[Row]) -> list[Node]:
    """The expressions of a table, each once."""
    nodes: list[Node] = []
    for row in rows:
        tag, line = row[0], row[1]
        if tag == 0:
            made: Node = Name(line, row[2])
        elif tag == 1:
            made = Attribute(line, nodes[row[2]], row[3])
        elif tag == 2:  # noqa: PLR2004 - a row's tag
            keywords = [Keyword(nodes[at].lineno, arg, nodes[at]) for arg, at in row[4]]
            made = Call(line, nodes[row[2]], [nodes[at] for at in row[3]], keywords)
        elif tag == 3:  # noqa: PLR2004 - a row's tag
            made = Constant(line, row[2])
        else:
            made = _read_rare(row, nodes)
        nodes.append(made)
    return nodes


def _read_rare(row: Row, nodes: list[Node]) -> Node:
    kind = _KINDS[row[0]]
    if kind is Compare:
        return Compare(row[1], nodes[row[2]], row[3], [nodes[at] for at in row[4]])
    if kind is Dict:
        keys = [None if at < 0 else nodes[at] for at in row[2]]
        return Dict(row[1], keys, [nodes[at] for at in row[3]])
    return kind(row[1], *(_part(each, nodes) for each in row[2:]))


def _part(part: Any, nodes: list[Node]) -> Any:
    if isinstance(part, int):
        return nodes[part]
    return [nodes[at] for at in part] if isinstance(part, list) else part


# names ---------------------------------------------------------------------------------------


def dotted(node: Node | ast.expr) -> str | None:
    """`a.b.c` as a text; None for anything else."""
    parts: list[str] = []
    while isinstance(node, (Attribute, ast.Attribute)):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, (Name, ast.Name)):
        return None
    return ".".join((node.id, *reversed(parts)))


def plain(node: Node) -> Node:
    """A decorator without the arguments that it is given."""
    return node.func if isinstance(node, Call) else node


def is_state(node: Node | ast.expr) -> bool:
    """Whether an attribute is one of an application's state: `app.state.name`, `app.ctx.name`."""
    inner = node.value if isinstance(node, (Attribute, ast.Attribute)) else None
    return isinstance(inner, (Attribute, ast.Attribute)) and inner.attr in ("state", "ctx")


def last_name(node: Node | ast.expr) -> str:
    """The last part of a name, "" for anything else."""
    if isinstance(node, (Attribute, ast.Attribute)):
        return node.attr
    return node.id if isinstance(node, (Name, ast.Name)) else ""
