"""The pytest plugin, in inner runs: what it shows, what it can be told, what it leaves alone."""

from __future__ import annotations

import json
import re
import textwrap
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from inner import Project

from loopsentry import model, pytest_plugin
from loopsentry.pytest_plugin import advice

if TYPE_CHECKING:
    from pathlib import Path

CROSSING = """
import asyncio, os
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])

async def select_one():
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))

def test_first():
    asyncio.run(select_one())

def test_second():
    asyncio.run(select_one())
"""
LOCK = """
import asyncio
lock = asyncio.Lock()

async def work():
    async with lock:
        await asyncio.sleep(0)

async def work_twice():
    await asyncio.gather(work(), work())

def test_first():
    asyncio.run(work_twice())

def test_second():
    asyncio.run(work_twice())
"""
PLAIN = "import os, sys\n\ndef test_plain():\n"


@pytest.fixture
def project(tmp_path: Path, url: str) -> Project:
    """Give an empty project."""
    return Project(tmp_path, url)


# what it shows -----------------------------------------------------------------------------


def test_failure_has_a_section_everywhere(project: Project) -> None:
    """The story stands once in the terminal, whatever is captured, and in the JUnit file."""
    project.write({"test_it.py": CROSSING})
    run = project.run("--show-capture=no", "--junitxml=junit.xml")
    assert run.output.count("error[LS101]:") == 1
    assert len(run.sections) == 1
    assert "asyncio.run in test_second(), test_it.py:16" in run.sections[0]
    failure = ET.parse(project.folder / "junit.xml").find(".//failure")  # noqa: S314
    assert failure is not None
    assert failure.text is not None
    assert "error[LS101]:" in failure.text
    assert "loopsentry: 0.1.0, on_mismatch=annotate" in run.output
    assert "LS101 closed-loop: 1 mistake in 1 test, first test_it.py::test_second" in run.output


SWALLOWED = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])

async def answer():
    try:
        async with engine.connect() as connection:
            return 200, await connection.scalar(text("select 1"))
    except Exception:
        return 400, None

def test_first():
    assert asyncio.run(answer())[0] == 200

def test_second():
    assert asyncio.run(answer())[0] == 200

def test_third():
    assert asyncio.run(answer())[0] == 200

def test_that_passes():
    assert asyncio.run(answer())[0] == 400

def test_another():
    assert "apples" == "pears"
"""


def test_what_the_application_swallowed_is_shown_where_a_test_fails_of_it(project: Project) -> None:
    """A test that only sees the answer 400 shows the mistake behind it, another nothing."""
    project.write({"test_it.py": SWALLOWED})
    run = project.run()
    assert run.outcomes() == {"passed": 2, "failed": 3}
    assert len(run.sections) == 2
    for section in run.sections:
        assert section.startswith("the test failed otherwise")
        assert "error[LS101]" in section
    assert [record["code"] for record in run.records][:1] == ["LS101"]


def test_workers_of_xdist_send_what_they_know(project: Project) -> None:
    """With pytest-xdist the section and the counts come from the workers."""
    pytest.importorskip("xdist")
    project.write({"test_it.py": CROSSING})
    run = project.run("-n1", "--loopsentry-report", "made/told.jsonl")
    assert len(run.sections) == 1
    assert "LS101 closed-loop: 1 mistake in 1 test, first test_it.py::test_second" in run.output
    lines = (project.folder / "made" / "told.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["code"] for line in lines] == ["LS101"]
    assert run.records == []


def test_failure_without_a_database_is_explained(project: Project) -> None:
    """A lock of another loop is explained though nothing had imported SQLAlchemy."""
    project.write({"test_it.py": LOCK})
    run = project.run()
    assert run.outcomes() == {"passed": 1, "failed": 1}
    assert "error[LS104]" in run.sections[0]
    assert [record["code"] for record in run.records] == ["LS104"]


HEAD = """
import asyncio, os, unittest
from contextlib import asynccontextmanager
import asyncpg, pytest
from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.testclient import TestClient
URL = os.environ["DATABASE_URL"]
DSN = URL.replace("+asyncpg", "")
engine = create_async_engine(URL)
"""
#: Tests, and what is told of the first that fails: code, who started the owner and the user.
FORMS = {
    "one test with several parameters": (
        """
        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", range(3))
        async def test_it(number):
            async with engine.connect() as connection: await connection.execute(text("select 1"))
        """,
        ("LS101", "test_it", "test_it"),
    ),
    "a fixture that runs a loop of its own": (
        """
        async def prepare():
            async with engine.connect() as connection: await connection.execute(text("select 1"))
        @pytest.fixture(scope="session", autouse=True)
        def database(): asyncio.run(prepare())
        @pytest.mark.asyncio
        async def test_it():
            async with engine.connect() as connection: await connection.execute(text("select 1"))
        """,
        ("LS101", "database", "test_it"),
    ),
    "a second client for a running application": (
        """
        @asynccontextmanager
        async def lifespan(app):
            async with asyncpg.create_pool(DSN, min_size=1) as app.state.pool: yield
        app = FastAPI(lifespan=lifespan)
        @app.get("/")
        async def root(request: Request): return await request.app.state.pool.fetchval("select 1")
        def test_it():
            with TestClient(app) as client:
                client.get("/")
                TestClient(app).get("/")
        """,
        ("LS102", "test_it", None),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_loops_of_a_test_are_told_apart(project: Project, name: str) -> None:
    """Whose loop owns what fails, and whether that had ended, in forms that look alike."""
    tests, expected = FORMS[name]
    project.write({"test_it.py": HEAD + textwrap.dedent(tests)})
    run = project.run()
    if run.returncode < 0:
        # Two loops on one connection of asyncpg's can crash an interpreter (protocol.pyx).
        pytest.skip(f"ended with {run.returncode} before anything was told")
    first = run.records[0]
    loops = (first["owner_loop"], first["current_loop"])
    starters = [loop and (loop["started_by"] or {}).get("function") for loop in loops]
    code, owner, current = expected
    assert first["code"] == code, run.output
    assert starters[0] == owner, run.output
    assert current is None or starters[1] == current, run.output


def test_a_test_case_without_a_database_is_explained(project: Project) -> None:
    """Unittest's own failures, which pytest hands over late, are met as others are."""
    cases = """
import unittest
class Case(unittest.TestCase):
    def test_second(self):
        test_first()
        test_second()
"""
    project.write(
        {
            "test_case.py": LOCK.replace("def test_", "def do_test_")
            + cases.replace("        test_", "        do_test_")
        }
    )
    run = project.run()
    assert "error[LS104]" in run.sections[0]


def test_failure_while_collecting_is_explained(project: Project) -> None:
    """A module that fails while it is imported gets the section too."""
    project.write({"test_it.py": f"{CROSSING}\ntest_first()\ntest_second()\n"})
    run = project.run()
    assert run.outcomes()["error"] == 1
    assert "error[LS101]" in run.sections[0]
    assert "LS101 closed-loop: 1 mistake in 1 test, first test_it.py" in run.output


def test_exceptions_keep_their_notes(project: Project) -> None:
    """What a report shows as a section stays a note for other plugins."""
    project.write(
        {
            "conftest.py": "import pytest\n\n"
            "@pytest.hookimpl(trylast=True)\n"
            "def pytest_exception_interact(call):\n"
            "    print('NOTES', len(call.excinfo.value.__notes__))\n",
            "test_it.py": CROSSING,
        }
    )
    assert "NOTES 1" in project.run("-s").output


# what it can be told -----------------------------------------------------------------------


def test_report_file_is_made_anew(project: Project) -> None:
    """`--loopsentry-report` writes the records of this run alone, stronger than the environment."""
    project.write({"test_it.py": LOCK, "told.jsonl": "old\n"})
    run = project.run("--loopsentry-report=told.jsonl")
    [line] = (project.folder / "told.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["cause"] == "foreign-primitive"
    assert run.records == []


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        ("loopsentry_on_mismatch = rise", "'rise' is not one of annotate, raise, reconnect"),
        ("loopsentry_fail_on = LS999", "'LS999' is no severity (warning, error), no code"),
    ],
)
def test_unknown_word_is_a_usage_error(project: Project, ini: str, said: str) -> None:
    """A word that the ini file cannot have ends the run at once, and says what is valid."""
    project.write({"test_it.py": f"{PLAIN}    pass\n", "pytest.ini": f"[pytest]\n{ini}\n"})
    run = project.run()
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in run.output


def test_report_file_that_cannot_be_written_is_a_usage_error(project: Project) -> None:
    """A report that cannot be written is refused before the first test."""
    project.write({"test_it.py": f"{PLAIN}    pass\n"})
    run = project.run("--loopsentry-report=.")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--loopsentry-report: cannot write ." in run.output


@pytest.mark.parametrize(("env", "found"), [(None, "annotate"), ("reconnect", "reconnect")])
def test_ini_mode_yields_to_the_environment(project: Project, env: str | None, found: str) -> None:
    """The ini file's mode is what `install()` finds, unless the environment names another."""
    ask = f"    assert os.environ['LOOPSENTRY_ON_MISMATCH'] == {found!r}\n"
    project.write(
        {
            "test_it.py": PLAIN + ask,
            "pytest.ini": "[pytest]\nloopsentry_on_mismatch = annotate\n",
        }
    )
    run = project.run(env={"LOOPSENTRY_ON_MISMATCH": env} if env else None)
    assert run.outcomes() == {"passed": 1}, run.output
    assert f"on_mismatch={found}" in run.output


def test_mode_raise_stops_a_crossing(project: Project) -> None:
    """With `loopsentry_on_mismatch = raise` the failure comes from loopsentry, before a byte."""
    ini = "[pytest]\nloopsentry_on_mismatch = raise\n"
    project.write({"test_it.py": CROSSING, "pytest.ini": ini})
    run = project.run()
    assert "LoopMismatchError" in run.output
    assert run.records[0]["action"] == "raised"


def test_install_of_a_conftest_file_is_left_alone(project: Project) -> None:
    """What a conftest file installs with its own options stays as it is."""
    project.write(
        {
            "conftest.py": "import loopsentry\nloopsentry.install(rewrite_message=False)\n",
            "test_it.py": CROSSING,
        }
    )
    run = project.run()
    assert "[LS101] connection" not in run.output
    assert "error[LS101]" in run.sections[0]


LEAK = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
other = create_async_engine(os.environ["DATABASE_URL"])

async def select(engine):
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))

def test_leaves_open():
    asyncio.run(select(other))

def test_opens():
    asyncio.run(select(engine))

def test_crosses():
    asyncio.run(select(engine))
    asyncio.run(other.dispose(close=False))
"""


@pytest.mark.parametrize(
    ("word", "failing"),
    [
        ("late-cleanup, error", {"test_leaves_open", "test_opens"}),
        ("LS101", {"test_crosses"}),
    ],
)
def test_chosen_warnings_fail_tests_that_would_pass(
    project: Project, word: str, failing: set[str]
) -> None:
    """`loopsentry_fail_on` fails tests for connections left open, and for hidden crossings."""
    pytest.importorskip("aiosqlite")
    ini = f"[pytest]\nloopsentry_fail_on = {word}\n"
    project.write({"test_it.py": LEAK, "pytest.ini": ini})
    run = project.run()
    assert set(re.findall(r"FAILED test_it.py::(\w+)", run.output)) == failing, run.output
    if "test_crosses" in failing:
        assert "aiosqlite survives this; asyncpg would fail here" in run.output
    if "test_opens" in failing:
        assert "connection left open when its event loop ended" in run.output


# what it leaves alone ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "ini", "env"),
    [
        (["-p", "no:loopsentry"], "", {}),
        ([], "loopsentry = false", {}),
        ([], "", {"LOOPSENTRY": "off"}),
    ],
)
def test_it_can_be_turned_off(
    project: Project, args: list[str], ini: str, env: dict[str, str]
) -> None:
    """Turned off there is no section, no line in a message, no record."""
    project.write({"test_it.py": LOCK, "pytest.ini": f"[pytest]\n{ini}\n"})
    run = project.run(*args, env=env)
    assert run.outcomes() == {"passed": 1, "failed": 1}
    assert not re.search(r"LS\d{3}", run.output)
    assert ("switched off by LOOPSENTRY" in run.output) == bool(env)
    assert run.records == []


def test_hostile_objects_meet_no_error_of_ours(project: Project) -> None:
    """Fixtures and exceptions whose attributes raise end as they do without the plugin."""
    project.write(
        {
            "test_it.py": "import pytest, sqlalchemy.ext.asyncio\n\n"
            "class Hostile(RuntimeError):\n"
            "    def __getattribute__(self, name):\n"
            "        if name in ('__class__', 'args', '__notes__', '__cause__'):\n"
            "            raise LookupError(name)\n"
            "        return super().__getattribute__(name)\n\n"
            "@pytest.fixture\n"
            "def hostile():\n"
            "    yield Hostile('loop')\n\n"
            "def test_value(hostile):\n"
            "    assert type(hostile) is Hostile\n\n"
            "def test_failure():\n"
            "    raise RuntimeError('loop', object()) from ValueError('loop')\n"
        }
    )
    run = project.run()
    assert run.outcomes() == {"passed": 1, "failed": 1}, run.output
    assert "INTERNALERROR" not in run.output
    assert "loopsentry failed" not in run.output


def test_it_imports_next_to_nothing(project: Project) -> None:
    """A run that uses none of the libraries imports none of them, and two modules of ours."""
    project.write(
        {
            "test_it.py": f"{PLAIN}"
            "    ours = {name for name in sys.modules if name.startswith('loopsentry')}\n"
            "    assert ours == {'loopsentry', 'loopsentry.pytest_plugin'}\n"
            "    others = {'sqlalchemy', 'asyncpg', 'starlette', 'rich', 'click', 'greenlet'}\n"
            "    assert not others & set(sys.modules)\n"
        }
    )
    run = project.run("-p", "no:asyncio", "-p", "no:anyio")
    assert run.outcomes() == {"passed": 1}, run.output


def test_coverage_of_a_project_is_whole(project: Project) -> None:
    """Lines that import a library and that open an engine are measured as without the plugin."""
    pytest.importorskip("pytest_cov")
    project.write(
        {
            "shop.py": "from sqlalchemy.ext.asyncio import create_async_engine\n\n"
            "engine = create_async_engine('postgresql+asyncpg://nowhere/')\n",
            "test_it.py": "def test_it():\n    import shop\n    assert shop.engine\n",
        }
    )
    run = project.run("--cov=shop", "--cov=loopsentry", "--cov-report=term")
    assert re.search(r"^shop.py +2 +0 +100%", run.output, re.MULTILINE), run.output


SHARED = """
import asyncio, os
import pytest, pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])

@pytest_asyncio.fixture
async def session():
    async with AsyncSession(engine) as session:
        yield session

async def load(session):
    return await session.scalar(text("select 1 from pg_sleep(0.2)"))

async def serve(session):
    return await asyncio.create_task(load(session))

@pytest.mark.asyncio
async def test_at_once(session):
    await asyncio.gather(serve(session), serve(session))
"""


def test_a_refused_teardown_is_an_echo_of_the_test(project: Project) -> None:
    """A fixture that cannot close a session at work repeats the test's mistake, no other one.

    The tasks show functions of their own; the loop was started by the test nevertheless.
    """
    pytest.importorskip("pytest_asyncio")
    project.write({"test_it.py": SHARED})
    run = project.run()
    [record] = run.records
    assert record["code"] == "LS201"
    assert record["owner_loop"]["started_by"]["function"] == "test_at_once"
    assert record["other_operation"]["function"] == "load"


# the harness -------------------------------------------------------------------------------


def test_marker_and_fixture_find_crossings(project: Project) -> None:
    """`multi_loop` runs a test on several loops, `loop_crossings` lists what crossed."""
    pytest.importorskip("aiosqlite")
    project.write(
        {
            "test_it.py": CROSSING.partition("def test_first")[0]
            + """
@pytest.mark.multi_loop
async def test_unsafe():
    assert await select_one() == 1

@pytest.mark.multi_loop(timeout=5, skip=["forked-child"])
@pytest.mark.parametrize("number", [3])
async def test_safe(number, tmp_path):
    assert number == 3 and tmp_path.exists()

@pytest.mark.multi_loop
def test_not_async():
    pass

def test_crossings(loop_crossings):
    lite = create_async_engine("sqlite+aiosqlite://")

    async def select_two():
        async with lite.connect() as connection:
            return await connection.scalar(text("select 2"))

    asyncio.run(select_two())
    assert loop_crossings == []
    asyncio.run(select_two())
    [crossing] = loop_crossings
    assert crossing.driver == "aiosqlite" and crossing.tolerant and not crossing.forked
    assert crossing.opened_in.endswith("test_crossings") and crossing.used_in
    assert crossing.owner.state == "closed" and crossing.current.id != crossing.owner.id
    assert crossing.used_at.function == "select_two"
""",
        }
    )
    run = project.run("--strict-markers")
    failed = set(re.findall(r"FAILED test_it.py::(\w+)", run.output))
    assert failed == {"test_unsafe", "test_not_async"}, run.output
    assert "it fails on a second loop after the first one closed" in run.output
    assert "error[LS101]" in run.sections[0]
    assert "multi_loop is for async tests" in run.output


# words that two modules share --------------------------------------------------------------


def test_modes_are_those_of_install() -> None:
    """The plugin knows the modes without importing what knows them."""
    assert pytest_plugin.MODES == model.MODES


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("setup.cfg", "[tool:pytest]\n", "setup.cfg, [tool:pytest]"),
        ("tox.ini", "[pytest]\n", "tox.ini, [pytest]"),
        ("pyproject.toml", "[tool.pytest]\n", "pyproject.toml, [tool.pytest]"),
        ("pyproject.toml", "", "pyproject.toml, [tool.pytest.ini_options]"),
        ("pytest.toml", "", "pytest.toml, [pytest]"),
    ],
)
def test_advice_names_the_section_of_each_ini_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, where: str
) -> None:
    """The lines are named with the file that pytest reads, and quoted where that is TOML."""
    monkeypatch.chdir(tmp_path)
    ini = tmp_path / name
    ini.write_text(text)
    [part] = advice._ini_part(advice.Setting(version=(1, 0), ini=ini, test_scope="session"))
    quote = '"' if ini.suffix == ".toml" else ""
    assert part.where == where
    assert part.lines == (f"asyncio_default_fixture_loop_scope = {quote}session{quote}",)
