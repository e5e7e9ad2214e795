"""How an object comes to where it is used: as an argument, in a container, in an app's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from . import syntax
from .facts import Call, Class, Function, Module
from .names import CACHES, LOOPS, SINGLETONS
from .sources import Project
from .syntax import dotted, plain

if TYPE_CHECKING:
    from .symbols import Holder, Symbol, Symbols

_CACHE_NAMES = frozenset(name.rpartition(".")[2] for name in CACHES)
_PROVIDERS = frozenset(name.rpartition(".")[2] for name in SINGLETONS)
#: With more callers than these, they hardly agree; and to ask each takes long.
_CALLERS = 50


class Flows:
    """Follows values where a name alone does not say what it means."""

    def __init__(self, project: Project, symbols: Symbols) -> None:
        self.project = project
        self.symbols = symbols
        self._shared: dict[Class, bool] = {}
        self._states: dict[str, list[tuple[Function, syntax.Node]]] | None = None
        self._given: dict[tuple[Function, str], Symbol] = {}

    # arguments -----------------------------------------------------------------------------

    def given_to(self, name: str, function: Function) -> Symbol:
        """What all callers outside of tests hand to a parameter, None if they differ."""
        key = (function, name)
        if key not in self._given:
            self._given[key] = None  # while a cycle is open
            fixture = self.project.fixture(name, function) if function.module.is_test else None
            self._given[key] = (
                self._agreed(name, function)
                if fixture is None
                else self.symbols.first(fixture.returned, fixture)
            )
        return self._given[key]

    def _agreed(self, name: str, function: Function) -> Symbol:
        found: dict[int, Symbol] = {}
        for argument, scope in self.arguments(name, function):
            if argument is None:
                continue
            value = self.symbols.value(argument, scope)
            if self.symbols.is_object(value):
                found[id(self.symbols.identity(value))] = value
        return next(iter(found.values())) if len(found) == 1 else None

    def arguments(
        self, name: str, function: Function
    ) -> Iterator[tuple[syntax.Node | None, Function]]:
        """What each call outside of tests hands to a parameter, None where it hands nothing."""
        for call in self._calls_of(function):
            yield argument_of(call.node, name, function), call.function

    def _calls_of(self, function: Function) -> Iterator[Call]:
        init = function.name == "__init__" and function.owner is not None
        names = self._names_of(function.owner) if init and function.owner else {function.name}
        if sum(len(self.project.callers_of(name)) for name in names) > _CALLERS:
            return
        calls = [call for name in sorted(names) for call in self.project.calls_of(name)]
        for call in calls:
            if call.function.module.is_test:
                continue
            callee = self.symbols.resolve(call.node.func, call.function)
            if init and isinstance(callee, Class):
                callee = self.symbols.attribute(callee, "__init__")
            if callee is function:
                yield call

    def _names_of(self, kind: Class) -> set[str]:
        """A class's name, and those of the classes that come of it by name."""
        return {kind.name, "cls", *self.project.subclasses(kind.name)}

    # containers ----------------------------------------------------------------------------

    def element(self, container: syntax.Node, scope: Function) -> Symbol:
        """What is kept in a dictionary, or a list, that an expression names."""
        name = dotted(container)
        if name is None:
            return None
        head, _, rest = name.partition(".")
        if rest and scope.owner is not None and head in ("self", "cls"):
            return self._of_attribute(scope.owner, rest)
        home: Function | None = scope
        while home is not None and head not in home.bindings and head not in home.imports:
            home = home.parent
        if home is None:
            return None
        if head in home.imports:
            found = self.symbols.module_of(home.imports[head], home.module)
            return self._of_variable(*found) if found is not None and not rest else None
        if home.parent is None and not rest:
            return self._of_variable(home.module, head)
        values = [*_stored(home, name), *_written(home.bindings.get(name, ()))]
        return self._first(values, home, ("", False))

    def _of_variable(self, module: Module, name: str) -> Symbol:
        holder = (name, True)
        found = self._first(_written(module.body.bindings.get(name, ())), module.body, holder)
        stores = ((f, _stored(f, name)) for f in module.functions())
        return found or next(
            (value for f, each in stores if (value := self._first(each, f, holder)) is not None),
            None,
        )

    def _of_attribute(self, owner: Class, name: str) -> Symbol:
        for kind in self.symbols.lineage(owner):
            holder = (name, name in kind.bindings or self.is_shared(kind))
            for method in kind.methods.values():
                for head in ("self", "cls", kind.name):
                    stored = _stored(method, f"{head}.{name}")
                    found = self._first(stored, method, holder)
                    if found is not None:
                        return found
            for function, value in kind.attributes.get(name, ()):
                found = self._first(_written([value]), function, holder)
                if found is not None:
                    return found
        return None

    def _first(
        self, values: Iterable[tuple[syntax.Node, syntax.Node]], scope: Function, holder: Holder
    ) -> Symbol:
        """What is kept under the first key that does not stand for a loop or a thread."""
        for key, value in values:
            if not self._is_of_loop(key, scope):
                found = self.symbols.value(value, scope, holder)
                if found is not None and not self.symbols.is_primitive(found):
                    return found
        return None

    def _is_of_loop(self, key: syntax.Node, scope: Function) -> bool:
        for node in syntax.walk(key):
            if isinstance(node, (syntax.Name, syntax.Attribute, syntax.Call)):
                name = self.symbols.outside(node, scope)
                if name in LOOPS or name in ("threading.get_ident()", "threading.get_native_id()"):
                    return True
        return False

    # states --------------------------------------------------------------------------------

    def of_state(self, name: str) -> Symbol:
        """What the project stores under a name in an application's state."""
        if self._states is None:
            self._states = {}
            for function in self.project.functions:
                if function.keeps and not function.module.is_test:
                    for key, values in function.kept.items():
                        self._states.setdefault(key, []).extend((function, v) for v in values)
        stored = self._states.get(name, ())
        found = (self.symbols.value(node, function, (name, True)) for function, node in stored)
        return next((each for each in found if each is not None), None)

    # what is shared ------------------------------------------------------------------------

    def is_shared(self, kind: Class) -> bool:
        """Whether an object of a class outlives a call: a module, a class, a cache keeps it."""
        if kind not in self._shared:
            self._shared[kind] = False  # while a cycle is open
            singleton = any(f.name == "__new__" for v in kind.attributes.values() for f, _ in v)
            made = (call for call in self.project.calls_of(kind.name) if self._makes(call, kind))
            self._shared[kind] = (
                singleton or any(map(self._is_kept, made)) or self._is_provided(kind)
            )
        return self._shared[kind]

    def _makes(self, call: Call, kind: Class) -> bool:
        return self.symbols.resolve(call.node.func, call.function) is kind

    def _is_provided(self, kind: Class) -> bool:
        """Whether a container provides one object of a class for all: `Singleton(Kind)`."""
        calls = (call for name in sorted(_PROVIDERS) for call in self.project.calls_of(name))
        return any(
            call.node.args
            and self.symbols.outside(call.node.func, call.function) in SINGLETONS
            and self.symbols.resolve(call.node.args[0], call.function) is kind
            for call in calls
        )

    def _is_kept(self, call: Call, deep: int = 3) -> bool:
        """Whether what a call makes is kept by a module, a class, a cache or a shared object."""
        function, node = call.function, call.node
        if function.module.is_test:
            return False
        names = [name for name, values in function.bindings.items() if _has(values, node)]
        of_module = function.parent is None
        if any(of_module or name in function.shared for name in names):
            return True
        if self._is_in_class(function, node):
            return True
        owner = function.owner
        if owner is not None and self._keeps_it(owner, function, node):
            return self.is_shared(owner) or is_of_class(function)
        given = _has(function.returned, node) or any(
            isinstance(each, syntax.Name) and each.id in names for each in function.returned
        )
        if not given:
            return False
        return self.is_cached(function) or (
            deep > 0 and any(self._is_kept(each, deep - 1) for each in self._calls_of(function))
        )

    def _is_in_class(self, function: Function, node: syntax.Node) -> bool:
        """Whether a call stands in the body of a class, in an assignment."""
        kinds = (each for each in function.inner.values() if isinstance(each, Class))
        return any(_has(v, node) for kind in kinds for v in kind.bindings.values())

    def _keeps_it(self, owner: Class, method: Function, node: syntax.Node) -> bool:
        stored = (pair for pairs in owner.attributes.values() for pair in pairs)
        return any(function is method and _has([value], node) for function, value in stored)

    def is_cached(self, function: Function) -> bool:
        """Whether a decorator keeps what a function returns."""
        if not _CACHE_NAMES & set(function.decorators):
            return False
        return any(
            self.symbols.outside(plain(each), function.module.body) in CACHES
            for each in function.decorations
        )


def _has(values: list[syntax.Node], node: syntax.Node) -> bool:
    """Whether some expressions are, or contain, another."""
    # What an expression consists of begins where it begins, or after it.
    near = (value for value in values if value.lineno <= node.lineno)
    return any(each is node for value in near for each in syntax.walk(value))


def is_of_class(function: Function) -> bool:
    """Whether a method has its class, and no object: what it assigns, the class keeps."""
    return bool({"classmethod", "staticmethod"} & set(function.decorators))


def _stored(function: Function, name: str) -> list[tuple[syntax.Node, syntax.Node]]:
    return [(key, value) for key, value, _ in function.elements.get(name, ())]


def _written(values: Iterable[syntax.Node]) -> Iterator[tuple[syntax.Node, syntax.Node]]:
    """The keys and values of dictionaries that are written out."""
    for each in values:
        if isinstance(each, syntax.Dict):
            pairs = zip(each.keys, each.values, strict=True)
            yield from ((key, value) for key, value in pairs if key is not None)
        elif isinstance(each, syntax.DictComp):
            yield each.key, each.value


def argument_of(call: syntax.Call, name: str, function: Function) -> syntax.Node | None:
    """What a call hands to a parameter of a function; None if that is not to be seen."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    bound = function.owner is not None and "staticmethod" not in function.decorators
    place = function.parameters.index(name) - (1 if bound else 0)
    starred = any(isinstance(argument, syntax.Starred) for argument in call.args[: place + 1])
    return None if starred or not 0 <= place < len(call.args) else call.args[place]
