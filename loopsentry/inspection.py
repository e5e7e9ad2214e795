"""What a running program tells of itself when it is asked: in code, or by a signal."""

from __future__ import annotations

import logging
import signal
import sys
from _thread import start_new_thread
from collections.abc import Callable
from typing import IO, Any

from . import __version__
from ._copies import copy_of
from ._imports import is_imported
from ._safely import safely
from .installation import Installation, current
from .model import EngineInfo
from .registry import Registry
from .report import Options
from .snapshot import Sources, Status, read_status

logger = logging.getLogger("loopsentry")


def status() -> Status:
    """Say what is going on now: every event loop, engine, pool and connection, who owns what.

    Works without `install()` too; then what there is now is known, but not who opened it. It may
    be called from any thread, also while every loop is blocked. No loop, task or connection is
    asked or changed: they are looked at from outside, and may have moved on by the time it returns.

    Returns:
        A `Status`. Tasks of a loop are listed up to a thousand, and a quarter of a second; the
        others are counted.

    Since version 0.1.0.
    """
    installed = current()
    installation = installed or Installation(Options())
    registry, watchdog = installation.registry, installation.watchdog

    def label_of(target: Any) -> str | None:
        sighting = registry.sight(target)
        return sighting.label if sighting is not None else None

    sources = Sources(
        registry=registry,
        still=watchdog.still if watchdog is not None else lambda _ident: None,
        label_of=label_of,
        engines=_engines(registry),
    )
    return read_status(__version__, sources, recorded=installed is not None)


def _engines(registry: Registry) -> list[tuple[Any, EngineInfo]]:
    """Every asynchronous engine, once for each pool, as it was met or made first."""
    if not is_imported("sqlalchemy.ext.asyncio"):
        return []
    from .engines import engine_of, engines_in_memory

    everyone = [
        *copy_of(registry.engines.__iter__),
        *(each.sync_engine for each in engines_in_memory()),
    ]
    by_pool = {id(engine.pool): engine for engine in reversed(everyone)}
    described = ((each, engine_of(each, registry)) for each in reversed(by_pool.values()))
    return [(each, info) for each, info in described if info is not None and info.asynchronous]


def print_status(file: IO[str] | None = None) -> None:
    """Print what is going on now, in colour where `file` is a terminal.

    Args:
        file: where to print; standard error by default.

    Since version 0.1.0.
    """
    from rich.console import Console

    from .overview import print_lines, tell

    print_lines(Console(file=file or sys.stderr, stderr=file is None), tell(status()))


def on_signal(signum: int | None = None, file: IO[str] | None = None) -> Callable[[], None]:
    """Print the status whenever this process receives a signal, also while its loop is blocked.

    It is printed by a thread that lives as long as that takes. A handler that was there before is
    called too. `loop.add_signal_handler()` for the same signal takes its place.

    Args:
        signum: the signal; SIGUSR1 by default. Windows has no such signal, and its programs can
            be sent SIGBREAK alone: without `signum` nothing happens there, and a warning says so.
        file: where to print; standard error by default.

    Returns:
        A function that puts the handler of before back, where ours is still in place.

    Raises:
        ValueError: outside the main thread, where Python allows no signal handlers.

    Since version 0.1.0.
    """
    chosen: int | None = signum if signum is not None else getattr(signal, "SIGUSR1", None)
    if chosen is None:
        logger.warning(
            "on_signal() does nothing here: this system has no SIGUSR1;"
            " name a signal that it has, as on_signal(signal.SIGBREAK)"
        )
        return lambda: None
    before = signal.getsignal(chosen)

    def show(number: int, frame: Any) -> None:
        # A thread, because the signal may have come in the middle of a write to the same stream.
        start_new_thread(safely(print_status), (file,))
        if callable(before):
            before(number, frame)

    signal.signal(chosen, show)

    def undo() -> None:
        if signal.getsignal(chosen) is show:
            signal.signal(chosen, before)

    return undo
