"""Where exceptions surface: any logger, and nowhere at all."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from rich.traceback import Stack

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


#: Ways in which a program prints an exception itself, and whether they show its notes.
PRINTERS = {
    "print('failed')": False,
    "print('failed:', exc)": False,
    "traceback.print_exception(exc)": True,
    "sys.__excepthook__(type(exc), exc, exc.__traceback__)": True,
    "print(''.join(traceback.format_exception(exc)), file=sys.stderr)": True,
    # Older versions of rich show no notes.
    "Console(stderr=True).print(Traceback.from_exception(type(exc), exc, exc.__traceback__))": (
        "notes" in Stack.__dataclass_fields__
    ),
    "[print(note, file=sys.stderr) for note in exc.__notes__]": True,
}


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("where", ["hook", pytest.param("handler", marks=pytest.mark.slow)])
def test_what_the_program_prints_itself_is_not_told_again(
    where: str, printer: str, run_program: RunProgram
) -> None:
    """A story that the program has shown is told once, one that it left out at the end."""
    program = f"import traceback\nfrom rich.console import Console\n{PROGRAM}"
    program = "from rich.traceback import Traceback\n" + program
    if where == "hook":
        own = f"def own(kind, exc, traceback_):\n    {printer}\nsys.excepthook = own\n"
        program = program.replace("asyncio.run(use())", f"{own}asyncio.run(use())", 1)
    else:
        program += f"    {printer}\n"
    ended = run_program(program, *(["raise"] if where == "hook" else []))
    assert ended.stderr.count("error[LS101]:") == 1
    assert (UNSEEN in ended.stderr) != PRINTERS[printer]


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


CHILD = """
import asyncio, multiprocessing, os, sys
import asyncpg
import loopsentry
async def first():
    global connection
    connection = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await connection.fetchval("select 1")
async def second():
    return await connection.fetchval("select 1")
def work(): asyncio.run(second())
def spawned():
    asyncio.run(first())
    asyncio.run(second())
if __name__ == "__main__":
    loopsentry.install()
    if "uninstall" in sys.argv: loopsentry.uninstall()
    method = sys.argv[1]
    if method == "fork": asyncio.run(first())
    target = work if method == "fork" else spawned
    child = multiprocessing.get_context(method).Process(target=target)
    child.start()
    child.join(20)
    sys.exit(child.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_process_explains_its_end(run_program: RunProgram) -> None:
    """What ends a `multiprocessing` child is explained in the traceback that it prints itself."""
    bare = run_program(CHILD, "fork", under=False, env={"LOOPSENTRY": "off"})
    ended = run_program(CHILD, "fork")
    assert ended.returncode == bare.returncode == 1
    assert ended.stderr.count("error[LS301]") == 1
    assert [record["code"] for record in ended.records] == ["LS301"]
    assert "LS301" not in run_program(CHILD, "fork", "uninstall", under=False).stderr


def test_a_spawned_child_explains_its_end(run_program: RunProgram) -> None:
    """A child that starts afresh explains what ends it, if it installs loopsentry as its parent."""
    program = CHILD.replace("import loopsentry\n", "import loopsentry\nloopsentry.install()\n")
    ended = run_program(program, "spawn", under=False)
    assert ended.returncode == 1
    assert ended.stderr.count("error[LS101]") == 1


PRINTING = PROGRAM.replace("import asyncio,", "import asyncio, traceback,").replace(
    '    if "raise" in sys.argv: raise\n',
    """
    match sys.argv[1:]:
        case ["print_exc"]: traceback.print_exc()
        case ["format_exc"]: sys.stderr.write(traceback.format_exc())
        case ["print_exception"]: traceback.print_exception(exc)
        case ["three"]: traceback.print_exception(type(exc), exc, exc.__traceback__)
        case ["innocent"]:
            try: {}["sku-1"]
            except KeyError: traceback.print_exc()
""",
)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
@pytest.mark.parametrize("how", ["print_exc", "format_exc", "print_exception", "three"])
def test_what_a_program_prints_itself_is_explained_there(run_program: RunProgram, how: str) -> None:
    """An exception that is caught and printed with the module `traceback` carries its story."""
    ended = run_program(PRINTING, how)
    assert ended.returncode == 0
    assert ended.stderr.count("error[LS101]") == 1
    assert UNSEEN not in ended.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_another_exception_is_printed_as_it_is(run_program: RunProgram) -> None:
    """An exception of the program's own keeps its text; the failure that it hides has the story."""
    ended = run_program(PRINTING, "innocent")
    assert ended.returncode == 0
    assert "\nKeyError: 'sku-1'\n" in ended.stderr
    assert ended.stderr.count("error[LS101]") == 1
