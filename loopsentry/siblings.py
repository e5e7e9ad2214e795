"""Which operation probably was under way, when the task that ran it is gone.

A driver used without an engine tells of a clash only in the exception, and by the time a hook sees
that, the other task is over. What stands in the traceback still shows which task it can only have
been: one that the user's objects keep, or the one function started beside the failing one. It is a
reading of the source, and its `state` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, CoroutineType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from . import _frames
from ._frames import Names, Site, count_names_in_calls, names_at, names_in, names_in_calls
from .exceptions import is_a, variables_of
from .model import Operation

_GROUPS = frozenset({"TaskGroup", "as_completed", "create_task_group", "gather", "wait"})
_STARTERS = _GROUPS | frozenset(
    {
        "create_task",
        "ensure_future",
        "run_coroutine_threadsafe",
        "start_soon",
    }
)
_ATTRIBUTES_SEEN = 100
_DECORATORS_SEEN = 5


def find_sibling(sites: list[Site]) -> Operation | None:
    """The one task or function that can have been beside the failing one, None if several can.

    Args:
        sites: a traceback's frames from the innermost outwards.
    """
    own = [site for site in sites if _frames.is_user(site.frame)]
    running = {site.code for site in own}
    kept = {code for site in own for code in _kept_tasks(site.frame)} - running
    if len(kept) == 1:
        return _operation(kept.pop(), "probably; a task kept in an object")
    if not own:
        return None
    if _awaits_group(names_at(own[0])):
        return _operation(own[0].code, _BESIDE)
    for index, starter in enumerate(own[1:], 1):
        if not _starts_tasks(names_in(starter.code)):
            continue
        inside = {site.code for site in own[:index]}
        # What a helper starts was often made by its caller.
        for beside in (group for maker in own[index:] for group in _started_by(maker)):
            others = beside - inside
            if beside & inside and len(others) <= 1:
                return _operation((others or beside).pop(), _BESIDE)
    code = _held_beside(own[0], sites[: sites.index(own[0])]) or _shielded(own)
    return _operation(code, _BESIDE) if code is not None else None


_BESIDE = "probably; started beside it"


def _awaits_group(names: Names) -> bool:
    """Whether a line waits for several things at once.

    Where a traceback leads from there into a library, that ran the library's coroutine by itself.
    """
    return _reads(names, _GROUPS)


def _held_beside(maker: Site, library: list[Site]) -> CodeType | None:
    """What a function runs beside a library's call that it makes: tasks of its own, or such calls.

    Args:
        maker: where the function stands.
        library: the frames inside it.
    """
    called = [site for site in library if not _frames.module_of(site.frame).startswith("asyncio.")]
    method = called[-1].code.co_name if called else ""
    values = _frames.variables_in(maker.frame).values()
    held = (each for value in values for each in (value if is_a(value, list, tuple) else (value,)))
    tasks = [each for each in held if is_a(each, asyncio.Task)]
    others = {code for code in _codes_of(tasks) if method in names_in(code).attributes}
    if len(others) == 1:
        return others.pop()
    names = names_in(maker.code)
    made = (task.get_coro() for task in tasks)
    repeated = any(is_a(each, CoroutineType) and each.cr_code.co_name == method for each in made)
    beside = repeated or _awaits_group(names)
    return maker.code if beside and method in names.attributes else None


def _shielded(makers: list[Site]) -> CodeType | None:
    """The one function that goes on after another gave up waiting for it, as `shield` lets it."""
    codes: set[CodeType] = set()
    for maker in makers:
        names = names_in_calls(maker.code, _SHIELDS)
        codes.update(_codes_of(_meant(names, maker.frame, _frames.variables_in(maker.frame))))
    codes -= {maker.code for maker in makers}
    return codes.pop() if len(codes) == 1 else None


_SHIELDS = frozenset({"shield"})


def holds_cancelled(sites: list[Site]) -> bool:
    """Whether the failing functions hold a task that was cancelled and may not be over yet.

    A loop that ends cancels what still runs, only after the failure: such a task counts only where
    the functions themselves cancel something.

    Args:
        sites: a traceback's frames from the innermost outwards.
    """
    own = [site.frame for site in sites if _frames.is_user(site.frame)]
    cancel = any(_reads(names_in(frame.f_code), _CANCELLERS) for frame in own)
    held = (value for frame in own for value in _frames.variables_in(frame).values())
    return any(is_a(task, asyncio.Task) and _was_cut(task, cancel=cancel) for task in held)


def _was_cut(task: asyncio.Task[Any], *, cancel: bool) -> bool:
    ended = task.get_loop().is_closed()
    return (task.cancelled() or task.cancelling() > 0) and (cancel or not ended)


_CANCELLERS = frozenset(
    {"cancel", "fail_after", "move_on_after", "timeout", "timeout_at", "wait_for"}
)


def find_sharer(
    sites: list[Site], stands_for: Callable[[object], int | None], subject: set[int]
) -> FrameType | None:
    """The failing function that started several at once that use one object, None if none did.

    What a clean-up is told, that an operation still runs, is then what came of sharing.

    Args:
        sites: a traceback's frames from the innermost outwards.
        stands_for: which session or connection a value is, None for anything else.
        subject: which one is asked about, under each identity that it has.
    """
    own = (site.frame for site in sites if _frames.is_user(site.frame))
    return next((frame for frame in own if _shares(frame, stands_for, subject)), None)


def _shares(
    frame: FrameType, stands_for: Callable[[object], int | None], subject: set[int]
) -> bool:
    counts = count_names_in_calls(frame.f_code, _STARTERS)
    if not counts:
        return False
    variables = _frames.variables_in(frame)
    given = {name: variables.get(name, frame.f_globals.get(name)) for name in counts}
    units = {name: unit for name, value in given.items() if (unit := stands_for(value))}
    if units:
        return sum(counts[name] for name, unit in units.items() if unit in subject) > 1
    users, unknown = 0, 0
    for name, count in counts.items():
        for function, owner in _functions_called(name, given):
            reached = {stands_for(value) for value in _reached(function, owner)} - {None}
            users += count if reached & subject else 0
            unknown = unknown if reached else max(unknown, count)
    # Where no function shows what it uses, only one that is started twice uses one thing twice.
    return (users or unknown) > 1


def _functions_called(name: str, given: Mapping[str, Any]) -> Iterator[tuple[FunctionType, Any]]:
    """The program's coroutine functions of a name, each with the object whose method it is."""
    found = [(given[name], None)]
    for owner in given.values():
        kind = owner if is_a(owner, type) else type(owner)
        found.extend((vars(base).get(name), owner) for base in type.mro(kind))
        if is_a(owner, ModuleType):
            found.append((vars(owner).get(name), None))
    seen: set[int] = set()
    for value, owner in found:
        called = value.func if is_a(value, functools.partial) else value
        function = called.__func__ if is_a(called, MethodType) else called
        target = called.__self__ if is_a(called, MethodType) else owner
        target = value if is_a(value, functools.partial) else target
        if id(function) not in seen and is_a(function, FunctionType) and any(_codes_of([function])):
            seen.add(id(function))
            yield _undecorated(function), target


def _reached(function: FunctionType, owner: object) -> Iterator[object]:
    """What a function's names lead to: variables around it, and attributes of its object.

    Args:
        function: a coroutine function.
        owner: the object whose method it is, the partial that calls it, or None.
    """
    names = names_in(function.__code__)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing was put into it yet
            yield cell.cell_contents
    for name in names.variables:
        yield function.__globals__.get(name)
    if is_a(owner, functools.partial):
        yield from (*owner.args, *owner.keywords.values())
    for name, value in variables_of(owner).items():
        if name in names.attributes:
            yield value


def _operation(code: CodeType, state: str) -> Operation:
    place = _frames.place_of_code(code)
    return Operation(
        task="",
        function=place.function,
        file=place.file,
        line=place.line,
        state=state,
    )


def _kept_tasks(frame: FrameType) -> Iterator[CodeType]:
    """Code of the tasks that the object whose method this is keeps."""
    for value in _values_of(_frames.first_argument(frame)):
        if is_a(value, asyncio.Task):
            code = getattr(value.get_coro(), "cr_code", None)
            if code is not None:
                yield code


def _started_by(maker: Site) -> Iterator[set[CodeType]]:
    """Code of the coroutines that a frame can have made, by what it names or keeps together.

    Args:
        maker: where the frame stands.
    """
    variables = dict(_frames.variables_in(maker.frame))
    here = names_at(maker)
    started = names_in_calls(maker.code, _STARTERS)
    for names in (here, started) if _starts_tasks(here) else (started,):
        yield set(_codes_of(_meant(names, maker.frame, variables)))
    for value in (*variables.values(), *_values_of(_frames.first_argument(maker.frame))):
        if is_a(value, list, tuple, set):
            yield set(_codes_of(list(value)[:_ATTRIBUTES_SEEN]))
    yield set(_codes_of(_meant(names_in(maker.code), maker.frame, variables)))


def _starts_tasks(names: Names) -> bool:
    return _reads(names, _STARTERS)


def _reads(names: Names, wanted: frozenset[str]) -> bool:
    return not wanted.isdisjoint(names.all)


def _meant(names: Names, frame: FrameType, variables: Mapping[str, Any]) -> Iterator[Any]:
    """What names mean in a frame: variables, and methods of the objects that are named too."""
    values = [variables.get(name, frame.f_globals.get(name)) for name in names.variables]
    values += _values_of(_frames.first_argument(frame))
    yield from values
    for owner in dict.fromkeys(value if is_a(value, type) else type(value) for value in values):
        for name in names.attributes:
            yield next((vars(base)[name] for base in type.mro(owner) if name in vars(base)), None)
    for module in values:
        if is_a(module, ModuleType):
            yield from (vars(module).get(name) for name in names.attributes)


def _codes_of(values: Iterable[Any]) -> Iterator[CodeType]:
    """The code of the program's coroutine functions, coroutines and tasks among some values."""
    for value in values:
        target = value.func if is_a(value, functools.partial) else value
        if is_a(target, MethodType, staticmethod, classmethod):
            target = getattr(target, "__func__", None)
        target = target.get_coro() if is_a(target, asyncio.Task) else target
        code = target.cr_code if is_a(target, CoroutineType) else None
        if is_a(target, FunctionType) and target.__code__.co_flags & inspect.CO_COROUTINE:
            code = _undecorated(target).__code__
        if code is not None and _frames.is_user_file(code.co_filename):
            yield code


def _undecorated(function: FunctionType) -> FunctionType:
    """The coroutine function behind decorators that tell of it, such as `functools.wraps` does."""
    for _ in range(_DECORATORS_SEEN):
        inner = vars(function).get("__wrapped__")
        if not is_a(inner, FunctionType) or not inner.__code__.co_flags & inspect.CO_COROUTINE:
            break
        function = inner
    return function


def _values_of(target: Any) -> list[Any]:
    return list(variables_of(target).values())[:_ATTRIBUTES_SEEN]
