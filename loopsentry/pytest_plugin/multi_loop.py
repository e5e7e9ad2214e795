"""The marker `multi_loop`: a test's function, run on several event loops."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from loopsentry.testing import assert_loop_safe


def run_on_loops(item: pytest.Function, marker: pytest.Mark) -> None:
    """Run an async test on several loops; its fixtures are those of the one set-up.

    Raises:
        pytest.fail.Exception: for a test that is not async, or a marker with other arguments.
    """
    if marker.args or set(marker.kwargs) - {"timeout", "skip"}:
        pytest.fail(
            f"{item.nodeid}: multi_loop takes only the keywords timeout and skip", pytrace=False
        )
    function = _coroutine_function(item.obj)
    if function is None:
        pytest.fail(
            f"{item.nodeid}: multi_loop is for async tests, this one is not async", pytrace=False
        )
    names = item._fixtureinfo.argnames
    arguments = {name: item.funcargs[name] for name in names}
    assert_loop_safe(functools.partial(function, **arguments), **marker.kwargs)


def _coroutine_function(function: Any) -> Any:
    """The test as it was written, below the wrapper by which a plugin makes it synchronous."""
    while function is not None and not inspect.iscoroutinefunction(function):
        function = getattr(function, "__wrapped__", None)
    return function
