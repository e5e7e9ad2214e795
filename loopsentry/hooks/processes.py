"""The end of a `multiprocessing` child: it prints its exception itself, and asks no hook."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry._safely import safely, until_failure
from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

#: Before the finalizers of whoever else registers some: the exception is not printed yet.
_FIRST = 1_000_000


def attach(report: Reporter, registry: Registry) -> Undo:
    """Examine an exception while the child winds up, just before it prints it.

    Until Python 3.12 a child's finalizers run while its exception is on its way out. Since 3.13
    they run later; there, and on 3.12, the hook of `traceback` hears of it
    (Lib/multiprocessing/process.py: BaseProcess._bootstrap). `multiprocessing` is never imported
    for it: that takes what is the main module then for the program's (multiprocessing/__init__.py).
    """
    if sys.version_info >= (3, 13):
        return lambda: None
    anchors: list[_Anchor] = []
    finalizers: list[Any] = []

    @until_failure
    def examine() -> None:
        exc = sys.exc_info()[1]
        if isinstance(exc, Exception):
            report(exc)

    @safely
    def begin(_anchor: object) -> None:
        util = sys.modules["multiprocessing.util"]
        finalizers.append(util.Finalize(None, examine, exitpriority=_FIRST))

    @until_failure
    def prepare() -> None:
        util = sys.modules.get("multiprocessing.util")
        if util is None or anchors:
            return
        anchors.append(_Anchor())
        util.register_after_fork(anchors[0], begin)  # a forked child forgets finalizers
        begin(anchors[0])  # a spawned one has begun already

    prepare()
    forget = registry.on_fork(prepare)

    def detach() -> None:
        forget()
        anchors.clear()  # what is registered is kept as long as this lives, no longer
        while finalizers:
            finalizers.pop().cancel()

    return detach


class _Anchor:
    """What a registration lives as long as."""
