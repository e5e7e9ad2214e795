"""Writes down what a source file says, as one plain value: a summary.

A pure function of the file's bytes, run in other processes too; it imports next to nothing.
"""

from __future__ import annotations

import ast
import gc
import marshal
import sys
import warnings
from pathlib import Path
from typing import Any

from .syntax import Row, dotted, is_state, last_name, write

#: The form of a summary: another number for another form, so that no cache mixes them.
FORM = 4
LARGEST = 4_000_000
#: Long chains of operators nest deeply.
DEEP = 20_000

_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_EXITS = frozenset({"sys.exit", "exit", "quit", "os._exit", "os.execv", "os.execvp"})
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
#: Words of which it matters that a file has them anywhere.
_WORDS = (
    *(b"NullPool", b"dependency_overrides"),
    *(b"asyncio", b"uvloop", b"anyio", b"async_to_sync", b"AsyncToSync", b"run_until_complete"),
)


def summarise(source: bytes) -> tuple[Any, ...]:
    """What one file says.

    Raises:
        SyntaxError: if this Python cannot parse it.
        ValueError: for null bytes.
        RecursionError: for expressions that are nested too deeply.
    """
    tree = ast.parse(source)
    file = _File()
    body = _Reader(file, _Function("<module>", 1))
    body.read(tree.body)
    words = [word.decode() for word in _WORDS if word in source]
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    # Classes first: what they name stands in the tables of the functions around them.
    classes = [each.record() for each in file.classes]
    return lines, words, [each.record() for each in file.functions], classes


class _File:
    """The functions and classes of one file, in the order in which they begin."""

    def __init__(self) -> None:
        self.functions: list[_Function] = []
        self.classes: list[_Class] = []
        self.branches = 0


class _Function:
    """What is written down of one function."""

    def __init__(self, name: str, line: int) -> None:
        self.number = -1
        self.head: tuple[Any, ...] = (name, line, False, False, [])
        self.parent, self.owner = -1, -1
        self.inner: dict[str, tuple[bool, int]] = {}
        self.imports: dict[str, str] = {}
        self.stars: list[str] = []
        self.shared: list[str] = []
        self.renames: list[tuple[str, str]] = []
        self.decorators: list[str] = []
        self.generates = False
        self.rows: list[Row] = []
        self.places: dict[int, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.bindings: dict[str, list[int]] = {}
        self.entered: dict[str, int] = {}
        self.kept: dict[str, list[int]] = {}
        self.contexts: list[int] = []
        self.loads: list[int] = []
        self.returned: list[int] = []
        self.compares: list[int] = []
        self.subscripts: list[int] = []
        self.elements: dict[str, list[tuple[int, int, bool]]] = {}
        self.branches: list[tuple[int, int]] = []
        self.awaits: list[int] = []
        self.types: dict[str, int] = {}
        self.defaults: list[int] = []
        self.decorations: list[int] = []
        self.called: set[str] = set()
        self.mentioned: set[str] = set()
        # Class, and name of the object, of the method that this is, or that it stands in.
        self.method: tuple[_Class, str] | None = None

    def add(self, node: ast.expr) -> int:
        """Write an expression down, once; its place in the table."""
        place = self.places.get(id(node))
        if place is None:
            # Most expressions are one of these two: this is the innermost loop of an audit.
            kind = type(node)
            if kind is ast.Name:
                row: Row = (0, node.lineno, node.id)  # type: ignore[attr-defined]
            elif kind is ast.Attribute:
                row = (1, node.lineno, self.add(node.value), node.attr)  # type: ignore[attr-defined]
            else:
                row = write(node, self.add)
            rows = self.rows
            place = self.places[id(node)] = len(rows)
            rows.append(row)
        return place

    def record(self) -> tuple[Any, ...]:
        name, line, asynchronous, _, parameters = self.head
        return (
            (name, line, asynchronous, self.generates, parameters),
            (self.imports, self.stars, self.shared, sorted(self.called), sorted(self.mentioned)),
            (self.renames, self.decorators, list(self.kept)),
            marshal.dumps(self._rest()),
            self.parent,
            self.owner,
            self.inner,
        )

    def _rest(self) -> tuple[Any, ...]:
        """What few searches ask for, and is read for them alone."""
        return (
            self.rows,
            self.calls,
            (self.bindings, self.entered, self.kept),
            (self.contexts, self.loads, self.returned, self.compares, self.subscripts),
            self.elements,
            (self.branches, self.awaits),
            self.types,
            (self.defaults, self.decorations),
        )


class _Class:
    """What is written down of one class."""

    def __init__(self, node: ast.ClassDef, scope: _Function) -> None:
        self.node = node
        self.scope = scope
        self.number = -1
        self.methods: dict[str, int] = {}
        self.bindings: dict[str, list[int]] = {}
        self.attributes: dict[str, list[tuple[int, int]]] = {}

    def record(self) -> tuple[Any, ...]:
        bases = [self.scope.add(each) for each in self.node.bases]
        decorations = [self.scope.add(each) for each in self.node.decorator_list]
        names = [last_name(each) for each in self.node.bases]
        return (
            (self.node.name, self.node.lineno, names),
            (bases, decorations, self.bindings),
            self.attributes,
            self.scope.number,
            self.methods,
        )


class _Reader:
    """Reads the body of one function."""

    def __init__(self, file: _File, function: _Function, owner: _Class | None = None) -> None:
        if function.number < 0:
            function.number = len(file.functions)
            file.functions.append(function)
        self.file = file
        self.function = function
        self.owner = owner
        self.repeated = False
        self.arms: tuple[tuple[int, int, bool], ...] = ()
        self.final = False
        self.guarded = False
        self.deferred = False

    def read(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    # statements ----------------------------------------------------------------------------

    def _statement(self, node: ast.stmt) -> None:  # noqa: C901, PLR0912 - one arm for each kind
        match node:
            case ast.Expr():
                self._expression(node.value)
            case ast.Assign():
                self._expression(node.value)
                for target in node.targets:
                    self._bind(target, node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(node)
            case ast.ClassDef():
                self._define_class(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.AnnAssign():
                if node.value is not None:
                    self._expression(node.value)
                    self._bind(node.target, node.value)
            case ast.AugAssign():
                self._expression(node.value)
            case ast.Return():
                if node.value is not None:
                    self._return(node.value)
            case ast.Global() | ast.Nonlocal():
                self.function.shared += node.names
            case ast.If():
                self._expression(node.test)
                self._branch([node.body, node.orelse], test=node.test)
            case ast.Try() | ast.TryStar():
                arms = [[*node.body, *node.orelse], *(each.body for each in node.handlers)]
                self._branch(arms)
                self._within(node.finalbody, final=True)
            case ast.Match():
                self._expression(node.subject)
                self._branch([case.body for case in node.cases])
            case ast.For() | ast.AsyncFor() | ast.While():
                self._expression(node.test if isinstance(node, ast.While) else node.iter)
                self._within(node.body, repeated=True)
                self.read(node.orelse)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._enter(item)
                self.read(node.body)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)

    def _enter(self, item: ast.withitem) -> None:
        self._expression(item.context_expr)
        place = self.function.add(item.context_expr)
        self.function.contexts.append(place)
        if isinstance(item.optional_vars, ast.Name):
            self.function.entered[item.optional_vars.id] = place

    def _return(self, value: ast.expr) -> None:
        self._expression(value)
        self.function.returned.append(self.function.add(value))

    def _within(self, body: list[ast.stmt], *, repeated: bool = False, final: bool = False) -> None:
        before = self.repeated, self.final
        self.repeated, self.final = self.repeated or repeated, self.final or final
        self.read(body)
        self.repeated, self.final = before

    def _branch(self, arms: list[list[ast.stmt]], test: ast.expr | None = None) -> None:
        before, guarded = self.arms, self.guarded
        self.file.branches += 1
        number = self.file.branches
        if test is not None:
            self.function.branches.append((number, self.function.add(test)))
        main = test is not None and _is_main(test)
        for arm, body in enumerate(arms):
            leaves = bool(body) and _leaves(body[-1])
            self.arms = (*before, (number, arm, leaves))
            self.guarded = guarded or (main and arm == 0)
            self.read(body)
        self.arms, self.guarded = before, guarded

    def _define(self, node: _FunctionNode) -> None:
        given = node.args
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        names = [each.arg for each in parameters]
        function = _Function(node.name, node.lineno)
        asynchronous = isinstance(node, ast.AsyncFunctionDef)
        function.head = (node.name, node.lineno, asynchronous, False, names)
        function.parent = self.function.number
        function.method = self.function.method
        for decorator in node.decorator_list:
            self._expression(decorator)
            function.decorations.append(self.function.add(decorator))
            plain = decorator.func if isinstance(decorator, ast.Call) else decorator
            function.decorators.append(last_name(plain))
        defaults = [each for each in (*given.defaults, *given.kw_defaults) if each is not None]
        for default in defaults:
            self._expression(default)
            function.defaults.append(self.function.add(default))
        if self.owner is not None:
            function.owner = self.owner.number
            function.method = (self.owner, names[0]) if names else None
        reader = _Reader(self.file, function)
        function.types = {
            each.arg: function.add(each.annotation)
            for each in parameters
            if each.annotation is not None
        }
        for expression in (*defaults, *(each.annotation for each in parameters)):
            function.mentioned.update(_arguments(expression))
        reader.read(node.body)
        if self.owner is not None:
            self.owner.methods[node.name] = function.number
        else:
            self.function.inner[node.name] = (False, function.number)

    def _define_class(self, node: ast.ClassDef) -> None:
        made = _Class(node, self.function)
        made.number = len(self.file.classes)
        self.file.classes.append(made)
        self.function.inner[node.name] = (True, made.number)
        inside = _Reader(self.file, self.function, made)
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
            if alias.asname is not None and alias.asname != alias.name:
                self.function.renames.append((alias.asname, alias.name))

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            home = self.owner.bindings if self.owner is not None else self.function.bindings
            home.setdefault(target.id, []).append(self.function.add(value))
            old = last_name(value)
            if old and old != target.id:
                self.function.renames.append((target.id, old))
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for each, part in zip(target.elts, value.elts, strict=False):
                self._bind(each, part)
        elif isinstance(target, ast.Subscript):
            self._expression(target)
            self._store(target.value, target.slice, value)
        elif isinstance(target, ast.Attribute):
            self._expression(target.value)
            holder = self._holder(target.value)
            if holder is not None:
                self._keep(holder, target.attr, value)
            elif is_state(target):
                kept = self.function.kept.setdefault(target.attr, [])
                kept.append(self.function.add(value))

    def _store(self, container: ast.expr, key: ast.expr, value: ast.expr) -> None:
        name, add = dotted(container), self.function.add
        if name is not None:
            stored = self.function.elements.setdefault(name, [])
            stored.append((add(key), add(value), bool(self.arms)))

    def _holder(self, node: ast.expr) -> str | None:
        """The name of whose attribute is assigned; of a singleton its class."""
        if isinstance(node, ast.Name):
            anew = self.function.head[0] == "__new__" and self.function.method is not None
            return "cls" if anew else node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of_class = node.value.id == "cls" or self._is_own_class(node.value.id)
            return "cls" if of_class and "instance" in node.attr.lower() else None
        return None

    def _is_own_class(self, name: str) -> bool:
        return self.function.method is not None and name == self.function.method[0].node.name

    def _keep(self, holder: str, name: str, value: ast.expr) -> None:
        """Note what a method assigns to an attribute of its object."""
        if self.function.method is None:
            return
        kind, own = self.function.method
        if holder in (own, "cls", kind.node.name):
            place = self.function.number, self.function.add(value)
            kind.attributes.setdefault(name, []).append(place)

    # expressions ---------------------------------------------------------------------------

    def _expression(self, node: ast.expr, *, repeated: bool = False, awaited: bool = False) -> None:
        kind = type(node)
        if kind is ast.Constant:
            return
        if kind is ast.Name or kind is ast.Attribute:
            self._load(node, repeated=repeated)
        elif kind is ast.Call:
            self._call(node, repeated=repeated, awaited=awaited)  # type: ignore[arg-type]
        else:
            self._rare(node, repeated=repeated)

    def _load(self, node: ast.expr, *, repeated: bool) -> None:
        function = self.function
        function.loads.append(function.add(node))
        if isinstance(node, ast.Name):
            function.mentioned.add(node.id)
            return
        base = node
        while isinstance(base, ast.Attribute):
            if base is node:
                function.mentioned.add(base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            self._expression(node.value, repeated=repeated)  # type: ignore[attr-defined]

    def _rare(self, node: ast.expr, *, repeated: bool) -> None:
        function = self.function
        match node:
            case ast.Await():
                if isinstance(node.value, ast.Name):
                    function.awaits.append(node.lineno)
                self._expression(node.value, repeated=repeated, awaited=True)
            case ast.Lambda():
                before, self.deferred = self.deferred, True
                self._expression(node.body, repeated=repeated)
                self.deferred = before
            case ast.Yield() | ast.YieldFrom():
                function.generates = True
                if node.value is not None:
                    function.returned.append(function.add(node.value))
                    self._expression(node.value, repeated=repeated)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._parts(node, repeated=True)
            case _:
                if isinstance(node, ast.Compare):
                    function.compares.append(function.add(node))
                elif isinstance(node, ast.Subscript):
                    function.subscripts.append(function.add(node))
                self._parts(node, repeated=repeated)

    def _parts(self, node: ast.AST, *, repeated: bool) -> None:
        for name in node._fields:
            part = getattr(node, name)
            for child in part if isinstance(part, list) else (part,):
                if isinstance(child, ast.expr):
                    self._expression(child, repeated=repeated)
                elif isinstance(child, (ast.comprehension, ast.keyword)):
                    self._parts(child, repeated=repeated)

    def _call(self, node: ast.Call, *, repeated: bool, awaited: bool) -> None:
        function = self.function
        self._expression(node.func, repeated=repeated)
        for argument in node.args:
            self._expression(argument, repeated=repeated)
        for keyword in node.keywords:
            self._expression(keyword.value, repeated=repeated)
            if keyword.arg is not None:
                function.called.add(f"={keyword.arg}")
        name = last_name(node.func)
        function.called.add(name)
        again = repeated or self.repeated
        flags = (self.final, awaited, self.deferred, self.guarded)
        function.calls.append((function.add(node), again, self.arms, *flags))
        if name == "setdefault" and len(node.args) > 1 and isinstance(node.func, ast.Attribute):
            self._store(node.func.value, *node.args[:2])


def _arguments(node: ast.expr | None) -> set[str]:
    """The last names of what calls in an expression are given: `Depends(get_session)`."""
    if node is None or isinstance(node, (ast.Name, ast.Constant, ast.Attribute)):
        return set()
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
    return {last_name(argument) for call in calls for argument in call.args}


def _leaves(statement: ast.stmt) -> bool:
    """Whether nothing after a statement runs: a return, a raise, the end of the process."""
    if isinstance(statement, _LEAVES):
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and dotted(call.func) in _EXITS


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and dotted(test.left) == "__name__"


# files ---------------------------------------------------------------------------------------


#: A summary as bytes; else None, why, and whether a newer Python may read the file.
Outcome = tuple[bytes | None, str, bool]


def read_file(name: str) -> Outcome:
    """What became of a file."""
    try:
        with Path(name).open("rb") as file:
            source = file.read(LARGEST + 1)
    except OSError as exc:
        return None, str(exc), False
    if len(source) > LARGEST:
        return None, f"larger than {LARGEST} bytes", False
    return read_source(source)


def read_source(source: bytes) -> Outcome:
    """What became of a source."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return marshal.dumps(summarise(source)), "", False
    except SyntaxError as exc:
        return None, f"line {exc.lineno}: {exc.msg}", True
    except (ValueError, RecursionError, MemoryError) as exc:
        return None, str(exc) or type(exc).__name__, False


def serve() -> None:
    """Read the files whose names come in, until nothing more comes: what a child process does."""
    gc.disable()
    sys.setrecursionlimit(DEEP)
    while True:
        try:
            names = marshal.load(sys.stdin.buffer)  # noqa: S302 - our own parent process
        except EOFError:
            return
        marshal.dump([read_file(name) for name in names], sys.stdout.buffer)
        sys.stdout.buffer.flush()
