"""The pytest plugin: explains failures of tests and fixtures that cross event loops.

Loaded through the entry point `pytest11`; `-p no:loopsentry` leaves it out. It imports next to
nothing when it is loaded, so that a project which measures coverage of its own use of a library is
not disturbed: the rest is imported when the run itself has imported SQLAlchemy's asyncio part.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from loopsentry import __version__

if TYPE_CHECKING:
    from loopsentry.crossings import Crossing

    from .run import Run
    from .tally import Tally

#: Without one of these nothing can belong to a loop but what the tests make themselves.
WATCHED = ("sqlalchemy.ext.asyncio", "asyncpg")
MODES = ("annotate", "raise", "reconnect")
AFTERWARDS = "after the tests"

_run = pytest.StashKey["Run"]()
_replaced = pytest.StashKey[dict[str, str | None]]()


# options -----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    parser.getgroup("loopsentry").addoption(
        "--loopsentry-report",
        metavar="FILE",
        default=None,
        help="write each diagnosis as a line of JSON to FILE, which is made anew",
    )
    parser.addini("loopsentry", "whether failures are explained", type="bool", default=True)
    parser.addini(
        "loopsentry_on_mismatch",
        f"what happens when a connection meets a foreign event loop: {', '.join(MODES)}",
        default="",
    )
    parser.addini(
        "loopsentry_watch",
        "seconds that an event loop may stand still before it is looked at; 0 for no watch",
        default="5",
    )
    parser.addini(
        "loopsentry_fail_on",
        "severities (warning, error), codes or causes that fail a test which would pass",
        type="args",
        default=[],
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Pass the options on before a conftest file can call `install()`."""
    _pass_on(early_config)


def _pass_on(config: pytest.Config) -> None:
    """Say the options in the environment, where `install()` looks after its own arguments.

    What stands there already is stronger than an ini file; child processes follow too.
    """
    if _replaced in config.stash or not config.getini("loopsentry"):
        return
    replaced = config.stash[_replaced] = {}
    mode = str(config.getini("loopsentry_on_mismatch")).strip()
    if mode and mode not in MODES:
        raise pytest.UsageError(
            f"loopsentry_on_mismatch: {mode!r} is not one of {', '.join(MODES)}"
        )
    if mode and "LOOPSENTRY_ON_MISMATCH" not in os.environ:
        replaced["LOOPSENTRY_ON_MISMATCH"] = None
        os.environ["LOOPSENTRY_ON_MISMATCH"] = mode
    report = getattr(config.known_args_namespace, "loopsentry_report", None)
    if report:
        from .settings import make_report_file

        path = make_report_file(report, anew="PYTEST_XDIST_WORKER" not in os.environ)
        replaced["LOOPSENTRY_REPORT"] = os.environ.get("LOOPSENTRY_REPORT")
        os.environ["LOOPSENTRY_REPORT"] = path


def pytest_configure(config: pytest.Config) -> None:
    """Check the options; install if a conftest file has imported what is watched."""
    config.addinivalue_line(
        "markers",
        "multi_loop(timeout=10.0, skip=()): run the async test on several event loops and in a"
        " forked child, as `loopsentry.testing.assert_loop_safe` does",
    )
    _pass_on(config)
    if config.getini("loopsentry_fail_on") or config.getini("loopsentry_watch") != "5":
        from .settings import check

        check(config)
    if config.getini("loopsentry"):
        config.pluginmanager.register(Counting(config), "loopsentry counting")
    _arm(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put the environment back."""
    for name, value in config.stash.get(_replaced, {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that loopsentry is at work, and how."""
    if not config.getini("loopsentry"):
        return None
    if "LOOPSENTRY" in os.environ:
        from loopsentry.installation import switched_off

        if switched_off():
            return f"loopsentry: {__version__}, switched off by LOOPSENTRY"
    run = config.stash.get(_run, None)
    if run is not None:
        mode: str = run.installation.examiner.options.on_mismatch
    else:
        mode = os.environ.get("LOOPSENTRY_ON_MISMATCH", "annotate")
    return f"loopsentry: {__version__}, on_mismatch={mode}"


# installing --------------------------------------------------------------------------------


def _arm(config: pytest.Config, *, anyway: bool = False) -> Run | None:
    """Install once there is something to watch; return what follows the run from then on."""
    run = config.stash.get(_run, None)
    if run is not None:
        run.look()
        return run
    if not (anyway or any(name in sys.modules for name in WATCHED)):
        return None
    if not config.getini("loopsentry"):
        return None
    from .run import start

    run = start(config)
    if run is not None:
        config.stash[_run] = run
    return run


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Install after the module that imports what is watched; explain what importing it raised."""
    report = yield
    call: Any = getattr(report, "call", None)
    excinfo = call.excinfo if call is not None else None
    run = _arm(collector.config, anyway=_speaks_of_loops(excinfo.value if excinfo else None))
    if run is not None:
        run.add_to_collect_report(report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Install before a test, whatever imported what is watched since the last one."""
    _arm(item.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Explain an exception of a test, its set-up or its tear-down."""
    run = _arm(item.config, anyway=_speaks_of_loops(failure_of(item, call)))
    if run is None or not run.has_news(item, call):
        return (yield)
    return (yield from run.make_report(item, call))


def failure_of(item: pytest.Item, call: pytest.CallInfo[None]) -> BaseException | None:
    """What a test, its set-up or its tear-down failed with.

    unittest's own plugin hands its exceptions over only inside the hook that makes the report
    (_pytest/unittest.py: pytest_runtest_makereport).
    """
    waiting = getattr(item, "_excinfo", None)
    excinfo = waiting[0] if isinstance(waiting, list) and waiting else call.excinfo
    return excinfo.value if excinfo is not None else None


def _speaks_of_loops(exc: BaseException | None) -> bool:
    """Whether an exception, or one that it came of, may concern loops though nothing is watched."""
    if exc is None:
        return False
    from .sections import arguments, tree

    found = (e for e in tree(exc) if issubclass(type(e), (RuntimeError, ValueError)))
    texts = (text for exc in found for text in arguments(exc)[:1])
    return any(type(text) is str and "loop" in text for text in texts)


# the end of the run ------------------------------------------------------------------------


class Counting:
    """Counts the mistakes of one run, its workers' too, and tells them at its end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tally: Tally | None = None

    def count(self, test: str, told: list[Any] | None) -> None:
        """Count what was told in one test."""
        if not told:
            return
        if self.tally is None:
            from .tally import Tally

            self.tally = Tally()
        self.tally.add(test, told)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a report tells, a worker's too."""
        self.count(report.nodeid, getattr(report, "loopsentry", None))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count what importing a test module did."""
        self.count(report.nodeid, getattr(report, "loopsentry", None))

    def pytest_sessionfinish(self) -> None:
        """Count what was told after the last test; a worker sends it to the controller."""
        run = self.config.stash.get(_run, None)
        told = run.take_told() if run is not None else []
        sent: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if sent is not None:
            sent["loopsentry"] = told
        else:
            self.count(AFTERWARDS, told)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Count what a worker of pytest-xdist was told after its last test."""
        self.count(AFTERWARDS, getattr(node, "workeroutput", {}).get("loopsentry"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, None, None]:
        """Show stories in colour on a terminal, and name causes in the short summary."""
        if self.tally is None:
            return (yield)
        from .sections import in_colour, named

        stats = terminalreporter.stats
        reports = [*stats.get("failed", ()), *stats.get("error", ())]
        with (
            in_colour(reports if terminalreporter.hasmarkup else ()),
            named(reports),
        ):
            return (yield)

    @pytest.hookimpl(specname="pytest_terminal_summary")
    def pytest_terminal_summary_tally(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Count the mistakes by cause, with the first test of each."""
        if self.tally is not None:
            terminalreporter.section("loopsentry")
            for line in self.tally.lines():
                terminalreporter.write_line(line)


# the harness -------------------------------------------------------------------------------


@pytest.fixture
def loop_crossings() -> Iterator[list[Crossing]]:
    """The connections that this test takes out on another event loop than their own.

    A list of `loopsentry.testing.Crossing`, filled as they happen, whichever the driver.
    """
    from loopsentry.testing import watch_crossings

    with watch_crossings() as crossings:
        yield crossings


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked `multi_loop` on several loops, not on its plugin's."""
    marker = pyfuncitem.get_closest_marker("multi_loop")
    if marker is None:
        return None
    from .multi_loop import run_on_loops

    run_on_loops(pyfuncitem, marker)
    return True
