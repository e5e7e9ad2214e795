"""Whether the program closed a connection itself, read off its code where nothing recorded that.

A driver says "connection is closed" of what its owner closed and of what the server did. On Python
3.12 and newer it is recorded who closed it; before, the code that has run tells what is probable.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any

from . import _frames
from ._frames import Site
from .exceptions import is_a, variables_of
from .model import Place

_ENDS = frozenset({"aclose", "close", "release", "terminate"})
_CODES_SEEN = 2000


def closed_before(sites: list[Site], means: Callable[[Any], bool]) -> Place | None:
    """The line at which the program's frames had closed an object before they came to fail.

    What stands behind the failing line, as in a `finally` block, had not run then.

    Args:
        sites: a traceback's frames.
        means: whether an object is the one in question, or holds it.
    """
    for site in sites:
        if not _frames.is_user(site.frame):
            continue
        for line, value in _ended(site):
            if means(value):
                return _frames.place_of(site._replace(line=line, at=-1))
    return None


def may_be_ended_elsewhere(sites: list[Site], methods: frozenset[str] = _ENDS) -> bool:
    """Whether other functions of the modules at work end anything but what they opened themselves.

    Args:
        sites: a traceback's frames.
        methods: the names of what ends a connection.
    """
    frames = [site.frame for site in sites if _frames.is_user(site.frame)]
    own = {frame.f_code for frame in frames}
    codes = (code for frame in frames for code in _codes_of(frame.f_globals))
    return any(_ends_others(code, methods) for code in codes if code not in own)


def _ends_others(code: CodeType, methods: frozenset[str]) -> bool:
    """Whether code reads such a method of anything but the variables that it makes itself."""
    parameters = code.co_argcount + code.co_kwonlyargcount
    own = code.co_varnames[parameters:]
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.argval in methods and _reads_attribute(instruction):
            local = before is not None and before.opname.startswith("LOAD_FAST")
            if before is None or not local or before.argval not in own:
                return True
        before = instruction
    return False


def _ended(site: Site) -> Iterator[tuple[int, Any]]:
    """The objects whose closing methods a frame has read before the instruction it stands at."""
    line = site.code.co_firstlineno
    loaded: list[dis.Instruction] = []
    for instruction in dis.get_instructions(site.code):
        where = instruction.positions
        line = where.lineno if where is not None and where.lineno is not None else line
        if 0 <= site.at <= instruction.offset:
            return
        if instruction.argval in _ENDS and _reads_attribute(instruction):
            yield line, _value_of(loaded, site.frame)
        loaded.append(instruction)


def _reads_attribute(instruction: dis.Instruction) -> bool:
    return instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD"))


def _value_of(loaded: list[dis.Instruction], frame: FrameType) -> Any:
    """What the last instructions load: a variable, or an attribute of one."""
    attributes: list[str] = []
    for instruction in reversed(loaded):
        if _reads_attribute(instruction):
            attributes.append(instruction.argval)
            continue
        names = instruction.argval if is_a(instruction.argval, tuple) else (instruction.argval,)
        if not instruction.opname.startswith("LOAD_") or not is_a(names[-1], str):
            return None
        value = _frames.variables_in(frame).get(names[-1], frame.f_globals.get(names[-1]))
        for name in reversed(attributes):
            value = variables_of(value).get(name)
        return value
    return None


def _codes_of(names: dict[str, Any]) -> Iterator[CodeType]:
    """The code of a module's functions and of its classes' methods, and what stands inside."""
    module = names.get("__name__")
    pending: list[Any] = list(names.values())
    seen: set[int] = set()
    while pending and len(seen) < _CODES_SEEN:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_a(value, FunctionType) and value.__module__ == module:
            pending.append(value.__code__)
        elif is_a(value, type) and vars(value).get("__module__") == module:
            pending.extend(vars(value).values())
        elif is_a(value, CodeType):
            yield value
            pending.extend(value.co_consts)
