"""Finds what stands on the shelves; the only file that looks inside their folders."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

from . import _frames, _sockets
from .diagnosis import Cause, Example, Remedy

_BLOCK = re.compile(
    r"^## (Broken|Fixed)(?:: ([a-z-]+))?\n.*?```python\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Shelves:
    """Everything on the shelves.

    Attributes:
        probes: the watched libraries.
        causes: the root causes, by code.
        contexts: where loops come from.
        hooks: where exceptions surface.
        sinks: where diagnoses go.
        fixes: the cures.
    """

    probes: tuple[ModuleType, ...]
    causes: tuple[Cause, ...]
    contexts: tuple[Any, ...]
    hooks: tuple[ModuleType, ...]
    sinks: tuple[ModuleType, ...]
    fixes: tuple[Remedy, ...]


def load(shelf: str) -> tuple[ModuleType, ...]:
    """Import every entry of a shelf; one whose library is missing is left out."""
    package = importlib.import_module(f"loopsentry.{shelf}")
    modules = []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        modules.append(importlib.import_module(f"loopsentry.{shelf}.{info.name}"))
    return tuple(modules)


def name_of(entry: ModuleType) -> str:
    """The name of an entry: its file's."""
    return entry.__name__.rpartition(".")[2]


def is_optional(sink: ModuleType) -> bool:
    """Whether a destination is opened only where it is asked for."""
    return getattr(sink, "OPTIONAL", False)


def load_causes() -> tuple[Cause, ...]:
    """The causes, in the order of their codes."""
    causes = []
    for entry in load("causes"):
        title, explanation = words_of(entry)
        causes.append(
            Cause(
                code=entry.CODE,
                name=entry.CAUSE,
                title=title,
                explanation=explanation,
                match=entry.match,
            )
        )
    return tuple(sorted(causes, key=lambda cause: cause.code))


def docstring_of(entry: ModuleType) -> str:
    """What an entry says of itself; from its source where Python left docstrings out (`-OO`)."""
    if entry.__doc__ is not None:
        return entry.__doc__
    # `ast.parse` leaves them out too under -OO since Python 3.14.
    tree: Any = compile(inspect.getsource(entry), "", "exec", ast.PyCF_ONLY_AST, optimize=0)
    return ast.get_docstring(tree, clean=False) or ""


def words_of(entry: ModuleType) -> tuple[str, str]:
    """The title and the explanation of an entry: its docstring's first line, and the rest."""
    title, _, explanation = docstring_of(entry).strip().partition("\n")
    return title, explanation.strip()


def load_fixes() -> tuple[Remedy, ...]:
    """The cures, in the order of their ranks."""
    folder = resources.files("loopsentry.fixes")
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".md")]
    remedies = [parse_fix(entry.name[:-3], entry.read_text("utf-8")) for entry in files]
    return tuple(sorted(remedies, key=lambda remedy: remedy.rank))


def parse_fix(name: str, text: str) -> Remedy:
    """Read one cure: a TOML header between `+++` lines, then Markdown with its programs.

    `## Broken` and `## Fixed` show the first cause of the header; `## Broken: used-after-release`
    and `## Fixed: used-after-release` another one.
    """
    _, header, body = text.split("+++\n", 2)
    blocks = {(kind, cause): code for kind, cause, code in _BLOCK.findall(body)}
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in tomllib.loads(header).items()
    }
    known["snippet"] = str(known["snippet"]).rstrip("\n")
    examples = tuple(
        Example(cause=cause or known["cures"][0], broken=code, fixed=blocks["Fixed", cause])
        for (kind, cause), code in blocks.items()
        if kind == "Broken"
    )
    return Remedy(id=name, text=body.strip(), examples=examples, **known)


@dataclass(frozen=True, slots=True)
class KnownText:
    """A text of an error that users meet, and what it can mean.

    Attributes:
        name: its name, for links.
        text: as its library writes it.
        by: which library that is.
        pattern: what a pasted text is searched for.
        means: names of causes, the most frequent first, each with how to tell that it is the one.
    """

    name: str
    text: str
    by: str
    pattern: re.Pattern[str]
    means: tuple[tuple[str, str], ...]

    def fits(self, pasted: str) -> bool:
        """Whether a pasted text is, or contains, this one."""
        return self.pattern.search(" ".join(pasted.split())) is not None


def load_texts() -> tuple[KnownText, ...]:
    """The texts of errors, the most frequent first."""
    data = tomllib.loads(resources.files("loopsentry").joinpath("texts.toml").read_text("utf-8"))
    return tuple(
        KnownText(
            name=entry["name"],
            text=entry["text"],
            by=entry["by"],
            pattern=re.compile(entry["pattern"], re.IGNORECASE),
            means=tuple((cause, when) for cause, when in entry["means"]),
        )
        for entry in data["text"]
    )


def load_all() -> Shelves:
    """Load every shelf up front, so that no hook has to import anything later."""
    probes, contexts = load("probes"), load("contexts")
    _sockets.finders[:] = [p.transport_of for p in probes if hasattr(p, "transport_of")]
    for entry in (*probes, *contexts):
        _frames.machinery.update(getattr(entry, "PACKAGES", ()))
    for probe in probes:
        _frames.libraries.update(getattr(probe, "PACKAGES", ()))
    return Shelves(
        probes=probes,
        causes=load_causes(),
        contexts=contexts,
        hooks=load("hooks"),
        sinks=load("sinks"),
        fixes=load_fixes(),
    )
