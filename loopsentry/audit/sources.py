"""The files of a project, and which of them an import means."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .facts import Call, Class, Function, Module, read_module
from .reading import Progress, read_all
from .summaries import read_source
from .syntax import last_name

#: Folders that hold no source of the project's own.
SKIPPED = frozenset(
    {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "_build"}
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read, and why.

    Attributes:
        file: its path below the audited root.
        reason: what was wrong, in words.
        newer: whether it may be the syntax of a newer Python.
    """

    file: str
    reason: str
    newer: bool = False


@dataclass(slots=True)
class Project:
    """All that was read.

    Attributes:
        root: the audited folder.
        modules: its files.
        skipped: files that were not read.
    """

    root: Path
    modules: list[Module] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    _functions: list[Function] = field(default_factory=list)
    _classes: list[Class] = field(default_factory=list)
    _callers: dict[str, list[Function]] = field(default_factory=dict)
    _calls: dict[str, list[Call]] = field(default_factory=dict)
    _renamed: dict[str, set[str]] = field(default_factory=dict)
    _children: dict[str, set[str]] = field(default_factory=dict)
    _fixtures: dict[str, list[Function]] | None = None
    _suffixes: dict[tuple[str, ...], list[Module]] = field(default_factory=dict)

    @property
    def functions(self) -> list[Function]:
        """All functions of the project, the bodies of its modules too."""
        if not self._functions:
            self._functions = [each for module in self.modules for each in module.functions()]
        return self._functions

    @property
    def classes(self) -> list[Class]:
        """All classes of the project."""
        if not self._classes:
            inner = (each for function in self.functions for each in function.inner.values())
            self._classes = [each for each in inner if isinstance(each, Class)]
        return self._classes

    def calls_of(self, name: str) -> list[Call]:
        """The calls of whatever has a name, by the name's last part, or another name of it."""
        known = self._calls.get(name)
        if known is None:
            functions = self.callers_of(name)
            known = self._calls[name] = [c for f in functions for c in self.calls_in(f, name)]
        return known

    def calls_in(self, function: Function, name: str) -> list[Call]:
        """The calls of whatever has a name in one function."""
        names = self.other_names(name)
        return [call for call in function.calls if last_name(call.node.func) in names]

    def callers_of(self, name: str) -> list[Function]:
        """The functions that call whatever has a name; of `=name`, that give such a keyword."""
        if not self._callers:
            for function in self.functions:
                for each in function.called:
                    self._callers.setdefault(each, []).append(function)
        found = (f for each in sorted(self.other_names(name)) for f in self._callers.get(each, ()))
        return list(dict.fromkeys(found))

    def other_names(self, name: str) -> set[str]:
        """A name, and those that imports and assignments give to what has it."""
        if not self._renamed:
            self._renamed[""] = set()
            for function in self.functions:
                for new, old in function.renames:
                    self._renamed.setdefault(old, set()).add(new)
        return {name, *self._renamed.get(name, ())}

    def fixture(self, name: str, asking: Function) -> Function | None:
        """The fixture of pytest that a parameter means: of the file, or of a conftest above it."""
        if self._fixtures is None:
            self._fixtures = {}
            for function in self.functions:
                if "fixture" in function.decorators:
                    self._fixtures.setdefault(function.name, []).append(function)
        seen = [
            each
            for each in self._fixtures.get(name, ())
            if each is not asking and shares_fixtures(each.module, asking.module)
        ]
        nearest = [len(each.module.path.parts) + (each.module is asking.module) for each in seen]
        return seen[nearest.index(max(nearest))] if seen else None

    def subclasses(self, name: str) -> set[str]:
        """The names of the classes that name a class as their base, and of theirs."""
        if not self._children:
            for kind in self.classes:
                for base in kind.base_names:
                    self._children.setdefault(base, set()).add(kind.name)
        found, waiting = set[str](), [name]
        while waiting:
            fresh = self._children.get(waiting.pop(), set()) - found
            found |= fresh
            waiting += fresh
        return found

    def relative(self, path: Path) -> str:
        """A path as it is reported."""
        return path.relative_to(self.root).as_posix()

    def add(self, module: Module) -> None:
        """Take a file, under each end of its dotted name."""
        self.modules.append(module)
        for start in range(len(module.parts)):
            self._suffixes.setdefault(module.parts[start:], []).append(module)

    def find(self, name: str, importer: Module) -> Module | None:
        """The file that an import of a dotted name means, None if it is none of the project's."""
        if name.startswith("."):
            return self._relative(name, importer)
        parts = tuple(name.split("."))
        found = self._suffixes.get(parts, [])
        # A name of one part must not match deep in the tree: it would shadow the standard library.
        roots = [m for m in found if _is_root(m.parts[: -len(parts)], importer, self)]
        if len(parts) == 1 and parts[0] in sys.stdlib_module_names:
            roots = [
                m for m in roots if len(m.parts) == 1 and m.path.parent == importer.path.parent
            ]
        if roots:
            return max(roots, key=lambda module: len(_common(module.path, importer.path)))
        return found[0] if len(parts) > 1 and len(found) == 1 else None

    def _relative(self, name: str, importer: Module) -> Module | None:
        up = len(name) - len(name.lstrip("."))
        base = importer.parts if importer.package else importer.parts[:-1]
        base = base[: len(base) - up + 1]
        parts = (*base, *(part for part in name.lstrip(".").split(".") if part))
        found = self._suffixes.get(parts, [])
        return next((module for module in found if module.parts == parts), None)


def shares_fixtures(home: Module, asking: Module) -> bool:
    """Whether a file's fixtures are those of another: it is the same, or a conftest above it."""
    above = home.path.stem == "conftest" and home.path.parent in asking.path.parents
    return above or home is asking


def _is_root(prefix: tuple[str, ...], importer: Module, project: Project) -> bool:
    """Whether a folder can be on the importer's path: one above it, or a `src`, or the root."""
    if not prefix or prefix[-1] in ("src", "lib"):
        return True
    inside = importer.parts[: len(prefix)] == prefix
    return inside and not (project.root.joinpath(*prefix) / "__init__.py").exists()


def _common(one: Path, other: Path) -> tuple[str, ...]:
    both = zip(one.parts, other.parts, strict=False)
    return tuple(a for a, b in both if a == b)


def read_project(
    root: Path,
    paths: Iterable[Path],
    cache: Path | None = None,
    progress: Progress | None = None,
    instead: Mapping[Path, bytes] | None = None,
) -> Project:
    """Read all source files below some paths; nothing is imported or run."""
    project = Project(root)
    files = list(dict.fromkeys(_files(paths)))
    other = instead or {}
    outcomes = read_all([each for each in files if each not in other], cache, progress)
    outcomes.update({path: read_source(source) for path, source in other.items()})
    for path in files:
        relative = path.relative_to(root)
        blob, reason, newer = outcomes[path]
        if blob is None:
            project.skipped.append(Skipped(relative.as_posix(), reason, newer))
        else:
            parts = relative.with_suffix("").parts
            summary = marshal.loads(blob)  # noqa: S302 - written by us
            project.add(read_module(path, parts, len(project.modules), summary))
    return project


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(f for f in folders if f not in SKIPPED and not f.startswith("."))
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
