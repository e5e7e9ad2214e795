"""What one source file says: functions, calls, names, branches.

`summarise` reads a file's syntax tree and writes down what searches ask for, as one plain value, a
summary: it goes through a pipe and into a cache. `Module` gives a summary its shape again; what
stands in a function is worked out when a search comes to it.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .syntax import Call as CallNode
from .syntax import Compare, Node, Subscript, read

#: Which arm of which branching statement a call stands in, and whether that arm leaves it.
Arm = tuple[int, int, bool]
#: A key, the value stored under it, and whether a branch decides about it.
Stored = tuple[Node, Node, bool]
#: What `summarise` gives for one file.
Summary = tuple[Any, ...]
#: So many branches a file can have before the numbers of two files meet.
_BRANCHES = 1 << 20


@dataclass(slots=True, eq=False)
class Call:
    """One call, with where it stands.

    Attributes:
        node: its syntax.
        function: the function in whose body it stands.
        repeated: whether it stands in the body of a loop or a comprehension.
        arms: the branches it stands in, the outermost first.
        final: whether it stands in a `finally`.
        awaited: whether its result is awaited.
        deferred: whether it stands in a lambda, which is called by others, or never.
        main: whether it stands under `if __name__ == "__main__"`.
    """

    node: CallNode
    function: Function
    repeated: bool = False
    arms: tuple[Arm, ...] = ()
    final: bool = False
    awaited: bool = False
    deferred: bool = False
    main: bool = False

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.node.lineno


class Function:
    """A function, a method, or the body of a module or a class.

    Attributes:
        name: its own name, "<module>" for a module's body.
        module: where it stands.
        parent: the function around it.
        owner: the class whose method it is.
        line: where it begins: at its `def`, not at its decorators.
        asynchronous: whether calling it makes a coroutine or an asynchronous generator.
        is_class: whether it is the body of a class.
        generates: whether it yields.
        parameters: the names of its parameters, in order, without `*` and `**`.
        inner: functions and classes defined in it.
        imports: names that imports in it bind, as dotted names; relative ones begin with dots.
        stars: modules of which everything is imported.
        shared: names declared `global` or `nonlocal`.
        called: the last names of what it calls, and `=name` for each keyword.
        mentioned: the last names that it reads.
        renames: names bound to what has another name: `go = run`, `import x as y`.
        decorators: the last names of what decorates it.
        keeps: the names under which it stores something in an application's state.

    The others are worked out when they are asked for:

        calls: the calls in its body, in their order, without those of functions inside it.
        bindings: what is assigned to each name, in order.
        entered: names bound by `with … as name`, and the expressions entered.
        contexts: the expressions entered by `with`, whether named or not.
        loads: names and dotted names read.
        returned: what it returns or yields.
        elements: what is stored in each named container: key, value, whether in a branch.
        kept: what is stored in the state of an application, `app.state.name`, by the name.
        compares: the comparisons in it.
        subscripts: the subscripts in it, read or written.
        branches: the tests of its `if` statements, with the number that arms have.
        awaits: the lines at which it awaits a name.
        annotations: the types of its parameters, by their names.
        defaults: the defaults of its parameters.
        decorations: what decorates it, as it is written.
    """

    name: str
    module: Module
    parent: Function | None
    owner: Class | None
    line: int
    asynchronous: bool
    is_class: bool
    generates: bool
    parameters: list[str]
    inner: dict[str, Function | Class]
    imports: dict[str, str]
    stars: list[str]
    shared: set[str]
    called: list[str]
    mentioned: list[str]
    renames: list[tuple[str, str]]
    decorators: list[str]
    keeps: list[str]
    calls: list[Call]
    bindings: dict[str, list[Node]]
    entered: dict[str, Node]
    contexts: list[Node]
    loads: list[Node]
    returned: list[Node]
    elements: dict[str, list[Stored]]
    kept: dict[str, list[Node]]
    compares: list[Compare]
    subscripts: list[Subscript]
    branches: list[tuple[int, Node]]
    awaits: list[int]
    annotations: dict[str, Node]
    defaults: list[Node]
    decorations: list[Node]
    nodes: list[Node]

    def __init__(self, module: Module, record: Summary, parent: Function | None) -> None:
        self.module = module
        self.parent = parent
        self.owner = None
        self.is_class = False
        self.inner = {}
        (self.name, self.line, self.asynchronous, self.generates, self.parameters) = record[0]
        (self.imports, self.stars, shared, self.called, self.mentioned) = record[1]
        (self.renames, self.decorators, self.keeps) = record[2]
        self.shared = set(shared)
        self._rest = record[3]

    def __getattr__(self, name: str) -> Any:
        """Work out what the body says, once: only what a search comes to is worked out."""
        if name not in _LATER:
            raise AttributeError(name)
        self._read()
        return getattr(self, name)

    def _read(self) -> None:
        rest = marshal.loads(self._rest)  # noqa: S302 - written by us
        rows, calls, named, listed, stored, (branches, awaits), types, outer = rest
        nodes = self.nodes = read(rows)
        start = self.module.number * _BRANCHES
        self.calls = [
            Call(
                nodes[at],
                self,
                repeated,
                tuple((start + number, arm, leaves) for number, arm, leaves in arms),
                *flags,
            )
            for at, repeated, arms, *flags in calls
        ]
        bindings, entered, kept = named
        self.bindings = {name: [nodes[at] for at in each] for name, each in bindings.items()}
        self.entered = {name: nodes[at] for name, at in entered.items()}
        self.kept = {name: [nodes[at] for at in each] for name, each in kept.items()}
        self.contexts, self.loads, self.returned, compares, subscripts = (
            [nodes[at] for at in each] for each in listed
        )
        self.compares = [each for each in compares if isinstance(each, Compare)]
        self.subscripts = [each for each in subscripts if isinstance(each, Subscript)]
        self.elements = {
            name: [(nodes[key], nodes[value], decided) for key, value, decided in each]
            for name, each in stored.items()
        }
        self.branches = [(start + number, nodes[at]) for number, at in branches]
        self.awaits = awaits
        self.annotations = {name: nodes[at] for name, at in types.items()}
        around = self.parent.nodes if self.parent is not None else nodes
        self.defaults, self.decorations = ([around[at] for at in each] for each in outer)

    def walk(self) -> Iterator[Function]:
        """It, and all functions inside it."""
        yield self
        for each in self.inner.values():
            if isinstance(each, Function):
                yield from each.walk()
            else:
                for method in each.methods.values():
                    yield from method.walk()


_LATER = frozenset(
    {
        *("calls", "bindings", "entered", "contexts", "loads", "returned", "elements", "kept"),
        *("compares", "subscripts", "branches", "awaits", "annotations", "defaults"),
        *("decorations", "nodes"),
    }
)


class ClassBody(Function):
    """The body of a class, which sees the names that it assigns."""

    def __init__(self, kind: Class) -> None:  # a class has no record of its own body
        self.name, self.line = "<class>", kind.line
        self.module, self.parent, self.owner = kind.module, kind.scope, None
        self.asynchronous = self.generates = False
        self.is_class = True
        self.parameters, self.stars, self.called, self.mentioned = [], [], [], []
        self.renames, self.decorators, self.keeps = [], [], []
        self.inner, self.imports, self.shared = {}, {}, set()
        self._kind = kind

    def _read(self) -> None:
        self.bindings = self._kind.bindings
        self.calls, self.contexts, self.loads, self.returned = [], [], [], []
        self.entered, self.elements, self.kept, self.annotations = {}, {}, {}, {}
        self.compares, self.subscripts, self.branches, self.awaits = [], [], [], []
        self.defaults, self.decorations, self.nodes = [], [], []


class Class:
    """A class.

    Attributes:
        name: its name.
        module: where it stands.
        scope: the function in whose body it is defined.
        line: where it begins.
        base_names: the last names of its bases.
        methods: its methods.
        body: its own body, which sees its own names first.

    The others are worked out when they are asked for:

        bases: the classes that it names as its bases.
        decorations: what decorates it.
        bindings: what its body assigns to each name.
        attributes: what its methods assign to `self.name`, with the method.
    """

    bases: list[Node]
    decorations: list[Node]
    bindings: dict[str, list[Node]]
    attributes: dict[str, list[tuple[Function, Node]]]

    def __init__(self, scope: Function, record: Summary) -> None:
        (self.name, self.line, self.base_names), self._rest, self._assigned = record[:3]
        self.scope = scope
        self.module = scope.module
        self.methods: dict[str, Function] = {}
        self.body = ClassBody(self)

    def __getattr__(self, name: str) -> Any:
        """Work out what its body and its methods assign, once."""
        if name == "attributes":
            functions = self.module.numbered
            self.attributes = {
                each: [(functions[number], functions[number].nodes[at]) for number, at in places]
                for each, places in self._assigned.items()
            }
        elif name in ("bases", "decorations", "bindings"):
            nodes = self.scope.nodes
            bases, decorations, bindings = self._rest
            self.bases = [nodes[at] for at in bases]
            self.decorations = [nodes[at] for at in decorations]
            self.bindings = {
                each: [nodes[at] for at in places] for each, places in bindings.items()
            }
        else:
            raise AttributeError(name)
        return getattr(self, name)


@dataclass(slots=True, eq=False)
class Module:
    """A source file.

    Attributes:
        path: the file.
        parts: its dotted name's parts below the audited root.
        package: whether it is an `__init__.py`.
        number: its place among the project's files.
        is_test: whether it belongs to tests.
        lines: how many lines it has.
        words: which of a few words, as "NullPool", stand in it.
        body: its body, as a function.
        numbered: its functions, in the order in which the summary has them.
    """

    path: Path
    parts: tuple[str, ...]
    package: bool
    number: int
    is_test: bool
    lines: int = 0
    words: frozenset[str] = frozenset()
    body: Function = field(init=False)
    numbered: list[Function] = field(default_factory=list)

    def functions(self) -> Iterator[Function]:
        """All functions of the file, its body first."""
        return self.body.walk()


def read_module(path: Path, parts: tuple[str, ...], number: int, summary: Summary) -> Module:
    """The module that a summary is of."""
    package = bool(parts) and parts[-1] == "__init__"
    module = Module(path, parts[:-1] if package else parts, package, number, _is_test(parts))
    module.lines, words, functions, classes = summary
    module.words = frozenset(words)
    made = module.numbered
    for record in functions:
        parent = made[record[4]] if record[4] >= 0 else None
        made.append(Function(module, record, parent))
    kinds = [Class(made[record[3]], record) for record in classes]
    for function, record in zip(made, functions, strict=True):
        if record[5] >= 0:
            function.owner = kinds[record[5]]
        function.inner = {
            name: kinds[at] if of_class else made[at] for name, (of_class, at) in record[6].items()
        }
    for kind, record in zip(kinds, classes, strict=True):
        kind.methods = {name: made[at] for name, at in record[4].items()}
    module.body = made[0]
    return module


def _is_test(parts: tuple[str, ...]) -> bool:
    name = parts[-1] if parts else ""
    if name.startswith("test_") or name.endswith("_test") or name == "conftest":
        return True
    return any(part in ("tests", "test", "testing") for part in parts[:-1])
