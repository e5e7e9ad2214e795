"""What a name means, as far as a search needs it: resolved when it is asked for, and remembered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from . import syntax
from .facts import Class, Function, Module
from .flows import Flows, is_of_class
from .names import FACTORIES, KEPT, MAKERS, RUNNERS, SINGLETONS, WRAPPERS
from .pools import is_pooled, is_pooled_by, is_tolerant
from .sources import Project
from .syntax import dotted, is_state, last_name


@dataclass(frozen=True, slots=True)
class Outside:
    """Something of another package, by its dotted name after imports are resolved."""

    name: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of one of the project's classes."""

    kind: Class


@dataclass(slots=True, eq=False)
class Resource:
    """An object that binds to an event loop: an engine, a session factory, a pool, a client.

    Attributes:
        kind: "engine", "sessionmaker", "pool", "client" or "primitive".
        name: the variable or attribute that holds it.
        module: where it is made.
        line: where it is made.
        shared: whether it outlives a call: it is a module's, a class's, or a cached function's.
        pooled: False if it keeps no connection between uses (`NullPool`), None if that depends.
        source: the engine behind a session factory.
        tolerant: whether its driver's connections survive a change of loop between uses.
        late: whether a function makes it, perhaps on the loop that uses it, and not an import.
        maker: the function, or module's body, that makes it.
        origin: what this is a copy of, for one call of the function that makes it.
        made_by: the outside name of what makes it, "asyncio.Lock".
    """

    kind: str
    name: str
    module: Module
    line: int
    shared: bool
    pooled: bool | None = True
    source: Resource | None = None
    tolerant: bool = False
    late: bool = False
    maker: Function | None = None
    made_by: str = ""
    origin: Resource | None = None

    @property
    def engine(self) -> Resource:
        """What has the connections."""
        return self.source if self.source is not None else self


Symbol = Outside | Instance | Resource | Function | Class | Module | None

#: Who holds a value that is being worked out: its name, and whether it outlives a call.
Holder = tuple[str, bool]
_LOCAL: Holder = ("", False)
_LOOKUPS = frozenset({"get", "setdefault"})


class Symbols:
    """Resolves names in one project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._known: dict[tuple[object, ...], Symbol] = {}
        self._resources: dict[int, Resource] = {}
        self._copies: dict[tuple[int, int], Resource] = {}
        self._made_up: list[syntax.Call] = []
        self.flows = Flows(project, self)
        self._fillers: dict[Module, dict[str, list[Function]]] = {}

    def resources(self) -> Iterator[Resource]:
        """All objects that bind to a loop, as far as a search met them."""
        return iter(self._resources.values())

    # names ---------------------------------------------------------------------------------

    def resolve(self, node: syntax.Node, scope: Function) -> Symbol:
        """What an expression is."""
        key = ("resolve", id(node), id(scope))
        if key not in self._known:
            self._known[key] = None  # while a cycle is open
            self._known[key] = self._resolve(node, scope)
        return self._known[key]

    def _resolve(self, node: syntax.Node, scope: Function) -> Symbol:
        match node:
            case syntax.Name():
                return self.name(node.id, scope)
            case syntax.Attribute():
                state = self.flows.of_state(node.attr) if is_state(node) else None
                return state or self.attribute(self.resolve(node.value, scope), node.attr)
            case _:
                return self.value(node, scope)

    def make_call(
        self, func: syntax.Node, args: list[syntax.Node], place: syntax.Node
    ) -> syntax.Call:
        """A call that the source does not spell out, kept as long as what is known of it."""
        keywords = place.keywords if isinstance(place, syntax.Call) else []
        made = syntax.Call(place.lineno, func, args, keywords)
        self._made_up.append(made)
        return made

    def outside(self, node: syntax.Node, scope: Function) -> str:
        """The dotted name of what an expression is of another package, "" for anything else."""
        found = self.resolve(node, scope)
        return found.name if isinstance(found, Outside) else ""

    def kind_of(self, node: syntax.Node, scope: Function) -> Class | None:
        """The class of the object that an expression makes."""
        found = self.value(node, scope)
        return found.kind if isinstance(found, Instance) else None

    def class_of(self, symbol: Symbol) -> Class | None:
        """The class that something is, or is an object of."""
        if isinstance(symbol, Instance):
            return symbol.kind
        return symbol if isinstance(symbol, Class) else None

    def is_object(self, symbol: Symbol) -> bool:
        """Whether it is worth following: an object that binds to a loop, or may hold one."""
        return isinstance(symbol, (Resource, Instance, Function))

    def is_primitive(self, symbol: Symbol) -> bool:
        """Whether it is a lock, a queue or the like."""
        return isinstance(symbol, Resource) and symbol.kind == "primitive"

    def identity(self, symbol: Symbol) -> object:
        """What makes two of them the same: an engine, a class, a function."""
        if isinstance(symbol, Resource):
            return symbol.engine
        return symbol.kind if isinstance(symbol, Instance) else symbol

    def name(self, name: str, scope: Function) -> Symbol:
        """What a name means in a function."""
        around: Function | None = scope
        while around is not None:
            found = self._own(name, around)
            if found is not _UNKNOWN:
                return found
            around = around.parent
        return None

    def _own(self, name: str, scope: Function) -> Symbol:  # noqa: PLR0911 - one for each way
        if name in scope.inner:
            return scope.inner[name]
        if name in scope.imports:
            return self._imported(scope.imports[name], scope.module)
        if scope.parent is None:
            if name not in scope.bindings and not self._is_filled(name, scope.module):
                return self._starred(name, scope) or self._builtin(name)
            return self.variable(scope.module, name)
        if name in scope.shared:
            return _UNKNOWN
        if name in scope.parameters:
            return self._parameter(name, scope)
        if name in scope.entered:
            return self.entered(scope.entered[name], scope)
        if name in scope.bindings:
            holder = (name, scope.is_class)
            return self.first(scope.bindings[name], scope, holder)
        return _UNKNOWN

    def _starred(self, name: str, body: Function) -> Symbol:
        """What a module has of another by `from other import *`, the last import first."""
        key = ("star", id(body), name)
        if key not in self._known:
            self._known[key] = None  # while a cycle is open
            homes = (self.project.find(each, body.module) for each in reversed(body.stars))
            found = (self._of_module(home, name) for home in homes if home is not None)
            hidden = name.startswith("_")
            self._known[key] = None if hidden else next((f for f in found if f is not None), None)
        return self._known[key]

    def _builtin(self, name: str) -> Symbol:
        return Outside(name) if name in _BUILTINS else None

    def _parameter(self, name: str, scope: Function) -> Symbol:
        if scope.owner is not None and scope.parameters[0] == name and not _is_static(scope):
            return scope.owner if name == "cls" else Instance(scope.owner)
        annotation = scope.annotations.get(name)
        if annotation is not None:
            typed, home = self.annotated(annotation, scope)
            if isinstance(typed, syntax.Subscript):
                typed = typed.value
            if last_name(typed) in _PLAIN_TYPES:
                return None
            kind = self.resolve(typed, home)
            if isinstance(kind, Class):
                return Instance(kind)
        return self.flows.given_to(name, scope)

    def annotated(self, node: syntax.Node, scope: Function) -> tuple[syntax.Node, Function]:
        """The type that an annotation comes to, and where that is to be understood."""
        plain, body = _plain(node), scope.module.body
        if not isinstance(plain, syntax.Name):
            return plain, body
        home, name = body, plain.id
        if name in body.imports:
            found = self.module_of(body.imports[name], body.module)
            home, name = (found[0].body, found[1]) if found is not None else (body, name)
        values = home.bindings.get(name, [])
        alias = values[0] if len(values) == 1 else None
        if isinstance(alias, (syntax.Subscript, syntax.BinOp)):
            return _plain(alias), home
        return plain, body

    def module_of(self, name: str, importer: Module) -> tuple[Module, str] | None:
        """The module of the project of which an import takes a variable, and the variable."""
        base, _, last = name.rpartition(".")
        if name.startswith(".") and not base.strip("."):
            base = name[: len(name) - len(name.lstrip("."))]
        home = self.project.find(base, importer) if base else None
        return (home, last) if home is not None else None

    def _imported(self, name: str, importer: Module) -> Symbol:
        module = self.project.find(name, importer)
        if module is not None:
            return module
        found = self.module_of(name, importer)
        if found is not None and found[0] is not importer:
            return self.attribute(*found)
        return None if name.startswith(".") else Outside(name)

    def _is_filled(self, name: str, module: Module) -> bool:
        return name in self._fillers_of(module)

    def _fillers_of(self, module: Module) -> dict[str, list[Function]]:
        """The functions that declare a name of the module's as theirs to set, by the name."""
        known = self._fillers.get(module)
        if known is None:
            known = self._fillers[module] = {}
            for function in module.functions():
                for name in function.shared:
                    known.setdefault(name, []).append(function)
        return known

    def variable(self, module: Module, name: str) -> Symbol:
        """What a module's variable holds, also where a function fills it later."""
        key = ("variable", id(module), name)
        if key in self._known:
            return self._known[key]
        self._known[key] = None
        holder = (name, True)
        found = self.first(module.body.bindings.get(name, ()), module.body, holder)
        if found is None:
            fillers = self._fillers_of(module).get(name, ())
            values = (self.first(f.bindings.get(name, ()), f, holder) for f in fillers)
            found = next((value for value in values if value is not None), None)
        self._known[key] = found
        return found

    def attribute(self, symbol: Symbol, name: str) -> Symbol:  # noqa: PLR0911 - one for each kind
        """What an attribute of something is."""
        match symbol:
            case Outside():
                return Outside(f"{symbol.name}.{name}")
            case Resource():
                return symbol
            case Module():
                return self._of_module(symbol, name)
            case Class():
                return self._of_class(symbol, name)
            case Instance():
                found = self._of_class(symbol.kind, name)
                if isinstance(found, Function) and _is_property(found):
                    kept = "cached_property" in found.decorators
                    holder = (name, kept and self.flows.is_shared(symbol.kind))
                    return self.first(found.returned, found, holder)
                return found
            case _:
                return None

    def _of_module(self, module: Module, name: str) -> Symbol:
        found = self._own(name, module.body)
        if found is not None and found is not _UNKNOWN:
            return found
        if module.package:
            return self.project.find(".".join((*module.parts, name)), module)
        return None

    def _of_class(self, kind: Class, name: str) -> Symbol:
        for each in self.lineage(kind):
            if name in each.methods:
                return each.methods[name]
            found = self.first(each.bindings.get(name, ()), each.body, (name, True))
            if found is not None:
                return found
            if name in each.attributes:
                kept = self.flows.is_shared(kind)
                stored = each.attributes[name]
                values = (self.value(v, m, (name, kept or is_of_class(m))) for m, v in stored)
                found = next((value for value in values if value is not None), None)
                if found is not None:
                    return found
        return None

    def lineage(self, kind: Class) -> Iterator[Class]:
        """A class and those of the project that it comes of."""
        waiting, seen = [kind], set[Class]()
        while waiting:
            each = waiting.pop(0)
            if each in seen:
                continue
            seen.add(each)
            yield each
            for base in each.bases:
                found = self.resolve(base, each.scope)
                if isinstance(found, Class):
                    waiting.append(found)

    # values --------------------------------------------------------------------------------

    def first(
        self, values: Iterable[syntax.Node], scope: Function, holder: Holder = _LOCAL
    ) -> Symbol:
        """What the first of some expressions comes to that comes to anything."""
        for value in values:
            found = self.value(value, scope, holder)
            if found is not None:
                return found
        return None

    def value(self, node: syntax.Node, scope: Function, holder: Holder = _LOCAL) -> Symbol:
        """What an expression comes to, for whoever holds the result."""
        key = ("value", id(node), id(scope), holder)
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._value(node, scope, holder)
        return self._known[key]

    def _value(self, node: syntax.Node, scope: Function, holder: Holder) -> Symbol:
        match node:
            case syntax.Call():
                return self._called(node, scope, holder)
            case syntax.Await() | syntax.Starred() | syntax.NamedExpr():
                return self.value(node.value, scope, holder)
            case syntax.IfExp() | syntax.BoolOp():
                arms = node.values if isinstance(node, syntax.BoolOp) else (node.body, node.orelse)
                return self.first(arms, scope, holder)
            case syntax.Name() | syntax.Attribute():
                return self.resolve(node, scope)
            case syntax.Subscript():
                return self.flows.element(node.value, scope)
            case _:
                return None

    def _called(  # noqa: PLR0911 - one for each kind
        self, node: syntax.Call, scope: Function, holder: Holder
    ) -> Symbol:
        callee = self.resolve(node.func, scope)
        match callee:
            case Outside():
                return self._made(node, callee.name, scope, holder)
            case Class():
                return Instance(callee)
            case Resource():
                return callee
            case Function():
                cached = self.flows.is_cached(callee)
                keeper = (callee.name, True) if cached else holder
                found = self.first(callee.returned, callee, keeper)
                anew = not cached and isinstance(found, Resource) and found.maker is callee
                if not anew or _gives_kept(callee):
                    return found
                return self._copy(found, node, scope, holder)  # type: ignore[arg-type]
            case _ if isinstance(node.func, syntax.Attribute) and node.func.attr in _LOOKUPS:
                return self.flows.element(node.func.value, scope)
            case _:
                return None

    def _made(self, node: syntax.Call, name: str, scope: Function, holder: Holder) -> Symbol:
        if name in FACTORIES:
            return self._factory(node, scope, holder)
        if node.args and (name in RUNNERS or name in KEPT or name in WRAPPERS):
            return self.value(node.args[0], scope, holder)
        if node.args and name in SINGLETONS:
            provided = self.make_call(node.args[0], node.args[1:], node)
            return self.value(provided, scope, holder)
        kind = MAKERS.get(name)
        if kind is None:
            return Outside(f"{name}()")
        made = self._resources.get(id(node))
        if made is None:
            made = Resource(kind, holder[0], scope.module, node.lineno, holder[1])
            made.pooled = is_pooled(self, node, scope)
            made.tolerant = is_tolerant(self, node, scope)
            made.made_by = name
            made.maker = scope
            made.late = scope.parent is not None and scope.name != "__init__"
            self._resources[id(node)] = made
        if holder[1] and not made.shared:
            made.shared, made.name = True, holder[0]
        return made

    def _copy(self, made: Resource, call: syntax.Call, scope: Function, holder: Holder) -> Resource:
        """What one call of a function that makes a new object makes: another for each call."""
        key = (id(made), id(call))
        if key not in self._copies:
            copied = self._copies[key] = replace(made, name=holder[0], shared=holder[1])
            copied.origin = made
            source = made.source
            if source is not None and source.maker is made.maker:
                copied.source = self._copy(source, call, scope, holder)
            if made.pooled is None:
                copied.pooled = is_pooled_by(self, made, call, scope)
        copied = self._copies[key]
        if holder[1] and not copied.shared:
            copied.shared, copied.name = True, holder[0]
        return copied

    def _factory(self, node: syntax.Call, scope: Function, holder: Holder) -> Symbol:
        given = [*node.args[:1], *(k.value for k in node.keywords if k.arg in ("bind", "engine"))]
        # An engine that is made right here lives as long as the factory that has it.
        source = self.first(given, scope, holder)
        if not isinstance(source, Resource):
            return None
        made = self._resources.get(id(node))
        if made is None:
            engine = source.engine
            made = Resource("sessionmaker", holder[0], scope.module, node.lineno, engine.shared)
            made.source = engine
            made.maker = scope
            self._resources[id(node)] = made
        return made

    def entered(self, node: syntax.Node, scope: Function) -> Symbol:
        """What `with node as name` binds the name to."""
        found = self.value(node, scope)
        if isinstance(found, Instance):
            for name in ("__aenter__", "__enter__"):
                method = self._of_class(found.kind, name)
                if isinstance(method, Function):
                    return self.first(method.returned, method)
        return found


#: A name that a function does not know: the function around it may.
_UNKNOWN = Outside("?")


def _gives_kept(function: Function) -> bool:
    """Whether a function returns what a variable of its module, or an attribute, keeps."""
    names = (dotted(each) for each in function.returned)
    return any(name is not None and ("." in name or name in function.shared) for name in names)


#: Types of values that are not followed.
_PLAIN_TYPES = frozenset(
    {
        *("str", "int", "bool", "float", "bytes", "dict", "list", "tuple", "set", "frozenset"),
        *("Dict", "List", "Tuple", "Set", "Sequence", "Mapping", "Iterable", "Literal", "datetime"),
        *("UUID", "Path", "Decimal", "timedelta", "Request", "Response", "BaseModel", "Exception"),
    }
)
_BUILTINS = frozenset({"len", "list", "print", "range", "super", "getattr", "hasattr", "type"})


def _plain(annotation: syntax.Node) -> syntax.Node:
    """A type without `Optional`, `Annotated` and `| None`."""
    while True:
        match annotation:
            case syntax.BinOp(op="BitOr"):
                annotation = annotation.left
            case syntax.Subscript(value=syntax.Name(id="Optional" | "Annotated" | "Final")):
                inner = annotation.slice
                annotation = inner.elts[0] if isinstance(inner, syntax.Tuple) else inner
            case _:
                return annotation


def _is_static(function: Function) -> bool:
    return "staticmethod" in function.decorators


def _is_property(function: Function) -> bool:
    return bool({"property", "cached_property"} & set(function.decorators))
