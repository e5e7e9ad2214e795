"""Never in the way: a program ends under loopsentry as it ends without."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

# The type line of an uncaught exception, or of one that was printed with its text.
TYPE_LINE = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Group|Hostile))\b")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status, negative for a signal.
        stdout: what it printed.
        stderr: what it complained of.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def failure(self) -> str | None:
        """The type of the exception that a traceback ended with."""
        types = [found[1] for line in self.stderr.splitlines() if (found := TYPE_LINE.match(line))]
        return types[-1] if types else None

    @property
    def visible(self) -> tuple[int, str, str | None]:
        """What must stay as it was."""
        return self.status, self.stdout, self.failure


class Pair:
    """Runs one program without and with loopsentry, at the same time."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)

    def write(self, files: Mapping[str, str]) -> None:
        """Write the program's files."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")

    def run(self, *command: str, stdin: str = "", interrupt: bool = False) -> tuple[Ended, Ended]:
        """Run a command line below `python` and below `loopsentry run`."""
        lines = (command, ("-m", "loopsentry", "run", *command))
        with ThreadPoolExecutor(2) as pool:
            bare, under = pool.map(lambda line: self._run(line, stdin, interrupt), lines)
        assert "loopsentry failed" not in under.stderr
        return bare, under

    def _run(self, line: tuple[str, ...], stdin: str, interrupt: bool) -> Ended:
        with subprocess.Popen(
            [sys.executable, *line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            first = ""
            if interrupt:
                first = child.stdout.readline()
                time.sleep(0.1)
                child.send_signal(signal.SIGINT)
            stdout, stderr = child.communicate(stdin, timeout=30)
        return Ended(child.returncode, first + stdout, stderr)


@pytest.fixture
def pair(tmp_path: Path, url: str) -> Pair:
    """Give a folder for one program, and a way to run it twice."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOPSENTRY")}
    return Pair(tmp_path, {**kept, "DATABASE_URL": url})


ENGINE = """
import asyncio, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(os.environ["DATABASE_URL"])
async def use(statement="select 1"):
    async with engine.begin() as connection:
        await connection.execute(text(statement))
"""

PROGRAMS = {
    "no-async-engine": """
import sqlite3, json
print(json.dumps(sqlite3.connect(":memory:").execute("select 1").fetchall()))
""",
    "sync-engine": """
from sqlalchemy import create_engine, text
engine = create_engine("sqlite://")
with engine.connect() as connection:
    print(connection.scalar(text("select 41 + 1")))
    connection.execute(text("select nonsense"))
""",
    "value-error": """
import asyncio
async def main(): raise ValueError("mine")
asyncio.run(main())
""",
    "integrity-error": ENGINE  # noqa: S608 - a constant text
    + """
async def main():
    async with engine.connect() as connection:
        await connection.execute(text("create temp table t (id int primary key)"))
        statement = text("insert into t values (1)")
        await connection.execute(statement)
        print("before")
        await connection.execute(statement)
asyncio.run(main())
""",
    "time-out": ENGINE
    + """
async def main():
    try:
        await asyncio.wait_for(use("select pg_sleep(5)"), 0.2)
    finally:
        await engine.dispose()
asyncio.run(main())
""",
    "unreachable-database": ENGINE
    + """
engine = create_async_engine("postgresql+asyncpg://u:p@127.0.0.1:1/none")
asyncio.run(use())
""",
    "hostile-str": """
class Hostile(RuntimeError):
    def __str__(self): raise TypeError("no text")
    __repr__ = __str__
print("before")
raise Hostile("attached to a different loop")
""",
    "cyclic-context": """
first, second = RuntimeError("attached to a different loop"), RuntimeError("Event loop is closed")
first.__context__, second.__context__ = second, first
raise first
""",
    "exit-status": "import sys\nprint('bye')\nsys.exit(7)",
    "exit-text": "import sys\nsys.exit('a last word')",
    "exit-nothing": "import sys\nsys.exit()",
    "exit-in-loop": "import asyncio, sys\nasync def main(): sys.exit(4)\nasyncio.run(main())",
    "group": "raise ExceptionGroup('both', [ValueError('a'), RuntimeError('loop is closed')])",
    "base-exception": """
class OwnExit(BaseException): pass
raise OwnExit("attached to a different loop")
""",
    "cancelled": "import asyncio\nraise asyncio.CancelledError('x')",
    "syntax-error": "print('never'\n",
    "own-excepthook": """
import sys
def hook(kind, exc, traceback): print("own hook", kind.__name__, exc)
sys.excepthook = hook
raise ValueError("mine")
""",
    "own-loop-handler": """
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: print("own handler", context["exception"]))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "own-logging-filter": """
import asyncio, logging
calls = []
logging.getLogger("asyncio").addFilter(lambda record: calls.append(record) or True)
async def fail(): raise ValueError("mine")
async def main():
    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)
    del task
asyncio.run(main())
print(len(calls))
""",
    "thread-fails": """
import threading
def work(): raise ValueError("in a thread")
thread = threading.Thread(target=work)
thread.start(); thread.join(); print("after")
""",
    "pool-in-processes": """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
class OwnError(Exception): pass
def fail(): raise OwnError("from the child")
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try: pool.submit(fail).result()
        except OwnError as exc: print(type(exc), exc.args)
""",
    "main-module": """
import sys
print(__name__, __file__, __package__, __spec__, __doc__, type(__loader__).__name__)
print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
""",
    "main-globals": "print(sorted(globals()), __builtins__, globals().get('__cached__'))",
    "lazy-module": """
import sys, types
class Lazy(types.ModuleType):
    def __getattr__(self, name):
        print("imported for", name)
        raise RuntimeError("not here")
others = dict(sys.modules)
sys.modules.clear()
sys.modules["lazy"] = Lazy("lazy")
sys.modules.update(others)
"""
    + ENGINE
    + """
asyncio.run(use())
asyncio.run(use())
""",
    "hook-fails": """
import sys
def hook(*given): raise KeyError("of the hook")
sys.excepthook = hook
raise ValueError("mine")
""",
    "atexit": "import atexit\natexit.register(print, 'last')\nraise KeyError('mine')",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_without(pair: Pair, name: str) -> None:
    """Standard output, exit status and the last exception's type are those of the bare run."""
    pair.write({"main.py": PROGRAMS[name]})
    bare, under = pair.run("main.py", "one", "--two")
    assert under.visible == bare.visible
    expected = name in {"hostile-str", "cyclic-context", "lazy-module"}
    assert ("LS" in under.stderr) <= expected


def test_an_interrupted_program_dies_of_the_interrupt(pair: Pair) -> None:
    """Ctrl-C ends a program inside its event loop with the same status."""
    pair.write(
        {
            "main.py": ENGINE
            + """
async def main():
    await use()
    print("ready", flush=True)
    await asyncio.sleep(20)
asyncio.run(main())
"""
        }
    )
    bare, under = pair.run("main.py", interrupt=True)
    assert bare.status == -signal.SIGINT
    assert under.visible == bare.visible


def test_a_module_runs_as_python_runs_it(pair: Pair) -> None:
    """`run -m package.module` keeps argv, name, package, path and standard input."""
    probe = (
        "import sys\nfrom . import sibling\n"
        "print(__name__, __package__, __spec__.name, __file__, sys.argv, sys.path[0], __doc__)\n"
        "print(sys.stdin.read().upper())\n"
    )
    pair.write(
        {
            "package/__init__.py": "",
            "package/sibling.py": "",
            "package/module.py": probe,
            "package/__main__.py": probe,
        }
    )
    for target in ("package.module", "package"):
        bare, under = pair.run("-m", target, "-x", "--", "two words", stdin="typed")
        assert bare.status == 0, bare.stderr
        assert under.visible == bare.visible


@pytest.mark.parametrize("target", ["folder", "app.zip"])
def test_a_folder_and_a_zip_file_run_as_python_runs_them(pair: Pair, target: str) -> None:
    """`run` takes a folder or an archive with a `__main__.py`, as `python` does."""
    probe = "import sys, helper\nprint(__name__, repr(__package__), sys.argv, sys.path[0])\n"
    pair.write({"folder/__main__.py": probe, "folder/helper.py": ""})
    with zipfile.ZipFile(pair.folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", probe)
        archive.writestr("helper.py", "")
    bare, under = pair.run(target, "argument")
    assert bare.status == 0, bare.stderr
    assert under.visible == bare.visible


def test_a_program_that_does_not_exist_is_refused(pair: Pair) -> None:
    """A script or module that is not there gives status 2, a sentence and no traceback."""
    for command in (("none.py",), ("-m", "nonesuch.module"), ()):
        _, under = pair.run(*command)
        assert under.status == 2
        assert under.stderr
        assert "Traceback" not in under.stderr


def test_importing_the_main_module_in_a_spawned_child_works(pair: Pair) -> None:
    """A spawned child of multiprocessing finds the main module of a program run with `-m`."""
    work = """
import multiprocessing, sys
def show(queue): queue.put((__name__, sys.argv))
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=show, args=(queue,))
    child.start(); print(queue.get(timeout=20)); child.join(); print(child.exitcode)
"""
    pair.write({"package/__init__.py": "", "package/work.py": work})
    bare, under = pair.run("-m", "package.work", "argument")
    assert bare.status == 0, bare.stderr
    assert under.visible == bare.visible


EXCEPTIONS = (
    ENGINE
    + """
import copy, pickle, subprocess
from sqlalchemy.exc import InterfaceError

READER = (
    "import pickle, sys; exc = pickle.load(sys.stdin.buffer);"
    " print(type(exc).__name__, type(exc.args[0]).__name__, 'loopsentry' in sys.modules)"
)
found = []
asyncio.run(use())
for _ in range(2):
    try:
        asyncio.run(use())
    except InterfaceError as exc:
        print("caught", type(exc), "another operation" in str(exc))
        found += [exc, exc.orig]
    except RuntimeError as exc:
        print("caught", type(exc), "attached to a different loop" in str(exc))
        found.append(exc)
for exc in found:
    for made in (pickle.loads(pickle.dumps(exc)), copy.copy(exc)):
        same = str(made).partition("[LS")[0] == str(exc).partition("[LS")[0]
        print(type(made) is type(exc), same, len(made.args) == len(exc.args))
    subprocess.run([sys.executable, "-c", READER], input=pickle.dumps(exc), check=True)
"""
)


def test_exceptions_are_caught_copied_and_pickled_as_without(pair: Pair) -> None:
    """An explained exception is caught by type and text, and another process unpickles it."""
    pair.environment["PYTHONUNBUFFERED"] = "1"
    pair.write({"main.py": EXCEPTIONS})
    bare, under = pair.run("main.py")
    assert bare.status == 0, bare.stderr
    assert bare.stdout.count("caught") == 2
    assert under.visible == bare.visible
