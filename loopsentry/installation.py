"""install and uninstall: the composition root, and the only place that touches the world."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from importlib import import_module, metadata
from types import ModuleType, TracebackType
from typing import Any, Self

from . import __version__, _frames, _screen, catalog
from ._copies import copy_of
from ._safely import complain, safely
from ._sockets import keep
from .exceptions import type_name_of
from .model import MODES, Diagnosis, Mode, mode_of
from .recognition import Recogniser
from .registry import Registry
from .report import Examiner, Options, Sink
from .watchdog import Watchdog

logger = logging.getLogger("loopsentry")

#: Whether starts of loops are heard of (sys.monitoring); before, the watch begins at once.
STARTS_HEARD = sys.version_info >= (3, 12)


class Installation:
    """loopsentry at work in this process; leaving it as a context manager takes it out again."""

    def __init__(self, options: Options) -> None:
        self.registry = Registry()
        self.shelves = catalog.load_all()
        recogniser = Recogniser(self.shelves.contexts)
        self.registry.recognise = recogniser.describe_loop
        self.examiner = Examiner(self.registry, self.shelves, recogniser, __version__)
        self.examiner.options = options
        self.examiner.subscribers = _subscribers
        self._attached = ExitStack()
        self._sinks: dict[str, Sink | None] = {}
        self.watchdog: Watchdog | None = None
        self.live = True

    def attach(self) -> None:
        """Listen to the libraries and to the places where exceptions surface."""
        self._attached.callback(self._close_sinks)
        self.attach_probes()
        self._attach_screen()
        self._attached.callback(self.pause_watch)
        self._attached.callback(self.registry.on_start(self.resume_watch))
        for hook in self.shelves.hooks:
            self._attached.callback(hook.attach(self.examiner.report_shown, self.registry))
        self.configure(self.examiner.options)

    def _attach_screen(self) -> None:
        """Show notes in colour where a terminal reads them; what colours them is imported now."""
        if not _screen.is_terminal():
            return
        from . import annotation
        from .renderers import terminal

        del terminal

        def paint(note: Any) -> str | None:
            return annotation.paint(note, verbose=self.examiner.options.verbose)

        _screen.painters[:] = [paint]
        self._attached.callback(_screen.painters.clear)

    def attach_probes(self) -> None:
        """Listen to the libraries alone."""
        for probe in self.shelves.probes:
            if hasattr(probe, "attach"):
                self._attached.callback(probe.attach(self.examiner.report, self.registry))

    def configure(self, options: Options) -> None:
        """Take new options, also for engines that exist already."""
        self.examiner.options = options
        self.registry.look()
        self._open_sinks(options.sinks)
        self.registry.set_mode(options.on_mismatch)
        self._watch(options.watch)

    def _open_sinks(self, asked: tuple[str, ...]) -> None:
        """Open the destinations that always are, and those asked for; close what is no more."""
        named = {catalog.name_of(entry): entry for entry in self.shelves.sinks}
        wanted = {
            name: entry
            for name, entry in named.items()
            if name in asked or not catalog.is_optional(entry)
        }
        for name in [name for name in self._sinks if name not in wanted]:
            self._close_sink(name)
        for name, entry in wanted.items():
            if name not in self._sinks:
                self._sinks[name] = self._open_sink(name, entry)
        self.examiner.sinks = [sink for sink in self._sinks.values() if sink is not None]

    def _open_sink(self, name: str, entry: ModuleType) -> Sink | None:
        try:
            opened: Sink | None = entry.open_sink(os.environ)
        except ImportError:
            logger.warning(
                "the sink %s needs a package that is not installed:"
                " pip install 'sqlalchemy-loopsentry[%s]'",
                name,
                name,
            )
            return None
        except Exception:
            complain(f"{entry.__name__}.open_sink")
            return None
        return opened

    def _close_sink(self, name: str) -> None:
        sink = self._sinks.pop(name)
        if sink is not None:
            safely(sink.close)()

    def _close_sinks(self) -> None:
        for name in list(self._sinks):
            self._close_sink(name)
        self.examiner.sinks = []

    def _watch(self, seconds: float) -> None:
        """Watch for loops that stand still, from the first loop's start on where that is heard."""
        if self.watchdog is not None and self.watchdog.seconds == seconds:
            return
        self.pause_watch()
        self.watchdog = None
        if seconds:
            tell, holders_of = self.examiner.report_hang, self.registry.holders_of
            self.watchdog = Watchdog(seconds, tell, holders_of)
        if not STARTS_HEARD:
            self.resume_watch()

    def pause_watch(self) -> None:
        """End the thread that watches, if there is one."""
        if self.watchdog is not None:
            self.watchdog.stop()

    def resume_watch(self, _loop: Any = None) -> None:
        """Watch again, if that is asked for; `_loop` is one that starts."""
        if self.watchdog is not None:
            self.watchdog.start()

    def detach(self) -> None:
        """Undo everything, the last first; what cannot be undone does not keep the rest."""
        self.live = False
        try:
            self._attached.close()
        except Exception:
            complain("uninstall")


_installed: list[Installation] = []
# Reentrant, because a signal handler or a collection may install or uninstall in the middle of it.
_composing = threading.RLock()
_subscribers: list[Callable[[Diagnosis], object]] = []


class Handle:
    """What `install()` returns: usable as a context manager that uninstalls at its end.

    Its `repr()` says what is installed at that moment: version, options, engines seen.
    """

    def __repr__(self) -> str:
        installed = current()
        if installed is None:
            why = "switched off by LOOPSENTRY" if switched_off() else "not installed"
            return f"<loopsentry {__version__}: {why}>"
        options = installed.examiner.options
        asked = [f"on_mismatch={options.on_mismatch!r}"]
        asked += [f"{name}=True" for name in ("evict", "verbose") if getattr(options, name)]
        asked += ["rewrite_message=False"] * (not options.rewrite_message)
        asked += [f"watch={options.watch}"] * bool(options.watch)
        asked += [f"sinks={options.sinks}"] * bool(options.sinks)
        engines = len(installed.registry.engines)
        seen = f"{engines} engine{'s' * (engines != 1)} seen"
        return f"<loopsentry {__version__} installed: {', '.join(asked)}; {seen}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        uninstall()


def current() -> Installation | None:
    """The installation of this process, if there is one."""
    return _installed[0] if _installed else None


def switched_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `LOOPSENTRY=off` forbids every hook and note."""
    return environment.get("LOOPSENTRY", "").strip().lower() in ("off", "0", "no", "false")


def install(  # noqa: PLR0913 - one keyword for each option
    *,
    on_mismatch: Mode | None = None,
    rewrite_message: bool = True,
    evict: bool = False,
    verbose: bool | None = None,
    watch: float | None = None,
    sinks: Iterable[str] | None = None,
) -> Handle:
    """Watch every async engine of this process, and explain failures that cross event loops.

    Best called once, beside `create_async_engine`; engines made before and after are both seen.
    Calling it again only changes the options. With `LOOPSENTRY=off` in the environment it does
    nothing. It never imports a driver, opens a connection or runs a query.

    Args:
        on_mismatch: what happens when a connection meets a foreign loop. "annotate" (the default;
            also from `LOOPSENTRY_ON_MISMATCH`): the failure happens as always and is explained.
            "raise": each such connection is stopped when it is taken out of its pool, before a
            byte is sent, with `LoopMismatchError`. "reconnect": it is replaced by a new one,
            before a byte is sent, and a warning names both loops. An engine's execution option
            `loopsentry_on_mismatch` comes first. A session that is carried to another loop in hand
            is never taken out there: it fails as always, in every mode.
        rewrite_message: whether the exception's message gains one line; the story is always
            added as a PEP 678 note.
        evict: whether a connection that a failure left unusable is ended at once, and replaced
            at its next checkout. Without it, its later uses fail as they would without loopsentry,
            each explained by the first failure.
        verbose: whether messages tell everything known (also `LOOPSENTRY_VERBOSE=1`).
        watch: seconds that an event loop may stand still before a thread looks what it waits for,
            and tells what can be proven (also `LOOPSENTRY_WATCH`; 0, the default, for no watch).
        sinks: further destinations of what is found, "opentelemetry" or "prometheus" (also
            `LOOPSENTRY_SINKS`, with commas between); each needs the extra of its name.

    Returns:
        A handle whose `repr()` says what is installed, and that may be used as a context manager;
        leaving it calls `uninstall()`.

    Raises:
        ValueError: for a mode or a sink that does not exist, or a negative number of seconds.
    """
    if switched_off():
        return Handle()
    # What is imported inside a running loop would be listened to from the next loop's start on.
    import_module("sqlalchemy.ext.asyncio")
    options = Options(
        on_mismatch=_mode(on_mismatch),
        rewrite_message=rewrite_message,
        evict=evict,
        verbose=_verbose() if verbose is None else verbose,
        watch=_seconds(watch),
        sinks=_sinks(sinks),
    )
    return _compose(options)


def install_beside(watch: float | None) -> Handle:
    """Install without importing SQLAlchemy: listen to it once the program has imported it.

    For the pytest plugin, which tells when to look (`Registry.look`): a suite of asyncpg alone does
    not pay for what it does not use. The options are those of the environment.

    Args:
        watch: as `install()` takes it.

    Returns:
        What `install()` returns.
    """
    if switched_off():
        return Handle()
    options = Options(
        on_mismatch=_mode(None), verbose=_verbose(), watch=_seconds(watch), sinks=_sinks(None)
    )
    return _compose(options)


def _compose(options: Options) -> Handle:
    with _composing:
        if _installed:
            _installed[0].configure(options)
            return Handle()
        installation = Installation(options)
        installation.attach()
        _installed.append(installation)
        _watch_forks()
    logger.info("loopsentry %s installed, on_mismatch=%s", __version__, options.on_mismatch)
    _warn_of_namesake()
    return Handle()


@safely
def watch(engine: Any) -> None:
    """Remember an engine and where it is being made; install, if nothing is installed yet.

    For SQLAlchemy's plugin, which is called inside `create_engine`. With `LOOPSENTRY=off` it does
    nothing.
    """
    if switched_off():
        return
    if not _installed:
        install()
    registry = _installed[0].registry
    registry.engines.add(engine)
    registry.engine_places[engine] = _frames.user_place(_frames.walk_live(sys._getframe(1)))


WATCH = "LOOPSENTRY_WATCH"
_watched: list[bool] = []


def _watch_forks() -> None:
    """Let no inherited connection be collected in a forked child while loopsentry is installed.

    A child that collects one ends the parent's (`_sockets.keep`). Diagnostics allocate, so they can
    start a collection that the program alone would have had later or never.
    """
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=safely(_before_fork),
            after_in_parent=safely(_watch_again),
            after_in_child=safely(_keep_inherited),
        )
        _watched.append(True)


def _before_fork() -> None:
    for installation in _installed:
        installation.pause_watch()  # CPython warns of forks of processes with threads, also of ours
        installation.registry.fork()


def _watch_again() -> None:
    # Where CPython warns (since 3.12) it looks after this: the next loop's start begins it again.
    if not STARTS_HEARD:
        for installation in _installed:
            installation.resume_watch()


def _keep_inherited() -> None:
    global _composing  # noqa: PLW0603 - another thread of the parent may hold it for ever
    _composing = threading.RLock()
    for installation in _installed:
        keep(*copy_of(installation.registry.births.__iter__))
    _watch_again()


def uninstall() -> None:
    """Take every hook, filter and listener out again; without an installation it does nothing."""
    with _composing:
        while _installed:
            _installed.pop().detach()


def _mode(asked: str | None) -> Mode:
    if asked is not None:
        mode = mode_of(asked)
        if mode is None:
            raise ValueError(f"on_mismatch={asked!r} is not one of {', '.join(MODES)}")
        return mode
    named = os.environ.get("LOOPSENTRY_ON_MISMATCH", "annotate")
    mode = mode_of(named)
    if mode is None:
        logger.warning(
            "LOOPSENTRY_ON_MISMATCH=%s is not valid, valid are %s; using annotate",
            named,
            ", ".join(MODES),
        )
    return mode or "annotate"


def _verbose() -> bool:
    return os.environ.get("LOOPSENTRY_VERBOSE") == "1"


def seconds_of(asked: float | str) -> float:
    """How long a loop may stand still, as asked for in a number or a word; 0 for no watch.

    Raises:
        ValueError: if it is no length of time.
    """
    off = isinstance(asked, str) and asked.lower() in ("off", "no", "false")
    seconds = 0.0 if off else float(asked)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"watch={asked!r} is no number of seconds; 0 means no watch")
    return seconds


def _seconds(asked: float | None) -> float:
    if asked is not None:
        return seconds_of(asked)
    if _installed and WATCH not in os.environ:
        return _installed[0].examiner.options.watch
    named = os.environ.get(WATCH, "0")
    try:
        return seconds_of(named)
    except ValueError:
        logger.warning("%s=%s is no number of seconds; nothing is watched", WATCH, named)
        return 0.0


SINKS = "LOOPSENTRY_SINKS"


def _sinks(asked: Iterable[str] | None) -> tuple[str, ...]:
    if asked is None and _installed and SINKS not in os.environ:
        return _installed[0].examiner.options.sinks
    if asked is None:
        named = [name.strip() for name in os.environ.get(SINKS, "").split(",") if name.strip()]
    else:
        named = [asked] if isinstance(asked, str) else list(asked)
    if not named:
        return ()
    valid = [catalog.name_of(sink) for sink in catalog.load("sinks") if catalog.is_optional(sink)]
    for name in named:
        if name not in valid and asked is not None:
            raise ValueError(f"sinks={name!r} is not one of {', '.join(valid)}")
        if name not in valid:
            logger.warning("%s=%s is not valid, valid are %s", SINKS, name, ", ".join(valid))
    return tuple(name for name in named if name in valid)


def _warn_of_namesake() -> None:
    """Say so when the other distribution of the same import name is installed too."""
    try:
        other = metadata.version("loopsentry")
    except metadata.PackageNotFoundError:
        return
    logger.warning(
        "the distribution 'loopsentry' %s is installed beside 'sqlalchemy-loopsentry';"
        " both own the import name. Uninstall one of them and reinstall the other.",
        other,
    )


def diagnose(exc: BaseException) -> Diagnosis:
    """Say what is known about any exception, without changing it.

    Works without `install()` too, from what the objects in the traceback say of themselves.

    Args:
        exc: any exception, caught anywhere.

    Returns:
        The diagnosis. Where nothing in the exception concerns event loops or the sharing of
        connections it is LS000, undetermined.
    """
    from .annotation import diagnosis_of
    from .diagnosis import nothing_known

    known = diagnosis_of(exc)
    if known is not None:
        return known
    installation = current() or Installation(Options())
    diagnosis = safely(installation.examiner.diagnose)(exc)
    if diagnosis is not None:
        return diagnosis
    return nothing_known(type_name_of(exc), __version__)


def subscribe(callback: Callable[[Diagnosis], Any]) -> Callable[[], None]:
    """Call back with each diagnosis when it is made, once for each mistake.

    It may be called before `install()`, and stays subscribed across `uninstall()`. The callback
    runs where the failure happened, inside a guard: what it raises is logged once.

    Args:
        callback: takes a `Diagnosis`.

    Returns:
        A function that ends the subscription.
    """
    _subscribers.append(callback)

    def unsubscribe() -> None:
        if callback in _subscribers:
            _subscribers.remove(callback)

    return unsubscribe
