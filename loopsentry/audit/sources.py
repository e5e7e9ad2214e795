"""The files of a project, and which of them an import means."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .facts import Call, Class, Function, Module, last_name, read_module

#: Folders that hold no source of the project's own.
SKIPPED = frozenset(
    {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "_build"}
)
LARGEST = 4_000_000


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
    _calls: dict[str, list[Call]] = field(default_factory=dict)
    _children: dict[str, set[str]] = field(default_factory=dict)
    _suffixes: dict[tuple[str, ...], list[Module]] = field(default_factory=dict)

    @property
    def functions(self) -> list[Function]:
        """All functions of the project, the bodies of its modules too."""
        if not self._functions:
            self._functions = [each for module in self.modules for each in module.functions()]
        return self._functions

    @property
    def classes(self) -> Iterator[Class]:
        """All classes of the project."""
        for function in self.functions:
            yield from (each for each in function.inner.values() if isinstance(each, Class))

    def calls_of(self, name: str) -> list[Call]:
        """The calls of whatever has a name, by the name's last part."""
        if not self._calls:
            for function in self.functions:
                for call in function.calls:
                    self._calls.setdefault(last_name(call.node.func), []).append(call)
        return self._calls.get(name, [])

    def subclasses(self, name: str) -> set[str]:
        """The names of the classes that name a class as their base, and of theirs."""
        if not self._children:
            for kind in self.classes:
                for base in map(last_name, kind.node.bases):
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


def _is_root(prefix: tuple[str, ...], importer: Module, project: Project) -> bool:
    """Whether a folder can be on the importer's path: one above it, or a `src`, or the root."""
    if not prefix or prefix[-1] in ("src", "lib"):
        return True
    inside = importer.parts[: len(prefix)] == prefix
    return inside and not (project.root.joinpath(*prefix) / "__init__.py").exists()


def _common(one: Path, other: Path) -> tuple[str, ...]:
    both = zip(one.parts, other.parts, strict=False)
    return tuple(a for a, b in both if a == b)


def read_project(root: Path, paths: Iterable[Path]) -> Project:
    """Read all source files below some paths; nothing is imported or run."""
    project = Project(root)
    for path in _files(paths):
        relative = path.relative_to(root)
        try:
            with warnings.catch_warnings(action="ignore"):
                module = read_module(path, relative.with_suffix("").parts, _read(path))
        except SyntaxError as exc:
            reason = f"line {exc.lineno}: {exc.msg}"
            project.skipped.append(Skipped(relative.as_posix(), reason, newer=True))
        except (OSError, ValueError, RecursionError) as exc:
            words = str(exc) or type(exc).__name__
            project.skipped.append(Skipped(relative.as_posix(), words))
        else:
            project.add(module)
    return project


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    return path.read_bytes()


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
