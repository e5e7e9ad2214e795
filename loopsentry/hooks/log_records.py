"""Log records with an exception: those of servers, of asyncio, and the pool's own clean-up.

Filters, never handlers, on the concrete loggers: a filter on `sqlalchemy.pool` would see nothing
of its children (logging.Logger.filter is asked for a logger's own records only), so that each
pool's logger is learned when it opens its first connection. Filters survive
`logging.config.dictConfig`, which uvicorn calls.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from loopsentry._safely import until_failure
from loopsentry.model import Clue, Reporter
from loopsentry.registry import Registry, Undo

NAMES = (
    "asyncio",
    "uvicorn.error",
    "gunicorn.error",
    "hypercorn.error",
    "daphne.server",
    "celery.app.trace",
    "concurrent.futures",
    "aiosqlite",
)
_CLEANUP = ("Exception closing connection", "Exception terminating connection")
_COLLECTED = "The garbage collector is trying to clean up"


class _Examine(logging.Filter):
    """Examines the exception of each record and lets the record pass."""

    def __init__(self, report: Reporter) -> None:
        super().__init__()
        self.report = until_failure(report)

    def filter(self, record: logging.LogRecord) -> bool:
        exc = record.exc_info[1] if record.exc_info else None
        if isinstance(exc, Exception):
            self.report(exc)
        return True


class _Fold(logging.Filter):
    """Holds back the pool's records about a connection that a diagnosis already explains."""

    def __init__(self, report: Reporter, registry: Registry) -> None:
        super().__init__()
        self.report = report
        self.registry = registry
        self.explains = until_failure(self._explains)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR or not self.explains(record):
            return True
        logger = logging.getLogger(record.name)
        if not logger.isEnabledFor(logging.DEBUG):
            return False
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return True

    def _explains(self, record: logging.LogRecord) -> bool:
        """Whether a record is about a diagnosed connection; one that fails now is diagnosed."""
        message = str(record.msg)
        exc = record.exc_info[1] if record.exc_info else None
        if not message.startswith(_CLEANUP) or not isinstance(exc, Exception) or not record.args:
            return False
        args = record.args
        connection = args[0] if isinstance(args, tuple) else args
        driver_connection = getattr(connection, "driver_connection", connection)
        birth = self.registry.birth_of(driver_connection)
        if birth is None:
            return False
        if birth.serial in self.registry.failures:
            return True
        clue = Clue(
            target=driver_connection,
            birth=birth,
            live=True,
            cleanup=True,
            reaches_program=False,
        )
        return self.report(exc, clue) is not None


def attach(report: Reporter, registry: Registry) -> Undo:
    """Put the filters on; return what takes them off."""
    attached = ExitStack()

    def add(name: str, filter_: logging.Filter) -> None:
        logger = logging.getLogger(name)
        logger.addFilter(filter_)
        attached.callback(logger.removeFilter, filter_)

    for name in NAMES:
        add(name, _Examine(report))
    fold = _Fold(report, registry)
    attached.callback(registry.on_logger(lambda name: add(name, fold)))
    return attached.close
