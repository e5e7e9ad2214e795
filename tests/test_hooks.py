"""Where exceptions surface: any logger, and nowhere at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import loopsentry

if TYPE_CHECKING:
    from conftest import RunProgram

PROGRAM = """
import asyncio, logging, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
asyncio.run(use())
try: asyncio.run(use())
except Exception as exc:
    if "log" in sys.argv: logging.getLogger("of.a.bot").exception("could not answer")
    if "raise" in sys.argv: raise
    if "replace" in sys.argv: raise KeyError("sku-1") from None
"""
UNSEEN = "the program caught this, and nothing showed it"


def test_an_exception_that_any_logger_writes_is_explained_there(run_program: RunProgram) -> None:
    """A record of whatever logger carries the story, once."""
    ended = run_program(PROGRAM, "log")
    assert ended.returncode == 0
    assert ended.stderr.count("error[LS101]") == 1
    assert ended.stderr.startswith("could not answer")
    assert UNSEEN not in ended.stderr


def test_what_a_program_swallows_is_told_at_its_end(run_program: RunProgram) -> None:
    """`loopsentry run` prints a mistake whose exception nothing showed, on standard error."""
    ended = run_program(PROGRAM)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.count(UNSEEN) == 1
    assert ended.stderr.count("error[LS101]") == 1


def test_what_was_shown_is_not_told_again(run_program: RunProgram) -> None:
    """A mistake that ended the program is told by its traceback alone."""
    ended = run_program(PROGRAM, "raise")
    assert ended.returncode == 1
    assert UNSEEN not in ended.stderr
    assert ended.stderr.count("error[LS101]") == 1


def test_what_an_own_exception_hides_is_told_at_the_end(run_program: RunProgram) -> None:
    """An exception `from None` stays as the program wrote it; the story follows after it."""
    ended = run_program(PROGRAM, "replace")
    assert ended.returncode == 1
    before, _, after = ended.stderr.partition(UNSEEN)
    assert "\nKeyError: 'sku-1'\n" in before
    assert after.count("error[LS101]") == 1


def test_the_record_factory_is_chained_and_put_back() -> None:
    """A factory of the program's goes on making the records, and is there again afterwards."""
    before = logging.getLogRecordFactory()

    class Own(logging.LogRecord):
        """A record of the program's."""

    logging.setLogRecordFactory(Own)
    try:
        with loopsentry.install():
            assert type(logging.makeLogRecord({})) is Own
        assert logging.getLogRecordFactory() is Own
    finally:
        logging.setLogRecordFactory(before)


def test_a_factory_that_was_chained_to_is_silent_after_uninstall(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where another factory calls ours for ever, ours examines nothing any more."""
    before = logging.getLogRecordFactory()
    try:
        loopsentry.install()
        ours = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *given: ours(*given))  # noqa: PLW0108 - another one
        loopsentry.uninstall()
        exc = RuntimeError("Event loop is closed")
        logging.getLogger("of.a.bot").error("failed", exc_info=exc)
        assert caplog.records[-1].exc_info is not None
        assert not hasattr(exc, "__notes__")
    finally:
        logging.setLogRecordFactory(before)


SWALLOWED = """
from fastapi.exceptions import ResponseValidationError
import loopsentry
words = "Error extracting attribute: MissingGreenlet: greenlet_spawn has not been called"
error = {"type": "get_attribute_error", "loc": ("response", "mails"), "msg": words}
error["input"] = "S3cr3t"
try: raise ResponseValidationError([error])
except ResponseValidationError as exc: diagnosis = loopsentry.diagnose(exc)
print(diagnosis.code, diagnosis.certainty, diagnosis.title)
print([fix.id for fix in diagnosis.fixes][:1], "S3cr3t" in repr(diagnosis))
"""


def test_a_lazy_load_that_a_library_swallowed_is_recognised(run_program: RunProgram) -> None:
    """FastAPI's error about an answer tells of the attribute that had to be loaded."""
    pytest.importorskip("fastapi")
    ended = run_program(SWALLOWED)
    first, second = ended.stdout.splitlines()
    assert first.startswith("LS401 likely `mails` was loaded lazily")
    assert second == "['eager-load'] False"
