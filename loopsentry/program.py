"""Running somebody's program as Python itself would: argv, path, `__main__`, exit status."""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import shutil
import sys
import types
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

_EMPTY: dict[str, Any] = {"__annotations__": {}, "__cached__": None}


class ProgramError(Exception):
    """The program could not be found or is no Python."""


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a file, a folder with `__main__.py` or a zip file as `python PATH` would.

    A name that no file has may be that of an installed command, as `uvicorn`.

    Raises:
        ProgramError: if there is no such file or command, or nothing to run in the folder.
    """
    target = Path(path)
    sys.argv[:] = [path, *arguments]
    if target.is_dir() or zipfile.is_zipfile(target):
        _set_first_path(str(target.absolute()), always=True)
        spec = importlib.machinery.PathFinder.find_spec("__main__", [path])
        if spec is None:
            raise ProgramError(f"can't find '__main__' module in {path!r}")
        _run_spec(spec, path)
        return
    if not target.is_file():
        command = _command(path)
        if command is not None:
            _run_command(command, path)
            return
        raise ProgramError(f"can't open file {path!r}: no such file, and no installed command")
    absolute = str(target.absolute())
    with io.open_code(absolute) as file:
        source = file.read()
    _set_first_path(str(target.absolute().parent))
    module = _new_main(absolute)
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", absolute)
    _execute(lambda: compile(source, absolute, "exec", dont_inherit=True), module)


def _command(name: str) -> metadata.EntryPoint | None:
    """The installed command of a name, as packages declare them."""
    return next(iter(metadata.entry_points(group="console_scripts", name=name)), None)


def _run_command(command: metadata.EntryPoint, name: str) -> None:
    """Run what an installed command runs, as the file that pip writes for it does."""
    file = shutil.which(name) or name
    sys.argv[0] = file
    _set_first_path(str(Path(file).parent))
    first = command.attr.partition(".")[0]
    source = f"import sys\nfrom {command.module} import {first}\nsys.exit({command.attr}())\n"
    module = _new_main(file)
    _execute(lambda: compile(source, file, "exec", dont_inherit=True), module)


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module or a package's `__main__` as `python -m NAME` would.

    Raises:
        ProgramError: if there is no such module.
    """
    _set_first_path(str(Path.cwd()))
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__")
    sys.argv[:] = [spec.origin or name, *arguments]
    _run_spec(spec, name)


def _run_spec(spec: importlib.machinery.ModuleSpec, name: str) -> None:
    loader: Any = spec.loader
    if not hasattr(loader, "get_code") or spec.origin is None:
        raise ProgramError(f"no code object available for {name}")
    module = _new_main(spec.origin)
    module.__spec__, module.__loader__ = spec, loader
    module.__package__ = spec.parent
    _execute(lambda: loader.get_code(spec.name), module)


def _find(name: str) -> importlib.machinery.ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ImportError as exc:
        raise ProgramError(f"error while finding module {name!r}: {exc}") from exc
    if spec is None:
        raise ProgramError(f"no module named {name}")
    return spec


def _set_first_path(folder: str, *, always: bool = False) -> None:
    """Put a folder first on `sys.path` as Python does, which `-P` forbids for scripts and -m."""
    if not sys.flags.safe_path:
        sys.path[0] = folder
    elif always:
        sys.path.insert(0, folder)


def _new_main(file: str) -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__file__ = file
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    module.__spec__ = None
    for name, value in _EMPTY.items():
        if name in vars(sys.modules["__main__"]):  # as this version of Python has it
            setattr(module, name, value)
    sys.modules["__main__"] = module
    return module


def _execute(get_code: Callable[[], CodeType | Any], module: types.ModuleType) -> None:
    """Execute code as the main module; an uncaught exception ends as it does under `python`."""
    try:
        exec(get_code(), module.__dict__)  # noqa: S102 - running it is the purpose
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        traceback = _own_frames_cut(exc.__traceback__)
        failure = exc.with_traceback(traceback)
    else:
        return
    _print(failure, traceback)
    del failure
    raise SystemExit(1)


def _print(failure: BaseException, traceback: TracebackType | None) -> None:
    """Print an exception through the program's hook; if that fails, both, as Python does."""
    try:
        sys.excepthook(type(failure), failure, traceback)
    except Exception as exc:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(exc), exc, _own_frames_cut(exc.__traceback__))
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(failure), failure, traceback)


def _own_frames_cut(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback
