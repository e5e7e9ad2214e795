"""One test run, from the moment at which there is something to watch."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import weakref
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loopsentry._imports import is_imported
from loopsentry._safely import safely
from loopsentry.installation import (
    WATCH,
    Installation,
    current,
    install_beside,
    switched_off,
    uninstall,
)
from loopsentry.model import Clue, Diagnosis, LoopInfo
from loopsentry.story import WIDEST, WIDTH

from . import failure_of
from .actors import Actor, Role, fixture_actor, place_of, test_actor
from .sections import add_section, diagnosis_on, refer, without_notes
from .settings import fail_on, watched_seconds
from .tally import Told, brief

if TYPE_CHECKING:
    from loopsentry.crossings import Watch

    from .advice import Setting

# As the recognisers of contexts name them.
_ANYIO = "anyio's pytest plugin"
_CLIENT = "TestClient"
_RUNNERS = frozenset({_ANYIO, _CLIENT, "pytest-asyncio", "IsolatedAsyncioTestCase"})
#: How much is kept of one test, and how much of it is told.
WITNESSED, STORIES = 100, 3
_SCOPES = ("session", "package", "module", "class", "function")


def start(config: pytest.Config) -> Run | None:
    """Install, unless a conftest file has done so, and follow the run; None if switched off."""
    if switched_off():
        return None
    if current() is None:
        install_beside(None if WATCH in os.environ else watched_seconds(config))
        config.add_cleanup(uninstall)
    installation = current()
    if installation is None:
        return None
    run = Run(config, installation)
    config.pluginmanager.register(run, "loopsentry run")
    config.add_cleanup(run.detach)
    return run


class Run:
    """Knows which test and which fixture is at work, and on a loop of which scope.

    Attributes:
        config: pytest's.
        installation: loopsentry's.
        heard: the diagnoses since the last report.
        witnessed: those of the test at work, also of mistakes that were told before.
    """

    def __init__(self, config: pytest.Config, installation: Installation) -> None:
        self.config = config
        self.installation = installation
        self.fail_on = fail_on(config)
        self.heard: list[Diagnosis] = []
        self.witnessed: list[Diagnosis] = []
        self.actors: list[Actor] = []
        self.blamed: Actor | None = None
        self.scopes: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self.shared: list[tuple[Any, str]] = []
        self.told_in: dict[tuple[object, ...], str] = {}
        self.watch: Watch | None = None
        self._followed = ExitStack()
        self.follow(installation)

    def follow(self, installation: Installation) -> None:
        """Listen to an installation: the first one, or one that a test has put in its place."""
        self.detach()
        self.installation = installation
        registry, examiner = installation.registry, installation.examiner
        self._followed.callback(registry.on_surroundings(self.describe))
        self._followed.callback(registry.on_loop(self.name_scope))
        self._followed.callback(registry.on_start(self.name_starter))
        listening: tuple[tuple[list[Any], Any], ...] = (
            (examiner.advisers, self.advise),
            (examiner.subscribers, self.hear),
            (examiner.witnesses, self.witness),
        )
        for listeners, ours in listening:
            listeners.append(ours)
            self._followed.callback(_drop, listeners, ours)
        if self.fail_on:
            self._followed.callback(registry.on_look(self._watch_pools))
        self.look()

    def look(self) -> None:
        """Listen to what the program has imported by now."""
        self.installation.registry.look()

    def _watch_pools(self) -> None:
        """Watch the pools of SQLAlchemy, once there can be one."""
        if self.watch is None and is_imported("sqlalchemy"):
            from loopsentry.crossings import Watch

            self.watch = Watch(self.installation.examiner)
            self.watch.attach()
            self._followed.callback(self.watch.detach)

    def detach(self) -> None:
        """Stop listening."""
        self.watch = None
        self._followed.close()

    def hear(self, diagnosis: Diagnosis) -> None:
        """Keep a diagnosis for the next report."""
        self.heard.append(diagnosis)
        if diagnosis.waits:
            safely(self._tell_at_once)(diagnosis)

    def _tell_at_once(self, diagnosis: Diagnosis) -> None:
        """Tell of a test that stands still past pytest's capture: it may never be reported.

        To where pytest's own `faulthandler_timeout` writes (_pytest/faulthandler.py).
        """
        from _pytest import faulthandler

        key = getattr(faulthandler, "fault_handler_stderr_fd_key", None)
        file = self.config.stash.get(key, None) if key is not None else None
        if file is not None:
            test = self.actors[0]["test"] if self.actors else "pytest"
            story = self.installation.examiner.render(diagnosis)
            os.write(file, f"\nloopsentry: {test} stands still\n{story}\n".encode())

    def witness(self, diagnosis: Diagnosis) -> None:
        """Keep an occurrence of a mistake, for the case that the test fails of what came of it."""
        if len(self.witnessed) < WITNESSED:
            self.witnessed.append(diagnosis)

    # who is at work ------------------------------------------------------------------------

    def describe(self) -> Actor | None:
        """The fixture, or else the test, that is at work."""
        return self.actors[-1] if self.actors else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Follow a test from its set-up to its tear-down."""
        installed = current()
        if installed is not None and installed is not self.installation:
            self.follow(installed)
        self.actors = [test_actor(item)]
        self.witnessed.clear()
        try:
            return (yield)
        finally:
            self.actors = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Follow a fixture's set-up, and see to it that its tear-down is known."""
        actor = fixture_actor(fixturedef, self.actors[0]["test"] if self.actors else "")
        self.actors.append(actor)
        is_async, tears_down = _nature(fixturedef.func)
        try:
            result = yield
        except Exception:
            self.blamed = self.blamed or actor
            raise
        finally:
            _drop(self.actors, actor)
        self.look()  # a fixture that makes the application may have imported it
        self._learn_scope(result, fixturedef)
        if is_async:
            self.shared.append((fixturedef, fixturedef.scope))
        if tears_down:
            # Finalizers run in the reverse order: this one just before the fixture's own.
            fixturedef.addfinalizer(lambda: self._tear_down(actor, request.node.nodeid))
        return result

    def _tear_down(self, actor: Actor, test: str) -> None:
        actor["test"] = self.actors[0]["test"] if self.actors else test
        self.actors.append(actor)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """A fixture is torn down: go back to who was at work before."""
        self.shared = [pair for pair in self.shared if pair[0] is not fixturedef]
        for actor in self.actors[1:]:
            if actor.source() is fixturedef:
                _drop(self.actors, actor)

    # loop scopes ---------------------------------------------------------------------------

    def _learn_scope(self, value: Any, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Plugins hand out loops, or runners of them, through fixtures of the loop's scope."""
        # The type alone is asked: a fixture may give a proxy that answers for nothing yet.
        if issubclass(type(value), asyncio.Runner) and _is_plugins_own(fixturedef):
            value = value.get_loop()  # entered already; another runner's loop would be made here
        if issubclass(type(value), asyncio.AbstractEventLoop):
            self.scopes[value] = fixturedef.scope

    def name_scope(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give a loop that is met its scope, where a plugin made it, or its test."""
        record = self.installation.registry.loops[loop]
        scope = self.scopes.get(loop)
        if scope is None and record.info.runner == _ANYIO:
            active = {scope for _, scope in self.shared} | {self._scope_at_work()}
            scope = next(scope for scope in _SCOPES if scope in active)
        info = replace(record.info, scope=scope or record.info.scope)
        record.info = self._with_starter(loop, info)

    def _with_starter(self, loop: asyncio.AbstractEventLoop, info: LoopInfo) -> LoopInfo:
        """The test starts a plugin's loop, also where a task of it shows another function."""
        place = info.started_by
        if info.runner not in _RUNNERS or (info.runner == _CLIENT and place is not None):
            return info
        heard = self.installation.registry.started.get(loop)
        if heard is not None and heard.started_by is not None:
            return replace(info, started_by=heard.started_by)
        roles = [role for actor in self.actors if (role := actor.role()) is not None]
        known = {(role.place.file, role.place.function) for role in roles}
        if not roles or (place is not None and (place.file, place.function) in known):
            return info
        if place is not None and asyncio._get_running_loop() is not loop:
            return info  # of an earlier test
        return replace(info, started_by=roles[0].place)

    def name_starter(self, loop: asyncio.AbstractEventLoop) -> None:
        """A loop that a plugin starts, with nothing of the user's on its stack, is the test's."""
        started = self.installation.registry.started
        role = self.actors[0].role() if self.actors else None
        if role is not None and started[loop].started_by is None:
            started[loop] = replace(started[loop], started_by=role.place)

    def _scope_at_work(self) -> str:
        source = self.actors[-1].source() if self.actors else None
        return source.scope if isinstance(source, pytest.FixtureDef) else "function"

    # diagnosing ----------------------------------------------------------------------------

    def advise(self, diagnosis: Diagnosis) -> Diagnosis:
        """Replace general cures by the exact line that this run needs."""
        from . import advice

        return advice.advise(diagnosis, self._setting())

    def _setting(self) -> Setting:
        from . import advice

        known = {name: self._ini(f"asyncio_default_{name}") for name in _INI_SCOPES}
        return advice.Setting(
            version=_version("pytest_asyncio"),
            ini=self.config.inipath,
            test_scope=known["test_loop_scope"],
            fixture_scope=known["fixture_loop_scope"],
            backend=self._backend(),
        )

    def _ini(self, name: str) -> str | None:
        try:
            return str(self.config.getini(name) or "") or None
        except (ValueError, KeyError):  # a version without it
            return None

    def _backend(self) -> Role | None:
        item: Any = self.actors[0].source() if self.actors else None
        info = getattr(item, "_fixtureinfo", None)
        found = getattr(info, "name2fixturedefs", {}).get("anyio_backend")
        if not found or found[-1].func.__module__ == "anyio.pytest_plugin":
            return None
        place = place_of(found[-1].func)
        return Role(kind="fixture", name="anyio_backend", place=place, scope=found[-1].scope)

    # reports -------------------------------------------------------------------------------

    def has_news(self, item: Any, call: pytest.CallInfo[None]) -> bool:
        """Whether there is anything to add to a report; the question of nearly every test."""
        return bool(failure_of(item, call) is not None or self.heard or self.watch is not None)

    def make_report(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let pytest make its report, and add what is known to it."""
        exc = failure_of(item, call)
        diagnosis = self._examine(exc) if exc is not None else None
        self.blamed = None
        with without_notes(exc if diagnosis is not None else None):
            report = yield
        safely(self._add_to)(report, diagnosis)
        return report

    def _add_to(self, report: pytest.TestReport, diagnosis: Diagnosis | None) -> None:
        self._look_ahead()
        if diagnosis is not None and report.failed:
            add_section(report, self._tell(diagnosis, report.nodeid))
            report.loopsentry_cause = f"{diagnosis.code} {diagnosis.cause}"  # type: ignore[attr-defined]
            self.heard.append(diagnosis)
        elif report.failed:
            self._add_swallowed(report)
        elif report.passed:
            self._fail(report)
        told = {entry["id"]: entry for entry in self.take_told()}
        if told:
            report.loopsentry = list(told.values())  # type: ignore[attr-defined]

    def _tell(self, diagnosis: Diagnosis, test: str) -> str:
        """A story in full the first time; where other tests tell the same one, which it was."""
        examiner, fix = self.installation.examiner, next(iter(diagnosis.fixes), None)
        engine, subject = diagnosis.engine, diagnosis.object
        kin = (
            diagnosis.code,
            diagnosis.title,
            diagnosis.certainty,
            engine and (engine.url, engine.variable),
            subject and subject.label,
            fix and (fix.id, fix.snippet),
        )
        first = self.told_in.setdefault(kin, test)
        width = self._width()
        if first != test and diagnosis.fixes and not examiner.options.verbose:
            return refer(diagnosis, first, width)
        return examiner.render(diagnosis, width=width, beside=True)

    def _width(self) -> int:
        """Columns of the terminal that shows the reports, where one does."""
        writer = self.config.get_terminal_writer()
        worker = hasattr(self.config, "workerinput")
        return min(writer.fullwidth, WIDEST) if writer.hasmarkup and not worker else WIDTH

    def _add_swallowed(self, report: pytest.TestReport) -> None:
        """Add what was diagnosed while the test ran: the application may have caught it."""
        grave = {each.id: each for each in self.witnessed if each.severity == "error"}
        stories = list(map(self.installation.examiner.render, grave.values()))
        if stories:
            told = "the test failed otherwise; while it ran, this was caught or logged:"
            add_section(report, "\n\n".join((told, *stories[:STORIES])))

    def _look_ahead(self) -> None:
        """Announce what the drivers in use survive, where the ini file asks for that."""
        if self.watch is not None:
            for diagnosis in self.watch.take_foreseen():
                self.installation.examiner.announce(diagnosis)

    def _fail(self, report: pytest.TestReport) -> None:
        """Fail a test that passed, for what the ini file names."""
        grave = [
            diagnosis
            for diagnosis in self.heard
            if self.fail_on & {diagnosis.code, diagnosis.cause, diagnosis.severity}
        ]
        if grave:
            render = self.installation.examiner.render
            stories = "\n\n".join(dict.fromkeys(map(render, grave)))
            report.outcome = "failed"
            report.longrepr = f"failed by loopsentry_fail_on\n\n{stories}"

    def _examine(self, exc: BaseException) -> Diagnosis | None:
        if not isinstance(exc, Exception):
            return None
        examiner = self.installation.examiner
        clue = Clue(framework=self.blamed or self.describe())
        found = safely(examiner.report)(exc, clue)
        return found or diagnosis_on(exc)

    def take_told(self) -> list[Told]:
        """What was diagnosed since the last time, reduced to what is counted."""
        told = [brief(diagnosis) for diagnosis in self.heard]
        self.heard.clear()
        return told

    def add_to_collect_report(self, report: pytest.CollectReport) -> None:
        """Add what importing a test module did."""
        call: Any = getattr(report, "call", None)
        exc = call.excinfo.value if call is not None and call.excinfo is not None else None
        diagnosis = self._examine(exc) if exc is not None else None
        told = self.take_told()
        if diagnosis is not None:
            add_section(report, self._tell(diagnosis, report.nodeid))
            told = [brief(diagnosis), *told]
        if told:
            report.loopsentry = told  # type: ignore[attr-defined]


_INI_SCOPES = ("test_loop_scope", "fixture_loop_scope")


def _drop(listed: list[Any], one: Any) -> None:
    listed[:] = [other for other in listed if other is not one]


def _is_plugins_own(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return str(fixturedef.func.__module__).startswith("pytest_asyncio")


def _nature(function: Any) -> tuple[bool, bool]:
    """Whether a fixture is asynchronous, and whether it has a tear-down of its own."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    flags = code.co_flags if code is not None else 0
    return bool(flags & _ASYNCHRONOUS), bool(flags & _GENERATING)


_ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GENERATING = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _version(package: str) -> tuple[int, int]:
    """The first two numbers of an imported package's version."""
    text = str(getattr(sys.modules.get(package), "__version__", ""))
    numbers = [int(number) for number in text.split(".")[:2] if number.isdecimal()]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)
