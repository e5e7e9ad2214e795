"""Log records with an exception: the program's, those of servers, and the pool's own clean-up.

The record factory sees each record of each logger, before any handler formats it. The pool's own
records are also held back by filters, never handlers, on the concrete loggers: a filter on
`sqlalchemy.pool` would see nothing of its children (logging.Logger.filter is asked for a logger's
own records only), so that each pool's logger is learned when it opens its first connection. Both
survive `logging.config.dictConfig`, which uvicorn calls.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from loopsentry._safely import until_failure
from loopsentry.model import Clue, Reporter
from loopsentry.registry import Registry, Undo

_CLEANUP = ("Exception closing connection", "Exception terminating connection")
_COLLECTED = "The garbage collector is trying to clean up"


def _watch_records(report: Reporter, registry: Registry) -> Undo:
    """Examine the exception of each record that is made, in front of the earlier factory.

    Not of the pools' own, which the filters know better.
    """
    make = logging.getLogRecordFactory()
    asked: list[Reporter] = [until_failure(report)]

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.exc_info and record.name not in registry.logger_names:
            exc = record.exc_info[1]
            if isinstance(exc, Exception):
                for examine in asked:
                    examine(exc)
        return record

    def undo() -> None:
        asked.clear()
        if logging.getLogRecordFactory() is make_record:
            logging.setLogRecordFactory(make)

    logging.setLogRecordFactory(make_record)
    return undo


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
    """Watch the records and put the filters on; return what undoes both."""
    attached = ExitStack()

    def add(name: str, filter_: logging.Filter) -> None:
        logger = logging.getLogger(name)
        logger.addFilter(filter_)
        attached.callback(logger.removeFilter, filter_)

    attached.callback(_watch_records(report, registry))
    fold = _Fold(report, registry)
    attached.callback(registry.on_logger(lambda name: add(name, fold)))
    return attached.close
