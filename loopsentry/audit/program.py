"""A project as the rules see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .entries import Entries
from .facts import Function, Module
from .findings import Link, Silence, Thing
from .names import MAKERS, SERVING
from .reach import Reach, Reached, Step
from .sources import Project
from .starts import Start, Starts
from .symbols import Resource, Symbols
from .syntax import plain


class Program:
    """Everything that was read, and what is asked about it.

    Attributes:
        project: the files.
        starts: the places that start a loop.
        begun: the starts, by the call that is one.
        decorated: asynchronous functions of which a decorator makes a start.
        silences: what the rules decided to say nothing about.
    """

    def __init__(
        self,
        project: Project,
        entry_points: tuple[str, ...] = (),
        starters: tuple[str, ...] = (),
    ) -> None:
        self.project = project
        self.symbols = Symbols(self.project)
        self.functions = project.functions
        self.starts = Starts(self.project, self.symbols, starters).find()
        self.begun = {start.call: start for start in self.starts}
        self.decorated = {
            start.function: start
            for start in self.starts
            if start.function.asynchronous and start.call.function is not start.function
        }
        self.reach = Reach(self.symbols, self.functions)
        self.entries = Entries(self.project, self.symbols, entry_points)
        self.silences: list[Silence] = []
        self._serving: dict[Start, bool] = {}
        self._served: Reached | None = None

    def kind(self, function: Function) -> str | None:
        """What calls a function from outside; of a decorated one, what calls its wrapper."""
        kind = self.entries.kind(function)
        if kind is None and function in self.decorated:
            kind = self.entries.kind(self.decorated[function].call.function)
        return kind

    def reached_by(self, start: Start) -> Reached:
        """What a start's coroutines come to use, its helpers' inner functions too."""
        inner = (f for helper in start.through for f in helper.inner.values())
        ways = (*start.targets, *(f for f in inner if isinstance(f, Function)))
        return self.reach.down(ways)

    def ended_by(self, start: Start) -> set[Resource]:
        """What a start's run does nothing with but dispose of it, or close it."""
        call = start.call.node
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        ended = {
            found
            for node in given
            for found in self.reach.ended_by(plain(node), start.call.function)
        }
        reached = self.reach.down(start.targets)
        return ended | (reached.ended - reached.uses.keys())

    def serves(self, start: Start) -> bool:
        """Whether it is a server that a start runs."""
        if start not in self._serving:
            below = self.reach.down(start.targets).parents
            calls = (call for function in below for call in function.calls)
            names = (self.symbols.outside(call.node.func, call.function) for call in calls)
            self._serving[start] = any(name in SERVING for name in names)
        return self._serving[start]

    def served(self) -> Mapping[Resource, Step]:
        """What request handlers use, and where."""
        return self._by_handlers().uses

    def way_of_handlers(self, resource: Resource) -> list[Step]:
        """How a request handler comes to use an object."""
        return self._by_handlers().chain_to(resource)

    def _by_handlers(self) -> Reached:
        if self._served is None:
            handlers = [f for f in self.functions if self.entries.kind(f) == "handler"]
            self._served = self.reach.down(handlers)
        return self._served

    def shared_objects(self) -> Iterator[Resource]:
        """All objects that bind to a loop and outlive a call, also those that no search met."""
        for name in sorted({maker.rpartition(".")[2] for maker in MAKERS}):
            for call in self.project.calls_of(name):
                for bound, values in call.function.bindings.items():
                    if call.function.parent is None and call.node in values:
                        self.symbols.variable(call.function.module, bound)
        yield from (each for each in self.symbols.resources() if each.shared)

    def imported_by(self, module: Module) -> set[Module]:
        """A module and all those of the project that importing it imports."""
        found, waiting = {module}, [module]
        while waiting:
            importer = waiting.pop()
            for name in importer.body.imports.values():
                for each in (name, name.rpartition(".")[0]):
                    home = self.project.find(each, importer) if each.strip(".") else None
                    if home is not None and home not in found:
                        found.add(home)
                        waiting.append(home)
        return found

    def say_nothing(self, start: Start, rule: str, reason: str) -> None:
        """Note why nothing is said about a start."""
        file = self.project.relative(start.function.module.path)
        self.silences.append(Silence(file, start.line, rule, reason))

    # words ---------------------------------------------------------------------------------

    def link(self, step: Step, note: str = "") -> Link:
        """One step, as it is reported."""
        function, line = step
        return Link(self.project.relative(function.module.path), line, function.name, note)

    def links(self, steps: Iterable[Step]) -> Iterator[Link]:
        """Several steps."""
        return (self.link(step) for step in steps)

    def chain(
        self, above: list[Step], start: Start, down: list[Step], note: str
    ) -> tuple[Link, ...]:
        """The way from an entry over a start to the use of an object."""
        links = [self.link(step) for step in above[:-1]]
        links.append(self.link(above[-1], "starts a loop"))
        links += [self.link(step) for step in down[:-1] if step[0] is not start.function]
        return (*links, self.link(down[-1], note))

    def thing(self, resource: Resource) -> Thing:
        """An object, as it is reported."""
        file = self.project.relative(resource.module.path)
        return Thing(resource.name, file, resource.line, resource.kind)
