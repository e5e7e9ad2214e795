"""Where event loops are started: by asyncio itself, by a helper that is handed a coroutine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from . import syntax
from .entries import HANDLERS, TASKS, THREADS
from .facts import Call, Class, Function
from .names import BRIDGES, BRIDGING_APPS, COMBINERS, KEPT, RUNNERS
from .sources import Project
from .symbols import Instance, Outside, Symbols
from .syntax import dotted, last_name, plain

_NAMES = frozenset({name.rpartition(".")[2] for name in RUNNERS | KEPT | BRIDGES})
#: A file that starts a loop itself has one of these.
_WORDS = frozenset(
    {"asyncio", "uvloop", "anyio", "async_to_sync", "AsyncToSync", "run_until_complete"}
)
#: Decorators that may run an asynchronous function, by the last part of their name.
_BRIDGING = TASKS | HANDLERS | {name.rpartition(".")[2] for name in BRIDGES}
HELPERS_DEEP = 6


@dataclass(frozen=True, slots=True)
class Start:
    """A place where a loop is started for a coroutine.

    Attributes:
        call: the call that starts it; for a decorated function the one inside the decorator.
        function: who holds the start.
        line: where that is, in its file.
        targets: the functions whose coroutines run on the loop.
        kept: whether the loop outlives the call and is used again.
        through: the helpers between the two.
        runner: the function that starts the loop in the end.
    """

    call: Call
    function: Function
    line: int
    targets: tuple[Function, ...]
    kept: bool
    through: tuple[Function, ...] = ()
    runner: Function | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a function inside of a helper starts the loop: a thread's, as a rule."""
        return bool(self.through) and self.runner not in self.through

    @property
    def threaded(self) -> bool:
        """Whether it is a thread that is handed the runner."""
        return not self.through and last_name(self.call.node.func) in THREADS

    @property
    def loop(self) -> str | None:
        """The variable of the function that holds the loop, None if each call makes one.

        One that is made in the body of a loop, as the start itself, is another each time.
        """
        func = self.call.node.func
        held = isinstance(func, syntax.Attribute) and isinstance(func.value, syntax.Name)
        if self.through or not held or self.call.function is not self.function:
            return None
        name = func.value.id  # type: ignore[attr-defined]
        held_by = self.function
        values = [*held_by.bindings.get(name, ())]
        values += [held_by.entered[name]] if name in held_by.entered else []
        anew = {id(call.node) for call in held_by.calls if call.repeated}
        made_anew = self.call.repeated and any(id(value) in anew for value in values)
        return name if values and not made_anew else None


#: A call that starts a loop, what it runs, whether the loop is kept, the helpers passed so far,
#: and who starts it in the end.
Begun = tuple[Call, syntax.Node, bool, tuple[Function, ...], Function]


class Starts:
    """All starts of a project."""

    def __init__(self, project: Project, symbols: Symbols, starters: tuple[str, ...] = ()) -> None:
        self.runners = RUNNERS | set(starters)
        self.project = project
        self.symbols = symbols
        self._by_decorator: dict[str, list[Function]] = {}

    def find(self) -> list[Start]:
        """Find the starts of asyncio, then those through helpers and decorators."""
        found: list[Start] = [*self._bridged()]
        waiting: list[Begun] = [
            (c, node, kept, (), c.function) for c, node, kept in self._primitive()
        ]
        seen: set[tuple[Call, Function]] = set()
        for _ in range(HELPERS_DEEP):
            fresh: list[Begun] = []
            for call, node, kept, through, runner in waiting:
                helper = self._helper(call, node)
                if helper is None:
                    targets = tuple(self.coroutines(node, call.function))
                    start = Start(call, call.function, call.line, targets, kept, through, runner)
                    found.append(start)
                    continue
                function, index = helper
                if (call, function) in seen:
                    continue
                seen.add((call, function))
                found += self._decorated(call, function, kept, through)
                fresh += [
                    (outer, argument, kept, (function, *through), runner)
                    for outer, argument in self._calls_of(function, index)
                ]
            waiting = fresh
        return sorted(found, key=lambda start: (str(start.function.module.path), start.line))

    # primitive starts ----------------------------------------------------------------------

    def _primitive(self) -> Iterator[tuple[Call, syntax.Node, bool]]:
        yield from self._submitted()
        for name in sorted(_NAMES | {each.rpartition(".")[2] for each in self.runners}):
            for call in self._calls_where_loops_are(name):
                callee = self.symbols.outside(call.node.func, call.function)
                if not call.node.args:
                    continue
                if callee in self.runners:
                    yield call, call.node.args[0], self._is_kept(call)
                elif callee in KEPT:
                    yield call, call.node.args[0], True
                elif callee in BRIDGES:
                    yield call, call.node.args[0], False

    def _calls_where_loops_are(self, name: str) -> list[Call]:
        """The calls of a name in files that say something of loops, or of a project's starters."""
        named = bool(self.runners - RUNNERS)  # by settings: any file may have them
        functions = self.project.callers_of(name)
        return [
            call
            for function in functions
            if named or _WORDS & function.module.words
            for call in self.project.calls_in(function, name)
        ]

    def _bridged(self) -> Iterator[Start]:
        """Asynchronous functions that a library's decorator runs on a loop of their own."""
        for function in self.project.functions:
            if not function.asynchronous or not _BRIDGING & set(function.decorators):
                continue
            scope = function.parent or function.module.body
            for node in function.decorations:
                yield from self._of_base(node, function)
                name = self.symbols.outside(plain(node), scope)
                if name in BRIDGES or name.startswith(BRIDGING_APPS):
                    made = node if isinstance(node, syntax.Call) else None
                    call = made or self.symbols.make_call(node, [], node)
                    begun = Call(call, scope, repeated=False, arms=(), final=False)
                    yield Start(begun, function, function.line, (function,), kept=False)

    def _of_base(self, node: syntax.Node, function: Function) -> Iterator[Start]:
        """Asynchronous tasks whose base class runs them: `@app.task(base=AsyncTask)`."""
        for keyword in node.keywords if isinstance(node, syntax.Call) else ():
            kind = self.symbols.resolve(keyword.value, function.module.body)
            if keyword.arg != "base" or not isinstance(kind, Class):
                continue
            for method in (m for each in self.symbols.lineage(kind) for m in each.methods.values()):
                for call in method.calls:
                    name = self.symbols.outside(call.node.func, method)
                    if name in self.runners or name in KEPT:
                        kept = name in KEPT or self._is_kept(call)
                        yield Start(call, function, function.line, (function,), kept)
                        return

    def _submitted(self) -> Iterator[tuple[Call, syntax.Node, bool]]:
        """Runners handed to a thread with their coroutine: `submit(asyncio.run, work())`."""
        for name in sorted(THREADS):
            for call in self.project.calls_of(name):
                given = [*call.node.args, *(k.value for k in call.node.keywords)]
                given = [e for g in given for e in (g.elts if isinstance(g, syntax.Tuple) else [g])]
                for runner, coroutine in itertools.pairwise(given):
                    named = isinstance(runner, (syntax.Name, syntax.Attribute))
                    if named and self.symbols.outside(runner, call.function) in self.runners:
                        yield call, coroutine, False

    def _is_kept(self, call: Call) -> bool:
        """Whether the loop is held by something that outlives the call."""
        base = call.node.func.value if isinstance(call.node.func, syntax.Attribute) else None
        if not isinstance(base, (syntax.Name, syntax.Attribute)):
            return False
        name = (dotted(base) or "").partition(".")[0]
        if isinstance(base, syntax.Attribute):
            return name in ("self", "cls") or name not in call.function.imports
        around: Function | None = call.function
        while around is not None and around.parent is not None:
            if name in around.bindings and name not in around.shared:
                return any(self._lasts(value, around) for value in around.bindings[name])
            if name in around.entered:
                return False
            around = around.parent
        return around is not None and name in around.bindings

    def _lasts(self, value: syntax.Node, scope: Function) -> bool:
        """Whether what a local variable is set to outlives the function."""
        if isinstance(value, syntax.Attribute):
            return True
        if isinstance(value, syntax.Name):
            return value.id not in scope.bindings or value.id in scope.shared
        if not isinstance(value, syntax.Call):
            return False
        getter = self.symbols.resolve(value.func, scope)
        if not isinstance(getter, Function) or getter.asynchronous:
            return False
        return any(
            self._lasts(each, getter)
            for each in getter.returned
            if isinstance(each, (syntax.Name, syntax.Attribute, syntax.Call))
        )

    # helpers -------------------------------------------------------------------------------

    def _helper(self, call: Call, node: syntax.Node) -> tuple[Function, int] | None:
        """The function whose own parameter is run, or called and run, and which one that is."""
        name = dotted(plain(node))
        around: Function | None = call.function
        bound = {name}
        while around is not None and around.parent is not None:
            for value in (v for each in list(bound) for v in around.bindings.get(each or "", ())):
                bound.add(dotted(plain(value)))
            for index, parameter in enumerate(around.parameters):
                if parameter in bound:
                    return around, index
            around = around.parent
        return None

    def _calls_of(self, function: Function, index: int) -> Iterator[tuple[Call, syntax.Node]]:
        name = function.parameters[index]
        bound = function.owner is not None
        for call in self.project.calls_of(function.name):
            if self.symbols.resolve(call.node.func, call.function) is not function:
                continue
            place = index - (1 if bound else 0)
            given = next((k.value for k in call.node.keywords if k.arg == name), None)
            if given is None and 0 <= place < len(call.node.args):
                given = call.node.args[place]
            if given is not None:
                yield call, given

    def _decorated(
        self, call: Call, decorator: Function, kept: bool, through: tuple[Function, ...]
    ) -> Iterator[Start]:
        """The asynchronous functions that a decorator turns into starts."""
        if call.function is decorator:
            return
        names = {decorator.name, decorator.parent.name if decorator.parent else ""} - {"<module>"}
        for function in (f for name in sorted(names) for f in self._decorated_by(name)):
            for node in function.decorations:
                scope = function.parent or function.module.body
                # `@decorate(…)` is decorated by what the call returns, `@decorate` by itself.
                made = self.symbols.value(node, scope)
                if decorator in (made, self.symbols.resolve(plain(node), scope)):
                    inner = (decorator, *through)
                    yield Start(call, function, function.line, (function,), kept, inner)
                    break

    def _decorated_by(self, name: str) -> list[Function]:
        """The asynchronous functions that a decorator of a name, or another name of it, has."""
        if not self._by_decorator:
            for function in self.project.functions:
                for each in function.decorators if function.asynchronous else ():
                    self._by_decorator.setdefault(each, []).append(function)
        names = sorted(self.project.other_names(name))
        return [each for other in names for each in self._by_decorator.get(other, ())]

    # coroutines ----------------------------------------------------------------------------

    def coroutines(  # noqa: C901 - one arm for each kind
        self, node: syntax.Node, scope: Function
    ) -> Iterator[Function]:
        """The functions whose coroutines an expression is or holds."""
        match node:
            case syntax.Call():
                callee = self.symbols.resolve(node.func, scope)
                yield from self._made_by(node, callee, scope)
            case syntax.Name():
                found = self.symbols.resolve(node, scope)
                if isinstance(found, Function):
                    yield found
                for value in scope.bindings.get(node.id, ()):
                    if isinstance(value, (syntax.Call, syntax.Lambda)):
                        yield from self.coroutines(value, scope)
            case syntax.Attribute():
                found = self.symbols.resolve(node, scope)
                if isinstance(found, Function):
                    yield found
            case syntax.Lambda():
                yield from self.coroutines(node.body, scope)
            case syntax.Starred() | syntax.Await():
                yield from self.coroutines(node.value, scope)
            case syntax.ListComp() | syntax.GeneratorExp():
                yield from self.coroutines(node.elt, scope)

    def _made_by(self, node: syntax.Call, callee: object, scope: Function) -> Iterator[Function]:
        if isinstance(callee, Function):
            yield callee
        elif isinstance(callee, (Instance, Class)):
            kind = callee.kind if isinstance(callee, Instance) else callee
            method = self.symbols.attribute(Instance(kind), "__call__")
            if isinstance(method, Function):
                yield method
        elif isinstance(callee, Outside) and callee.name in COMBINERS:
            for argument in node.args:
                yield from self.coroutines(argument, scope)
