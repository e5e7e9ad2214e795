"""What this installation sees around it: versions, neighbours, and what is not recorded."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from . import __version__, catalog
from ._monitoring import why_not

#: Libraries beside the watched ones that change what loops and tests do.
_NEIGHBOURS = (
    *("sqlalchemy", "greenlet", "starlette", "fastapi", "uvloop", "uvicorn", "anyio"),
    *("pytest", "pytest-asyncio", "celery", "sentry-sdk", "nest-asyncio", "ipython"),
)
_VARIABLES = ("LOOPSENTRY", "LOOPSENTRY_ON_MISMATCH", "LOOPSENTRY_REPORT", "LOOPSENTRY_VERBOSE")
#: Who else owns the import name.
_NAMESAKE = "loopsentry"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: "ok", "missing" for what is not there, or "wrong" for what should be mended.
        what: what was looked at.
        words: what was found, and what to do.
    """

    state: str
    what: str
    words: str


def examine(*, off: bool = False) -> list[Finding]:
    """Look at this interpreter, what is installed in it, and what is recorded in it.

    Nothing is changed or connected to; libraries are known by their metadata.

    Args:
        off: whether the environment switches loopsentry off.

    Since version 0.1.0.
    """
    return [*_interpreter(), *_libraries(), *_drivers(), *_recorded(), *_environment(off=off)]


def _interpreter() -> Iterator[Finding]:
    implementation = platform.python_implementation()
    yield Finding("ok", "loopsentry", __version__)
    yield Finding("ok", "Python", f"{platform.python_version()}, {implementation}, {sys.platform}")
    namesake = _version(_NAMESAKE)
    if namesake is not None:
        words = (
            f"{_NAMESAKE} {namesake}, another project of the same import name, is installed too;"
            " which of the two is imported depends on the order of installation. Keep one:"
            f" pip uninstall {_NAMESAKE}, then pip install --force-reinstall --no-deps"
            " sqlalchemy-loopsentry"
        )
        yield Finding("wrong", "import name", words)


def _libraries() -> Iterator[Finding]:
    for name in _NEIGHBOURS:
        version = _version(name)
        if version is not None:
            yield Finding("ok", name, version)


def _drivers() -> Iterator[Finding]:
    """The watched drivers and clients: a probe is called as what it watches."""
    names = set(map(catalog.name_of, catalog.load("probes")))
    for name in sorted(names - set(_NEIGHBOURS) - {"asyncio"}):
        version = _version(name)
        if version is not None:
            yield Finding("ok", name, f"{version}, watched")


def _recorded() -> Iterator[Finding]:
    reason = why_not()
    told = "who starts each event loop, and where raw connections and clients are opened"
    if reason:
        yield Finding("missing", "sys.monitoring", f"not recorded, {reason}: {told}")
    else:
        yield Finding("ok", "sys.monitoring", f"recorded: {told}")
    if sys.excepthook is not sys.__excepthook__:
        owner = getattr(sys.excepthook, "__module__", "?")
        yield Finding("ok", "sys.excepthook", f"of {owner}; it is kept, and called after the note")


def _environment(*, off: bool) -> Iterator[Finding]:
    if off:
        words = f"LOOPSENTRY={os.environ['LOOPSENTRY']}: install() does nothing"
        yield Finding("missing", "switched off", words)
    for name in _VARIABLES:
        if name in os.environ and name != "LOOPSENTRY":
            yield Finding("ok", name, os.environ[name])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
