"""Walking stacks: across greenlets, out of tracebacks, down to the user's own lines."""

from __future__ import annotations

import asyncio
import dis
import inspect
import itertools
import os
import site
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, TypeGuard

from .exceptions import is_a, text_of, traceback_of, variables_of
from .model import Frame, Place

_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
_PACKAGE = str(Path(__file__).parent) + os.sep
COMPILED = (".pyx", ".pxd", ".pxi")  # Cython's tracebacks name these, relative to nowhere
_INSTALLED = ("/site-packages/", "/dist-packages/", "\\site-packages\\", "\\dist-packages\\")


def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    roots.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    roots.add(str(Path(os.__file__).parent))
    return tuple(str(Path(root)) + os.sep for root in roots)


_ROOTS = _library_roots()
_user_files: dict[str, bool] = {}
#: Top-level packages that the shelves declare to be machinery, filled when they are loaded.
machinery: set[str] = {"loopsentry", "greenlet", "runpy", "importlib", "concurrent", "threading"}
#: Those of the watched libraries: never the user's, also where a checkout of them is installed.
libraries: set[str] = set()


# Where one thread waits for a coroutine on the loop of another, and in which functions.
_PORTALS = {
    "anyio.from_thread": (
        "call",
        "start_blocking_portal",
        "start_task",
        "start_task_soon",
        "__enter__",
        "result",
    ),
    "asgiref.sync": ("__call__",),
    "starlette.testclient": ("handle_request",),  # also between two calls to its portal
}


class Site(NamedTuple):
    """A frame, and the line and the instruction it stood at; a traceback's differ from its frame's.

    Attributes:
        frame: the frame.
        line: the line, from 1.
        at: the offset of the instruction in the bytecode, -1 where it is not known.
    """

    frame: FrameType
    line: int
    at: int = -1

    @property
    def code(self) -> CodeType:
        """The frame's code."""
        return self.frame.f_code


def site_of(frame: FrameType) -> Site:
    """Where a frame stands now."""
    return Site(frame, frame.f_lineno, frame.f_lasti)


def absolute(filename: str) -> str:
    """A code object's file as an absolute path.

    A relative one is relative to where the program began; it may have left, or removed, that
    directory since.
    """
    return os.path.normpath(os.path.join(_BEGINNING, filename))  # noqa: PTH118 - texts, and often


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - must not fail where there is none
    except OSError:
        return ""


_BEGINNING = _working_directory()


def is_user_file(filename: str) -> bool:
    """Whether a file is the user's own: neither the standard library's nor a package's."""
    known = _user_files.get(filename)
    if known is None:
        path = absolute(filename)
        known = not (
            filename.startswith("<")
            or filename.endswith(COMPILED)
            or path.startswith((*_ROOTS, _PACKAGE))
            or any(part in path for part in _INSTALLED)
        )
        _user_files[filename] = known
    return known


def is_loop(target: object) -> TypeGuard[asyncio.AbstractEventLoop]:
    """Whether an object is an event loop, asked of its type only."""
    return issubclass(type(target), asyncio.AbstractEventLoop)


def module_of(frame: FrameType) -> str:
    """The name of a frame's module; "" where its globals name none."""
    return text_of(frame.f_globals.get("__name__"))


def is_user(frame: FrameType) -> bool:
    """Whether a frame is the user's own code, not the standard library's or a package's.

    Code without a file counts when it is the main module's: `python -c`, the prompt, notebooks;
    not the line with which `multiprocessing` begins a child.
    """
    code = frame.f_code
    filename = code.co_filename
    if filename.startswith("<") and not filename.startswith("<frozen"):
        return module_of(frame) == "__main__" and _BEGINNINGS.isdisjoint(code.co_names)
    return is_user_file(filename) and module_of(frame).partition(".")[0] not in libraries


#: What the lines import that are passed to a child's `python -c` (Lib/multiprocessing/spawn.py,
#: forkserver.py).
_BEGINNINGS = frozenset({"multiprocessing.spawn", "multiprocessing.forkserver"})


def is_installed_application(frame: FrameType) -> bool:
    """Whether a frame is of an installed package that is no known machinery.

    An application that was itself installed has no other frames; this is the second choice.
    """
    filename = frame.f_code.co_filename
    name = module_of(frame)
    return (
        any(part in filename for part in _INSTALLED)
        and name.partition(".")[0].lower() not in machinery
    )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The running loop of this thread, if any."""
    return asyncio._get_running_loop()


def task_name() -> str | None:
    """Name of the current task, None outside tasks."""
    task = asyncio.current_task() if running_loop() is not None else None
    return task.get_name() if task is not None else None


def walk_live(start: FrameType | None = None) -> Iterator[Site]:
    """Yield the present stack from the caller outwards, across greenlet switches.

    Database calls of SQLAlchemy's asyncio layer run in a greenlet (`greenlet_spawn` in
    sqlalchemy/util/_concurrency_py3k.py); the coroutine that awaits is its parent's frame.
    """
    return map(site_of, live_frames(start or sys._getframe(1)))


def live_frames(start: FrameType) -> Iterator[FrameType]:
    """Yield the frames of the present stack as `walk_live` does."""
    # At the interpreter's end the module is emptied first, and then gives no greenlet.
    getcurrent = getattr(sys.modules.get("greenlet"), "getcurrent", None)
    parent = getattr(getcurrent(), "parent", None) if getcurrent is not None else None
    current: FrameType | None = start
    while current is not None:
        yield current
        current = current.f_back
        while current is None and parent is not None:
            current, parent = parent.gr_frame, parent.parent


def walk_back(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def sites_of_stack(frame: FrameType | None) -> list[Site]:
    """List where a frame and its callers stand now, the innermost first."""
    return [site_of(each) for each in walk_back(frame)]


def walk_traceback(traceback: TracebackType | None) -> list[Site]:
    """List a traceback's sites from the innermost outwards."""
    sites = []
    while traceback is not None:
        sites.append(Site(traceback.tb_frame, traceback.tb_lineno, traceback.tb_lasti))
        traceback = traceback.tb_next
    return sites[::-1]


def raised_outside(exc: BaseException, modules: tuple[str, ...]) -> bool:
    """Whether a `raise` statement of other modules raised an exception; False where unknown.

    A program may raise a library's own type, or use its words, in an error of its own.
    """
    sites = walk_traceback(traceback_of(exc))
    if not sites or module_of(sites[0].frame).startswith(modules):
        return False
    innermost = traceback_of(exc)
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    at = innermost.tb_lasti if innermost is not None else 0
    return sites[0].code.co_code[at : at + 1] == _RAISE


_RAISE = bytes([dis.opmap["RAISE_VARARGS"]])


def variables_in(frame: FrameType) -> Mapping[str, Any]:
    """A frame's local variables, without leaving them behind in the frame.

    Before CPython 3.13 (PEP 667) `frame.f_locals` of a function is a copy that the frame keeps:
    whatever it held then lives as long as the frame, though the function has let go of it.
    """
    values = frame.f_locals
    if sys.version_info >= (3, 13) or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return values
    found = dict(values)
    if sys.getrefcount(values) <= _OWN_REFERENCES:  # else the program has called locals()
        values.clear()
    return found


#: The frame's, the variable's and the argument's.
_OWN_REFERENCES = 3


def first_argument(frame: FrameType) -> Any:
    """The value of a frame's first parameter, `self` in a method; None when it has none."""
    code = frame.f_code
    if not code.co_argcount:
        return None
    return variables_in(frame).get(code.co_varnames[0])


#: Line and column of an expression's beginning, and those of its end.
Span = tuple[tuple[int, int], tuple[int, int]]


class Names(NamedTuple):
    """What code reads: variables of its own or its module, and attributes of anything."""

    variables: set[str]
    attributes: set[str]

    def joined(self, other: Names) -> Names:
        """These and the others."""
        return Names(self.variables | other.variables, self.attributes | other.attributes)

    @property
    def all(self) -> set[str]:
        """The names of both kinds."""
        return self.variables | self.attributes


def names_in(code: CodeType, lines: range | None = None) -> Names:
    """The names that code reads, its generator expressions, comprehensions and lambdas too.

    Args:
        code: the code.
        lines: of these lines only, from 1.
    """
    instructions = dis.get_instructions(code)
    return _names_of(each for each in instructions if lines is None or _line_of(each) in lines)


def names_in_calls(code: CodeType, functions: frozenset[str]) -> Names:
    """The names that calls of certain functions read: the functions, and what is given to them.

    Args:
        code: the code that calls.
        functions: their names, as variables or as attributes.
    """
    instructions = list(dis.get_instructions(code))
    found = Names(set(), set())
    for call in _calls_in(instructions, functions):
        found = found.joined(_names_inside(instructions, call))
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and inner.co_name.startswith("<"):
            found = found.joined(names_in_calls(inner, functions))
    return found


def _calls_in(instructions: list[dis.Instruction], functions: frozenset[str]) -> list[Span]:
    """Where calls of certain functions stand, with what is given to them."""
    spans = [span_of(each) for each in instructions if each.opname.startswith("CALL")]
    named = (each for each in instructions if each.argval.__class__ is str)
    called = [span_of(each) for each in named if each.argval in functions]
    # A call begins where the expression begins that names its function.
    return [s for s in spans if any(s[0] == c[0] and c[1] <= s[1] for c in called)]


def count_names_in_calls(code: CodeType, functions: frozenset[str]) -> Counter[str]:
    """How often calls of certain functions read each name; what a loop reads counts twice.

    Args:
        code: the code that calls.
        functions: their names, as variables or as attributes.
    """
    instructions = list(dis.get_instructions(code))
    calls = _calls_in(instructions, functions)
    loops = [range(each.offset, each.argval) for each in instructions if each.opname == "FOR_ITER"]
    found: Counter[str] = Counter()
    for each in instructions:
        span = span_of(each)
        if any(call[0] <= span[0] and span[1] <= call[1] for call in calls):
            repeated = isinstance(each.argval, CodeType) or any(each.offset in r for r in loops)
            for name in _names_of([each]).all:
                found[name] += 2 if repeated else 1
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and inner.co_name.startswith("<"):
            # The body of a comprehension runs once for each of its elements.
            for name in count_names_in_calls(inner, functions):
                found[name] += 2
    return found


def names_within(code: CodeType, span: Span) -> Names:
    """The names that the expression reads whose beginning and end are given."""
    return _names_inside(dis.get_instructions(code), span)


def _names_inside(instructions: Iterable[dis.Instruction], span: Span) -> Names:
    spans = ((each, span_of(each)) for each in instructions)
    return _names_of(each for each, s in spans if span[0] <= s[0] and s[1] <= span[1])


def _names_of(instructions: Iterable[dis.Instruction]) -> Names:
    found = Names(set(), set())
    for instruction in instructions:
        value = instruction.argval
        if isinstance(value, CodeType) and value.co_name.startswith("<"):
            found = found.joined(names_in(value))
        elif isinstance(value, tuple) and instruction.opname.startswith("LOAD_FAST"):
            found.variables.update(value)  # two variables at once, since 3.13
        elif isinstance(value, str) and instruction.opname.startswith("LOAD_"):
            attribute = instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER"))
            (found.attributes if attribute else found.variables).add(value)
    return found


def names_by_line(code: CodeType) -> Iterator[tuple[int, str]]:
    """Each line of code with each name that it reads, not in functions inside."""
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, str) and instruction.opname.startswith("LOAD_"):
            yield _line_of(instruction), instruction.argval


def places_naming(code: CodeType, functions: frozenset[str]) -> list[Place]:
    """The lines of code on which it names one of some functions, in their order."""
    lines = {line for line, name in names_by_line(code) if name in functions}
    return [replace(place_of_code(code), line=line) for line in sorted(lines)]


def _line_of(instruction: dis.Instruction) -> int:
    where = instruction.positions
    return (where.lineno if where is not None else None) or 0


def span_of(instruction: dis.Instruction) -> Span:
    """Line and column of an expression's beginning and end; zeros where they are not known."""
    where = instruction.positions
    if where is None or where.lineno is None or where.col_offset is None:
        return (0, 0), (0, 0)
    begin = where.lineno, where.col_offset
    return begin, (where.end_lineno or where.lineno, where.end_col_offset or where.col_offset)


class Block(NamedTuple):
    """A `with` block.

    Attributes:
        name: what it gave its name to, empty without one.
        line: where it begins.
        span: its expression's beginning and end, each as line and column.
    """

    name: str
    line: int
    span: Span


def is_inside_block(site_: Site, target: object) -> bool:
    """Whether a frame stands inside a `with` block that gave an object its name."""
    variables = variables_in(site_.frame)
    named = (block.name for block in blocks_around(site_) if block.name)
    return any(variables.get(name) is target for name in named)


def blocks_around(site_: Site) -> Iterator[Block]:
    """The `with` blocks around a site.

    Each block is guarded up to its end by entries of the exception table that lead to its exit; the
    first begins where the name is stored (CPython: InternalDocs/exception_handling.md, compile.c).
    """
    blocks = _blocks_in(site_.code)
    yield from (block for start, end, block in blocks if start <= site_.at < end)


@lru_cache(maxsize=256)
def _blocks_in(code: CodeType) -> tuple[tuple[int, int, Block], ...]:
    guards: dict[int, tuple[int, int]] = {}
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        start, end = guards.get(entry.target, (entry.start, entry.end))
        guards[entry.target] = min(start, entry.start), max(end, entry.end)
    instructions = list(dis.get_instructions(code))
    exits = {
        before.offset: after
        for before, after in itertools.pairwise(instructions)
        if after.opname == "WITH_EXCEPT_START"
    }
    names = {each.offset: each.argval for each in instructions if each.opname.startswith("STORE_")}
    found = []
    for exit_, (start, end) in guards.items():
        if exit_ in exits:
            stored: Any = names.get(start, "")
            name = str(stored[0] if isinstance(stored, tuple) else stored)
            block = Block(name, _line_of(exits[exit_]), span_of(exits[exit_]))
            found.append((start, end, block))
    return tuple(found)


def names_at(site_: Site) -> Names:
    """The names that the expression reads at which a frame stands; none where it is not known."""
    first, last, _, _ = _positions_at(site_)
    if first is None or last is None:
        return Names(set(), set())
    return names_in(site_.code, range(first, last + 1))


def is_coroutine(frame: FrameType) -> bool:
    """Whether a frame is a coroutine's or an asynchronous generator's."""
    return bool(frame.f_code.co_flags & _COROUTINE)


def place_of(site_: Site) -> Place:
    """The place of a site, its file made absolute (a script's may be relative)."""
    return replace(place_of_code(site_.code), line=site_.line, columns=_columns_of(site_))


def _columns_of(site_: Site) -> tuple[int, int] | None:
    """The columns of the expression at work, where the compiler kept them; at most one line's."""
    line, last, start, end = _positions_at(site_)
    if line != site_.line or start is None or end is None:
        return None
    return start, end if last == line else sys.maxsize


def _positions_at(site_: Site) -> tuple[int | None, int | None, int | None, int | None]:
    """First and last line and column of the expression at work, as far as they are known."""
    unknown = (None, None, None, None)
    if site_.at < 0:
        return unknown
    return next(itertools.islice(site_.code.co_positions(), site_.at // 2, None), unknown)


def place_of_code(code: CodeType) -> Place:
    """The place where a function begins."""
    code_then, place = _places.get(id(code), (None, None))
    if place is None or code_then is not code:
        filename = code.co_filename
        if not filename.startswith("<"):
            filename = absolute(filename)
        place = Place(filename, code.co_firstlineno, code.co_name)
        if len(_places) >= _PLACES_KEPT:
            _places.clear()
        _places[id(code)] = code, place
    return place


#: By identity: a code object's own hash is made of all that it contains, each time anew.
_places: dict[int, tuple[CodeType, Place]] = {}
_PLACES_KEPT = 2000


def user_place(sites: Iterable[Site]) -> Place | None:
    """The nearest of the user's frames, or else of an installed application's."""
    second = None
    for site_ in sites:
        if is_user(site_.frame):
            return place_of(site_)
        if second is None and is_installed_application(site_.frame):
            second = site_
    return place_of(second) if second else None


def user_stack(sites: Iterable[Site], limit: int = 6) -> tuple[Place, ...]:
    """The user's frames, the nearest first."""
    own = (place_of(site_) for site_ in sites if is_user(site_.frame))
    return tuple(itertools.islice(own, limit))


def describe(site_: Site) -> Frame:
    """Reduce a site to what recognition needs."""
    user = is_user(site_.frame)
    return Frame(
        module=module_of(site_.frame),
        function=site_.code.co_name,
        place=place_of(site_) if user else replace(place_of_code(site_.code), line=site_.line),
        user=user,
        coroutine=is_coroutine(site_.frame),
        target=None if user else first_argument(site_.frame),
    )


def describe_all(sites: list[Site]) -> list[Frame]:
    """Reduce a stack to what recognition needs, and go on in the thread that waits for it.

    anyio's portals and asgiref's AsyncToSync run coroutines on a loop in a thread of their own, on
    behalf of a thread that waits; who started that loop stands only in the waiting thread's stack.
    """
    frames = [describe(site_) for site_ in sites]
    if frames and frames[0].user and loop_run_by(sites[0]) is not None:
        # A compiled loop runs right below this frame; name it, so that the border is seen.
        frames.insert(0, replace(frames[0], module="uvloop", function="run_forever", user=False))
    if frames and _is_portal(frames):
        frames.extend(_waiting_caller(getattr(first_argument(sites[-1].frame), "ident", None)))
    return frames


def _is_portal(frames: list[Frame]) -> bool:
    return frames[-1].function.startswith("_bootstrap") and any(
        frame.module in _PORTALS for frame in frames
    )


def _waiting_caller(ident: int | None) -> list[Frame]:
    """The frames of the one thread that waits for a portal, up to the user's; none if several.

    Args:
        ident: of the thread in which the portal's loop runs.
    """
    callers = []
    for frame in sys._current_frames().values():
        sites = sites_of_stack(frame)
        stack = list(map(describe, sites))
        # Not only the innermost of the portal's frames: it may still be handing its task over.
        calls = (i for i, f in enumerate(stack) if f.function in _PORTALS.get(f.module, ()))
        inner = next((i for i in calls if not stack[i].coroutine), None)
        if inner is not None and _thread_asked(sites[inner].frame) in (None, ident):
            callers.append(stack[inner:])
    if len(callers) != 1:
        return []
    end = next((i for i, f in enumerate(callers[0]) if f.user), len(callers[0]) - 1)
    return [replace(f, coroutine=False) for f in callers[0][: end + 1]]


def _thread_asked(frame: FrameType) -> int | None:
    """The thread for whose portal a frame waits (anyio/from_thread.py), None if it is not known."""
    started = variables_in(frame).get("thread")
    if is_a(started, threading.Thread):
        return started.ident
    known = variables_of(first_argument(frame)).get("_event_loop_thread_id")
    return known if type(known) is int else None


def split_at_loop(sites: list[Site]) -> tuple[list[Site], list[Site]]:
    """Divide a stack into what runs on its event loop and what started that loop.

    The border is the outermost coroutine frame: below it stand only the loop, its runner and
    whoever called that. It holds for asyncio.run, Runner, run_until_complete and uvloop, where a
    border at `run_forever` would not: uvloop has no such frame.
    """
    last = max((i for i, s in enumerate(sites) if is_coroutine(s.frame)), default=-1)
    return sites[: last + 1], sites[last + 1 :]


def loop_run_by(site_: Site) -> Any:
    """The event loop that a frame runs, if the frame is one of a loop's own runners.

    uvloop's runners have no frames, and `asyncio.Runner` forgets its loop when it closes; its
    frame still has the task, which knows (Lib/asyncio/runners.py: Runner.run).
    """
    if site_.code.co_name in _RUNNERS:
        target = first_argument(site_.frame)
        if is_a(target, asyncio.Runner):
            task = variables_in(site_.frame).get("task")
            target = task.get_loop() if is_a(task, asyncio.Task) else None
        if is_loop(target):
            return target
    if not _RUNS.isdisjoint(site_.code.co_names) and is_user(site_.frame):
        values = variables_in(site_.frame).values()
        loops = [value for value in values if is_loop(value)]
        compiled = [loop for loop in loops if not is_a(loop, asyncio.BaseEventLoop)]
        return compiled[0] if len(compiled) == 1 and len(loops) == 1 else None
    return None


_RUNS = frozenset({"run_until_complete", "run_forever"})
_RUNNERS = _RUNS | {"run"}


def around(sites: list[Site], index: int) -> list[Site]:
    """The part of a stack that belongs to the loop whose runner stands at `index`.

    Inside it only the coroutines count: what they called may have tried to start another loop. It
    ends where the next coroutine begins, which runs on the loop outside.
    """
    inside = [site_ for site_ in sites[:index] if is_coroutine(site_.frame)]
    outside = (i for i, s in enumerate(sites) if i > index and is_coroutine(s.frame))
    return inside + sites[index : next(outside, len(sites))]


def thread_of(loop: Any) -> list[Site]:
    """The stack of the thread that runs a loop, from the loop's runner outwards."""
    if not loop.is_running():
        return []
    for frame in sys._current_frames().values():
        sites = sites_of_stack(frame)
        for index, site_ in enumerate(sites):
            if loop_run_by(site_) is loop:
                return sites[index:]
    return []
