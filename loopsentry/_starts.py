"""Who started a thread that does nothing but run an event loop.

No frame of the program stands on such a thread's stack: its target is the loop's own method. Where
nothing heard of the start, the program's functions are read for the one that names that method.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from time import thread_time
from types import CodeType, FunctionType, MethodType
from typing import Any

from ._copies import copy_of
from ._frames import places_naming
from ._variables import SEARCH_SECONDS, own_modules
from .exceptions import is_a, variables_of
from .model import Place

_RUN = "run_forever"


def find_start(loop: asyncio.AbstractEventLoop) -> Place | None:
    """The one line of the program that can have started the thread whose target is this loop.

    Args:
        loop: a loop that runs.

    Returns:
        The line; None where no thread has the loop's method as its target, where none or several
        functions name it, or where there is too much to read.
    """
    targets = [variables_of(t).get("_target") for t in copy_of(threading._active.values)]  # type: ignore[attr-defined]
    if not any(is_a(each, MethodType) and each.__self__ is loop for each in targets):
        return None
    found = _naming_it()
    starting = [code for code in found if "Thread" in code.co_names] or found
    if len(starting) != 1:
        return None
    return next(iter(places_naming(starting[0], frozenset({_RUN}))), None)


def _naming_it() -> list[CodeType]:
    """The code of the program's functions and methods that names what runs a loop.

    Read again only when more modules have been imported.
    """
    global _known  # noqa: PLW0603 - one list of the process
    count = len(sys.modules)
    if _known[0] != count:
        found = {id(code): code for code in _codes() if _RUN in code.co_names}
        _known = count, list(found.values())
    return _known[1]


_known: tuple[int, list[CodeType]] = (0, [])


def _codes() -> Iterator[CodeType]:
    deadline = thread_time() + SEARCH_SECONDS
    for names in own_modules():
        for value in copy_of(names.values):
            if thread_time() > deadline:
                return
            inside = vars(value).values if is_a(value, type) else (value,).__iter__
            yield from filter(None, map(_code_of, copy_of(inside)))


def _code_of(value: Any) -> CodeType | None:
    function = getattr(value, "__func__", None) if is_a(value, staticmethod, classmethod) else value
    return function.__code__ if is_a(function, FunctionType) else None
