"""The IPython extension, in a real IPython of its own."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunProgram

CELLS = """
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(colors="NoColor")
    shell.run_cell("%load_ext loopsentry")
    shell.run_cell('''
    import asyncio, os, threading
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    engine = create_async_engine(os.environ["DATABASE_URL"])

    async def ask():
        async with engine.connect() as connection:
            return await connection.scalar(text("select 1"))

    def in_a_thread():
        asyncio.run(ask())

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    ''', store_history=True)
    print("--- failing cell")
    shell.run_cell("await ask()", store_history=True)
    print("--- ordinary mistake")
    shell.run_cell("1 / 0")
    print("--- unloaded")
    shell.run_cell("%unload_ext loopsentry")
    shell.run_cell("engine = create_async_engine(os.environ['DATABASE_URL']); in_a_thread()")
    shell.run_cell("await ask()")
"""


def test_a_cell_that_fails_is_explained_where_its_traceback_is(run_program: RunProgram) -> None:
    """The story comes once, with the traceback; other failures and unloading are as ever."""
    pytest.importorskip("IPython", reason="IPython is not installed")
    result = run_program(textwrap.dedent(CELLS), under=False)
    assert result.returncode == 0, result.output
    _, failing = result.output.split("--- failing cell")
    failing, ordinary = failing.split("--- ordinary mistake")
    ordinary, unloaded = ordinary.split("--- unloaded")
    assert failing.count("error[LS101]") == 1, failing
    assert "in_a_thread()" in failing
    assert re.search(r"^  here   In\[\d+\]:\d+ ask\(\)", failing, re.MULTILINE), failing
    assert "loop B, IPython's own" in failing
    assert "attached to a different loop" in failing
    assert "ZeroDivisionError" in ordinary
    assert "LS" not in ordinary
    assert "attached to a different loop" in unloaded
    assert "[LS" not in unloaded
