"""What a coroutine comes to use, and who comes to call a function."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from . import syntax
from .facts import Call, Class, Function
from .names import COPIERS
from .symbols import Instance, Resource, Symbol, Symbols
from .syntax import last_name

#: A step of a chain: who, and the line at which it goes on.
Step = tuple[Function, int]

_ENDS = frozenset({"dispose", "close", "aclose", "disconnect", "close_all", "terminate"})
_READ = frozenset({"url", "dialect", "driver", "echo", "sync_engine", "pool", "kw"})
FUNCTIONS_SEEN = 800


@dataclass(slots=True)
class Reached:
    """What is reached from some functions.

    Attributes:
        parents: from where each function was reached first.
        uses: where each resource was used first.
        ended: the resources that are disposed of or closed.
    """

    parents: dict[Function, Step | None] = field(default_factory=dict)
    uses: dict[Resource, Step] = field(default_factory=dict)
    ended: set[Resource] = field(default_factory=set)

    def chain_to(self, resource: Resource) -> list[Step]:
        """The functions on the shortest way to a resource, the outermost first."""
        return self.chain_of(self.uses[resource])

    def chain_of(self, last: Step) -> list[Step]:
        """The functions on the shortest way to one of them, the outermost first."""
        chain = [last]
        function = last[0]
        while (step := self.parents[function]) is not None:
            chain.append(step)
            function = step[0]
        return chain[::-1]


class Reach:
    """Searches down from coroutines and up from starts."""

    def __init__(self, symbols: Symbols, functions: list[Function]) -> None:
        self.symbols = symbols
        self._down: dict[tuple[Function, ...], Reached] = {}
        self._above: dict[Function, list[Function]] = {}
        self._callers: dict[Function, list[Step]] = {}
        self._edges: dict[Function, list[tuple[Symbol, int]]] = {}
        self._by_name: dict[str, list[Function]] = {}
        for function in functions:
            for name in function.mentioned:
                self._by_name.setdefault(name, []).append(function)

    # down ----------------------------------------------------------------------------------

    def down(self, functions: Iterable[Function]) -> Reached:
        """Search from some functions, the nearest first."""
        given = tuple(functions)
        if given not in self._down:
            self._down[given] = self._search(given)
        return self._down[given]

    def _search(self, functions: tuple[Function, ...]) -> Reached:
        reached = Reached()
        waiting = deque(functions)
        reached.parents.update(dict.fromkeys(waiting))
        while waiting and len(reached.parents) < FUNCTIONS_SEEN:
            function = waiting.popleft()
            reached.ended.update(self.ended_in(function))
            for symbol, line in self.edges(function):
                if isinstance(symbol, Resource):
                    reached.uses.setdefault(symbol.engine, (function, line))
                elif isinstance(symbol, Function) and symbol not in reached.parents:
                    reached.parents[symbol] = (function, line)
                    waiting.append(symbol)
        return reached

    def edges(self, function: Function) -> list[tuple[Symbol, int]]:
        """The functions and resources that a function mentions, with their lines."""
        known = self._edges.get(function)
        if known is None:
            known = self._edges[function] = list(self._mentions(function))
        return known

    def _mentions(self, function: Function) -> Iterator[tuple[Symbol, int]]:
        ending = {id(node) for node in (*self._ending(function), *self._copied(function))}
        for node in _mentioned(function):
            if id(node) in ending:
                continue
            found = self.symbols.resolve(node, function)
            line = node.lineno
            if isinstance(found, Function) or (
                isinstance(found, Resource) and not self._is_read(node, function)
            ):
                yield found, line
        yield from self._made_in(function)
        for call in function.calls:
            callee = self.symbols.resolve(call.node.func, function)
            for method in self._run_by(call, callee):
                yield method, call.line
            made = self.symbols.value(call.node, function)
            if isinstance(made, Resource) and made.shared and id(call.node.func) not in ending:
                yield made, call.line

    def _copied(self, function: Function) -> Iterator[syntax.Node]:
        """The engines that are handed to what makes a new one like them."""
        for call in function.calls:
            if self.symbols.outside(call.node.func, function) in COPIERS:
                yield from call.node.args

    def _is_read(self, node: syntax.Node, function: Function) -> bool:
        """Whether only an address, or the like, is read of an object."""
        first = ""
        while isinstance(node, syntax.Attribute):
            first, node = node.attr, node.value
            if isinstance(self.symbols.resolve(node, function), Resource) and first in _READ:
                return True
        return False

    def _made_in(self, function: Function) -> Iterator[tuple[Resource, int]]:
        """The pools that a function opens into a variable of its module: opening binds them."""
        for name in sorted(function.shared & function.bindings.keys()):
            found = self.symbols.variable(function.module, name)
            if isinstance(found, Resource) and found.kind == "pool":
                yield found, function.bindings[name][0].lineno

    def _run_by(self, call: Call, callee: Symbol) -> Iterator[Function]:
        """What a call on a class or an object runs."""
        names: tuple[str, ...] = ()
        if isinstance(callee, Class):
            names, kind = ("__init__",), callee
            entered = call.node in call.function.entered.values()
            names = (*names, "__aenter__", "__enter__") if entered else names
        elif isinstance(callee, Instance):
            names, kind = ("__call__",), callee.kind
        for name in names:
            method = self.symbols.attribute(Instance(kind), name)
            if isinstance(method, Function):
                yield method

    def ended_in(self, function: Function) -> Iterator[Resource]:
        """The resources that a function itself disposes of or closes."""
        for call in function.calls:
            yield from self.ended_by(call.node.func, function)

    def ended_by(self, node: syntax.Node, function: Function) -> Iterator[Resource]:
        """The resource whose method that ends it an expression is."""
        if isinstance(node, syntax.Attribute) and node.attr in _ENDS:
            found = self.symbols.resolve(node.value, function)
            if isinstance(found, Resource) and _ends(found, node.attr):
                yield found.engine

    def _ending(self, function: Function) -> Iterator[syntax.Node]:
        """The nodes of what is only mentioned to be ended."""
        for call in function.calls:
            if any(self.ended_by(call.node.func, function)):
                yield call.node.func

    # up ------------------------------------------------------------------------------------

    def callers(self, function: Function) -> Iterator[Step]:
        """Who mentions a function, in the order of the files."""
        known = self._callers.get(function)
        if known is None:
            known = self._callers[function] = [*self._callers_of(function)]
        yield from known

    def _callers_of(self, function: Function) -> Iterator[Step]:
        names = {function.name, *self.symbols.project.other_names(function.name)}
        candidates = (each for name in sorted(names) for each in self._by_name.get(name, ()))
        for candidate in dict.fromkeys(candidates):
            if candidate is function:
                continue
            for node in _mentioned(candidate):
                if last_name(node) in names and self.symbols.resolve(node, candidate) is function:
                    yield candidate, node.lineno
                    break

    def calls_of(self, function: Function) -> Iterator[tuple[Function, Call]]:
        """The calls of a function, with who makes each; not where it is only handed over."""
        for caller, _ in self.callers(function):
            for call in caller.calls:
                if self.symbols.resolve(call.node.func, caller) is function:
                    yield caller, call

    def above(self, function: Function) -> list[Function]:
        """A function, and all from which it is come to through a few calls, the nearest first."""
        if function not in self._above:
            self._above[function] = [way[0][0] for way in self.up(function)]
        return self._above[function]

    def up(self, function: Function, limit: int = 6) -> Iterator[list[Step]]:
        """The chains of callers of a function, each from the outermost to it, shortest first."""
        waiting: deque[list[Step]] = deque([[(function, function.line)]])
        seen = {function}
        while waiting:
            chain = waiting.popleft()
            yield chain
            if len(chain) > limit:
                continue
            for caller, line in self.callers(chain[0][0]):
                if caller not in seen:
                    seen.add(caller)
                    waiting.append([(caller, line), *chain])


def _ends(resource: Resource, name: str) -> bool:
    """Whether a method ends a resource: a session's close() gives back, and ends nothing."""
    if resource.kind == "sessionmaker":
        return False
    return name == "dispose" if resource.kind == "engine" else True


def _mentioned(function: Function) -> Iterator[syntax.Node]:
    """All names that a function reads, also in its parameters' defaults and annotations."""
    yield from function.loads
    for default in function.defaults:
        yield from _names(default)
    for annotation in function.annotations.values():
        if isinstance(annotation, syntax.Subscript):
            yield from _names(annotation)


def _names(node: syntax.Node | None) -> Iterator[syntax.Node]:
    if node is None:
        return
    for each in syntax.walk(node):
        if isinstance(each, syntax.Call):
            yield from (a for a in each.args if isinstance(a, (syntax.Name, syntax.Attribute)))
