"""How an object comes to where it is used: as an argument, in a container, in an app's state."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .facts import Call, Class, Function, Module, dotted
from .names import CACHES, LOOPS
from .sources import Project

if TYPE_CHECKING:
    from .symbols import Holder, Symbol, Symbols

_LOCAL = ("", False)
#: With more callers than these, they hardly agree; and to ask each takes long.
_CALLERS = 200


class Flows:
    """Follows values where a name alone does not say what it means."""

    def __init__(self, project: Project, symbols: Symbols) -> None:
        self.project = project
        self.symbols = symbols
        self._shared: set[Class] | None = None
        self._states: dict[str, list[tuple[Function, ast.expr]]] | None = None
        self._given: dict[tuple[Function, str], Symbol] = {}

    # arguments -----------------------------------------------------------------------------

    def given_to(self, name: str, function: Function) -> Symbol:
        """What all callers outside of tests hand to a parameter, None if they differ."""
        key = (function, name)
        if key not in self._given:
            self._given[key] = None  # while a cycle is open
            self._given[key] = self._agreed(name, function)
        return self._given[key]

    def _agreed(self, name: str, function: Function) -> Symbol:
        found: dict[int, Symbol] = {}
        for argument, scope in self.arguments(name, function):
            if argument is None:
                continue
            value = self.symbols.value(argument, scope, _LOCAL)
            if self.symbols.is_object(value):
                found[id(self.symbols.identity(value))] = value
        return next(iter(found.values())) if len(found) == 1 else None

    def arguments(
        self, name: str, function: Function
    ) -> Iterator[tuple[ast.expr | None, Function]]:
        """What each call outside of tests hands to a parameter, None where it hands nothing."""
        for call in self._calls_of(function):
            yield argument_of(call.node, name, function), call.function

    def _calls_of(self, function: Function) -> Iterator[Call]:
        init = function.name == "__init__" and function.owner is not None
        names = self._names_of(function.owner) if init and function.owner else {function.name}
        calls = [call for name in sorted(names) for call in self.project.calls_of(name)]
        if len(calls) > _CALLERS:
            return
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

    def element(self, container: ast.expr, scope: Function) -> Symbol:
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
        return self._first(values, home, _LOCAL)

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
        self, values: Iterable[tuple[ast.expr, ast.expr]], scope: Function, holder: Holder
    ) -> Symbol:
        """What is kept under the first key that does not stand for a loop or a thread."""
        for key, value in values:
            if not self._is_of_loop(key, scope):
                found = self.symbols.value(value, scope, holder)
                if found is not None and not self.symbols.is_primitive(found):
                    return found
        return None

    def _is_of_loop(self, key: ast.expr, scope: Function) -> bool:
        for node in ast.walk(key):
            if isinstance(node, (ast.Name, ast.Attribute, ast.Call)):
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
                if not function.module.is_test:
                    for key, values in function.kept.items():
                        self._states.setdefault(key, []).extend((function, v) for v in values)
        stored = self._states.get(name, ())
        found = (self.symbols.value(node, function, (name, True)) for function, node in stored)
        return next((each for each in found if each is not None), None)

    # what is shared ------------------------------------------------------------------------

    def is_shared(self, kind: Class) -> bool:
        """Whether an object of a class outlives a call: a module, a class, a cache keeps it."""
        if self._shared is None:
            self._shared = set()  # while a cycle is open
            self._shared = set(self._kept_classes())
        return kind in self._shared

    def _kept_classes(self) -> Iterator[Class]:
        waiting = [kind for kind in self._held() if kind is not None]
        seen = set[Class]()
        while waiting:
            kind = waiting.pop()
            if kind in seen:
                continue
            seen.add(kind)
            yield kind
            for values in kind.attributes.values():
                made = (self.symbols.kind_of(value, method) for method, value in values)
                waiting += [each for each in made if each is not None]

    def _held(self) -> Iterator[Class | None]:
        """The classes of objects that modules, class bodies and cached functions make."""
        for function in self.project.functions:
            body = function.module.body
            if function is body:
                names: Iterable[str] = function.bindings
            else:
                names = function.shared & function.bindings.keys()
            for name in names:
                yield from (self.symbols.kind_of(v, function) for v in function.bindings[name])
            if self.is_cached(function):
                yield from (self.symbols.kind_of(v, function) for v in function.returned)
            if function.owner is not None and function.name == "__new__":
                yield function.owner if _keeps_one(function) else None
        for kind in self.project.classes:
            for values in kind.bindings.values():
                yield from (self.symbols.kind_of(value, kind.body) for value in values)

    def is_cached(self, function: Function) -> bool:
        """Whether a decorator keeps what a function returns."""
        return any(
            self.symbols.outside(each, function.module.body) in CACHES
            for each in function.decorators
        )


def _keeps_one(method: Function) -> bool:
    """Whether a `__new__` keeps the object that it makes in its class."""
    assigned = (n for n in ast.walk(method.node) if isinstance(n, ast.Assign))
    return any(isinstance(t, ast.Attribute) for node in assigned for t in node.targets)


def _stored(function: Function, name: str) -> list[tuple[ast.expr, ast.expr]]:
    return [(key, value) for key, value, _ in function.elements.get(name, ())]


def _written(values: Iterable[ast.expr]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The keys and values of dictionaries that are written out."""
    for each in values:
        if isinstance(each, ast.Dict):
            pairs = zip(each.keys, each.values, strict=True)
            yield from ((key, value) for key, value in pairs if key is not None)
        elif isinstance(each, ast.DictComp):
            yield each.key, each.value


def argument_of(call: ast.Call, name: str, function: Function) -> ast.expr | None:
    """What a call hands to a parameter of a function; None if that is not to be seen."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    names = [parameter.arg for parameter in function.parameters]
    bound = function.owner is not None and "staticmethod" not in map(dotted, function.decorators)
    place = names.index(name) - (1 if bound else 0)
    starred = any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1])
    return None if starred or not 0 <= place < len(call.args) else call.args[place]
