"""What one source file says, read off its syntax tree: functions, calls, names, branches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Which arm of which branching statement a call stands in, and whether that arm leaves it.
Arm = tuple[int, int, bool]

#: A key, the value stored under it, and whether a branch decides about it.
Stored = tuple[ast.expr, ast.expr, bool]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_EXITS = frozenset({"sys.exit", "exit", "quit", "os._exit", "os.execv", "os.execvp"})
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


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
    """

    node: ast.Call
    function: Function
    repeated: bool
    arms: tuple[Arm, ...]
    final: bool
    awaited: bool = False
    deferred: bool = False

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.node.lineno


@dataclass(slots=True, eq=False)
class Function:
    """A function, a method, or the body of a module.

    Attributes:
        name: its own name, "<module>" for a module's body.
        module: where it stands.
        node: its syntax.
        parent: the function around it.
        owner: the class whose method it is.
        calls: the calls in its body, in their order, without those of functions inside it.
        bindings: what is assigned to each name, in order.
        entered: names bound by `with … as name`, and the expressions entered.
        contexts: the expressions entered by `with`, whether named or not.
        loads: names and dotted names read, with their nodes.
        inner: functions and classes defined in it.
        imports: names that imports in it bind, as dotted names; relative ones begin with dots.
        stars: modules of which everything is imported.
        shared: names declared `global` or `nonlocal`.
        returned: what it returns or yields.
        generates: whether it yields.
        elements: what is stored in each named container: key, value, whether in a branch.
        kept: what is stored in the state of an application, `app.state.name`, by the name.
    """

    name: str
    module: Module
    node: FunctionNode | ast.Module | ast.Lambda | ast.ClassDef
    parent: Function | None = None
    owner: Class | None = None
    calls: list[Call] = field(default_factory=list)
    bindings: dict[str, list[ast.expr]] = field(default_factory=dict)
    entered: dict[str, ast.expr] = field(default_factory=dict)
    contexts: list[ast.expr] = field(default_factory=list)
    loads: list[ast.expr] = field(default_factory=list)
    inner: dict[str, Function | Class] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)
    returned: list[ast.expr] = field(default_factory=list)
    generates: bool = False
    elements: dict[str, list[Stored]] = field(default_factory=dict)
    kept: dict[str, list[ast.expr]] = field(default_factory=dict)

    @property
    def asynchronous(self) -> bool:
        """Whether calling it makes a coroutine or an asynchronous generator."""
        return isinstance(self.node, ast.AsyncFunctionDef)

    @property
    def line(self) -> int:
        """Where it begins: at its `def`, not at its decorators."""
        return getattr(self.node, "lineno", 1)

    @property
    def decorations(self) -> list[ast.expr]:
        """What decorates it, as it is written."""
        return getattr(self.node, "decorator_list", [])

    @property
    def decorators(self) -> list[ast.expr]:
        """What decorates it, without the arguments that a decorator is given."""
        return [each.func if isinstance(each, ast.Call) else each for each in self.decorations]

    @property
    def parameters(self) -> list[ast.arg]:
        """Its parameters, in order, without `*` and `**`."""
        if isinstance(self.node, (ast.Module, ast.ClassDef)):
            return []
        given = self.node.args
        return [*given.posonlyargs, *given.args, *given.kwonlyargs]

    def walk(self) -> Iterator[Function]:
        """It, and all functions inside it."""
        yield self
        for each in self.inner.values():
            if isinstance(each, Function):
                yield from each.walk()
            else:
                for method in each.methods.values():
                    yield from method.walk()


@dataclass(slots=True, eq=False)
class Class:
    """A class.

    Attributes:
        name: its name.
        module: where it stands.
        node: its syntax.
        scope: the function in whose body it is defined.
        body: its own body, which sees its own names first.
        methods: its methods.
        bindings: what its body assigns to each name.
        attributes: what its methods assign to `self.name`, with the method.
    """

    name: str
    module: Module
    node: ast.ClassDef
    scope: Function
    body: Function
    methods: dict[str, Function] = field(default_factory=dict)
    bindings: dict[str, list[ast.expr]] = field(default_factory=dict)
    attributes: dict[str, list[tuple[Function, ast.expr]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Module:
    """A source file.

    Attributes:
        path: the file.
        parts: its dotted name's parts below the audited root.
        package: whether it is an `__init__.py`.
        lines: its source.
        body: its body, as a function.
        main: calls that stand under `if __name__ == "__main__"`.
    """

    path: Path
    parts: tuple[str, ...]
    package: bool
    lines: list[str]
    body: Function = field(init=False)
    main: set[Call] = field(default_factory=set)

    @property
    def is_test(self) -> bool:
        """Whether it belongs to tests."""
        name = self.path.stem
        if name.startswith("test_") or name.endswith("_test") or name == "conftest":
            return True
        return any(part in ("tests", "test", "testing") for part in self.parts)

    def functions(self) -> Iterator[Function]:
        """All functions of the file, its body first."""
        return self.body.walk()


def read_module(path: Path, parts: tuple[str, ...], source: bytes) -> Module:
    """Read one file.

    Raises:
        SyntaxError: if this Python cannot parse it.
        ValueError: for null bytes.
        RecursionError: for expressions that are nested too deeply.
    """
    tree = ast.parse(source, str(path))
    text = source.decode("utf-8", "replace")
    package = bool(parts) and parts[-1] == "__init__"
    module = Module(path, parts[:-1] if package else parts, package, text.splitlines())
    module.body = Function("<module>", module, tree)
    _Reader(module.body).read(tree.body)
    return module


class _Reader:
    """Reads the body of one function."""

    def __init__(self, function: Function, owner: Class | None = None) -> None:
        self.function = function
        self.owner = owner
        self.repeated = False
        self.arms: tuple[Arm, ...] = ()
        self.final = False
        self.guarded = False
        self.deferred = False

    def read(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    # statements ----------------------------------------------------------------------------

    def _statement(self, node: ast.stmt) -> None:  # noqa: C901, PLR0912 - one arm for each kind
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(node)
            case ast.ClassDef():
                self._define_class(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.Assign():
                self._expression(node.value)
                for target in node.targets:
                    self._bind(target, node.value)
            case ast.AnnAssign():
                if node.value is not None:
                    self._expression(node.value)
                    self._bind(node.target, node.value)
            case ast.AugAssign():
                self._expression(node.value)
            case ast.Return():
                if node.value is not None:
                    self.function.returned.append(node.value)
                    self._expression(node.value)
            case ast.Global() | ast.Nonlocal():
                self.function.shared.update(node.names)
            case ast.If():
                self._expression(node.test)
                self._branch(node, [node.body, node.orelse], main=_is_main(node.test))
            case ast.Try() | ast.TryStar():
                arms = [[*node.body, *node.orelse], *(each.body for each in node.handlers)]
                self._branch(node, arms)
                self._within(node.finalbody, final=True)
            case ast.Match():
                self._expression(node.subject)
                self._branch(node, [case.body for case in node.cases])
            case ast.For() | ast.AsyncFor():
                self._expression(node.iter)
                self._within(node.body, repeated=True)
                self.read(node.orelse)
            case ast.While():
                self._expression(node.test)
                self._within(node.body, repeated=True)
                self.read(node.orelse)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._expression(item.context_expr)
                    self.function.contexts.append(item.context_expr)
                    if isinstance(item.optional_vars, ast.Name):
                        self.function.entered[item.optional_vars.id] = item.context_expr
                self.read(node.body)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)

    def _within(self, body: list[ast.stmt], *, repeated: bool = False, final: bool = False) -> None:
        before = self.repeated, self.final
        self.repeated, self.final = self.repeated or repeated, self.final or final
        self.read(body)
        self.repeated, self.final = before

    def _branch(self, node: ast.stmt, arms: list[list[ast.stmt]], *, main: bool = False) -> None:
        before, guarded = self.arms, self.guarded
        for number, body in enumerate(arms):
            leaves = bool(body) and _leaves(body[-1])
            self.arms = (*before, (id(node), number, leaves))
            self.guarded = guarded or (main and number == 0)
            self.read(body)
        self.arms, self.guarded = before, guarded

    def _define(self, node: FunctionNode) -> None:
        function = Function(node.name, self.function.module, node, self.function, self.owner)
        for decorator in node.decorator_list:
            self._expression(decorator)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._expression(default)
        _Reader(function).read(node.body)
        if self.owner is not None:
            self.owner.methods[node.name] = function
        else:
            self.function.inner[node.name] = function

    def _define_class(self, node: ast.ClassDef) -> None:
        body = Function("<class>", self.function.module, node, self.function)
        made = Class(node.name, self.function.module, node, self.function, body)
        body.bindings = made.bindings
        self.function.inner[node.name] = made
        inside = _Reader(self.function, made)
        inside.read(node.body)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        bound = self.function.imports
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
            return
        base = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == "*":
                self.function.stars.append(base)
                continue
            joint = "" if base.endswith(".") else "."
            bound[alias.asname or alias.name] = f"{base}{joint}{alias.name}"

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            home = self.owner.bindings if self.owner is not None else self.function.bindings
            home.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for each, part in zip(target.elts, value.elts, strict=False):
                self._bind(each, part)
        elif isinstance(target, (ast.Attribute, ast.Subscript)):
            self._expression(target.value)
            if isinstance(target, ast.Subscript):
                self._store(target.value, target.slice, value)
            elif isinstance(target.value, ast.Name):
                self._keep(target.value.id, target.attr, value)
            elif is_state(target):
                self.function.kept.setdefault(target.attr, []).append(value)

    def _store(self, container: ast.expr, key: ast.expr, value: ast.expr) -> None:
        name = dotted(container)
        if name is not None:
            self.function.elements.setdefault(name, []).append((key, value, bool(self.arms)))

    def _keep(self, holder: str, name: str, value: ast.expr) -> None:
        """Note what a method assigns to an attribute of its object."""
        method: Function | None = self.function
        while method is not None and method.owner is None:
            method = method.parent
        owner = method.owner if method is not None else None
        if method is None or owner is None or not method.parameters:
            return
        if holder in (method.parameters[0].arg, "cls", owner.name):
            owner.attributes.setdefault(name, []).append((self.function, value))

    # expressions ---------------------------------------------------------------------------

    def _expression(  # noqa: C901, PLR0912 - one arm for each kind
        self, node: ast.expr, *, repeated: bool = False, awaited: bool = False
    ) -> None:
        if isinstance(node, ast.Constant):
            return
        repeated = repeated or self.repeated
        match node:
            case ast.Call():
                call = Call(node, self.function, repeated, self.arms, self.final, awaited)
                call.deferred = self.deferred
                self._expression(node.func, repeated=repeated)
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    self._expression(argument, repeated=repeated)
                self.function.calls.append(call)
                if last_name(node.func) == "setdefault" and len(node.args) > 1:
                    self._store(node.func.value, *node.args[:2])  # type: ignore[attr-defined]
                if self.guarded:
                    self.function.module.main.add(call)
            case ast.Await():
                self._expression(node.value, repeated=repeated, awaited=True)
            case ast.Name() | ast.Attribute():
                self.function.loads.append(node)
                if isinstance(node, ast.Attribute) and dotted(node) is None:
                    self._expression(node.value, repeated=repeated)
            case ast.Lambda():
                before, self.deferred = self.deferred, True
                self._expression(node.body, repeated=repeated)
                self.deferred = before
            case ast.Yield() | ast.YieldFrom():
                self.function.generates = True
                if node.value is not None:
                    self.function.returned.append(node.value)
                    self._expression(node.value, repeated=repeated)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for child in ast.iter_child_nodes(node):
                    for inner in _expressions(child):
                        self._expression(inner, repeated=True)
            case _:
                for child in ast.iter_child_nodes(node):
                    for inner in _expressions(child):
                        self._expression(inner, repeated=repeated)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.expr):
        yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from _expressions(child)


def _leaves(statement: ast.stmt) -> bool:
    """Whether nothing after a statement runs: a return, a raise, the end of the process."""
    if isinstance(statement, _LEAVES):
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and dotted(call.func) in _EXITS


def is_state(node: ast.expr) -> bool:
    """Whether an attribute is one of an application's state: `app.state.name`, `app.ctx.name`."""
    inner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(inner, ast.Attribute) and inner.attr in ("state", "ctx")


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and dotted(test.left) == "__name__"


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` as a text; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join((node.id, *reversed(parts)))


def last_name(node: ast.expr) -> str:
    """The last part of a name, "" for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
