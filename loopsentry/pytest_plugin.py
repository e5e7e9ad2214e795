"""The pytest plugin, thinly: explains failures of tests, fixtures and teardowns.

Loaded through the entry point `pytest11`; `-p no:loopsentry` leaves it out. It imports next to
nothing when it is loaded, so that coverage of a project that uses it is not disturbed.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from loopsentry.model import Reporter


def pytest_configure(config: pytest.Config) -> None:
    """Install for the whole run, before any test module makes an engine."""
    from loopsentry.installation import current, install

    if current() is None:
        install()
        config.add_cleanup(_uninstall)


def _uninstall() -> None:
    from loopsentry.installation import uninstall

    uninstall()


def pytest_report_header() -> str | None:
    """Say that loopsentry is at work, and how."""
    from loopsentry import __version__
    from loopsentry.installation import current

    installation = current()
    if installation is None:
        return None
    return f"loopsentry: {__version__}, on_mismatch={installation.examiner.options.on_mismatch}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Explain an exception before pytest writes its report."""
    if call.excinfo is not None:
        report = _reporter()
        if report is not None:
            _examine(report, call.excinfo.value, item)
    return (yield)


def _reporter() -> Reporter | None:
    from loopsentry.installation import current

    installation = current()
    return installation.examiner.report if installation is not None else None


def _examine(report: Reporter, exc: BaseException, item: pytest.Item) -> None:
    from loopsentry._safely import safely
    from loopsentry.model import Clue

    test = os.environ.get("PYTEST_CURRENT_TEST", item.nodeid).rpartition(" (")[0] or item.nodeid
    if isinstance(exc, Exception):
        safely(report)(exc, Clue(framework={"name": "pytest", "test": test}))
