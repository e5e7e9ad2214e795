"""The static audit: projects whose mistake is found, and twins about which it is silent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loopsentry.audit.auditor import AuditError, audit, explain_silence, load_rules
from loopsentry.audit.findings import Finding
from loopsentry.audit.reports import as_json, render
from loopsentry.cli import cli
from loopsentry.explanation import explain

DB = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
engine = create_async_engine("postgresql+asyncpg://db/shop")
Session = async_sessionmaker(engine)
"""
USES = """
import asyncio
from app.db import Session, engine
async def load():
    async with Session() as session:
        await session.execute("select 1")
async def save():
    async with Session() as session:
        await session.execute("insert")
"""
TASK = """
from celery import shared_task
@shared_task
def send():
    asyncio.run(load())
"""
TWICE = """
def main():
    asyncio.run(load())
    asyncio.run(save())
if __name__ == "__main__":
    main()
"""
SERVER = """
import uvicorn
from fastapi import Depends, FastAPI
app = FastAPI()
async def get_session():
    async with Session() as session:
        yield session
@app.get("/")
async def show(session=Depends(get_session)):
    return await session.execute("select 1")
if __name__ == "__main__":
    asyncio.run(load())
    uvicorn.run(app)
"""
HELPER = """
from celery import shared_task
def run_async(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()
@shared_task(bind=True)
def send(self):
    run_async(load())
"""
DECORATOR = """
import functools
import typer
app = typer.Typer()
def asynchronous(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return asyncio.run(function(*args, **kwargs))
    return wrapper
@app.callback()
@asynchronous
async def prepare():
    await load()
@app.command()
@asynchronous
async def work():
    await save()
"""
LOOP = """
import time
def main():
    while True:
        asyncio.run(load())
        time.sleep(1)
if __name__ == "__main__":
    main()
"""
THREAD = """
import threading
def work():
    asyncio.run(load())
def start():
    threading.Thread(target=work).start()
"""
GETTER = """
from celery import shared_task
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
_engine = None
def get_engine():
    global _engine
    if _engine is None:
        _engine = create_async_engine("postgresql+asyncpg://db/shop")
    return _engine
async def look():
    async with AsyncSession(get_engine()) as session:
        await session.execute("select 1")
@shared_task
def send():
    asyncio.run(look())
"""
SERVICE = """
from celery import shared_task
from sqlalchemy.ext.asyncio import create_async_engine
class Database:
    def __init__(self):
        self.engine = create_async_engine("postgresql+asyncpg://db/shop")
    async def look(self):
        async with self.engine.connect() as connection:
            await connection.execute("select 1")
database = Database()
@shared_task
def send():
    asyncio.run(database.look())
"""
CLIENT = """
import httpx
from celery import shared_task
client = httpx.AsyncClient()
async def fetch():
    await client.get("https://example.org")
@shared_task
def send():
    asyncio.run(fetch())
"""
BRIDGE = """
from asgiref.sync import async_to_sync
def answer(path):
    return async_to_sync(load)()
def main():
    return [answer(path) for path in ("/a", "/b")]
if __name__ == "__main__":
    main()
"""
ROUTE = """
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
async def show(request):
    await load()
app = Starlette(routes=[Route("/", show)])
def serve():
    uvicorn.run(app)
def prepare():
    asyncio.run(save())
if __name__ == "__main__":
    prepare()
    serve()
"""
SUBMITTED = """
from concurrent.futures import ThreadPoolExecutor
def begin():
    with ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, load()).result()
"""
TARGET = """
import threading
def begin():
    threading.Thread(target=asyncio.run, args=(load(),)).start()
"""
CLASS_TASK = """
import celery
class Send(celery.Task):
    def run(self, number):
        asyncio.run(load())
"""
COMMAND = """
from django.core.management.base import BaseCommand
class Command(BaseCommand):
    def handle(self, *args, **options):
        asyncio.run(load())
        asyncio.run(save())
"""
WARM = """
def handler(event, context):
    return asyncio.run(load())
"""
STREAMLIT = """
import streamlit as st
st.write(asyncio.run(load()))
"""
IMPORTED = """
from fastapi import FastAPI
app = FastAPI()
asyncio.run(save())
@app.get("/")
async def show():
    return await load()
"""
GETTER_LOOP = """
from celery import shared_task
_loop = None
def loop_of_process():
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    return _loop
def run_async(coroutine):
    loop = asyncio.new_event_loop()
    return loop.run_until_complete(coroutine)
@shared_task
def send():
    run_async(load())
"""
CLEANING = """
from celery import shared_task
def clean(loop):
    loop.run_until_complete(engine.dispose())
def run_async(make):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(make())
    finally:
        print(loop)
@shared_task
def send():
    run_async(lambda: load())
"""
ESCAPES = """
import asyncpg
pool = None
async def open_pool():
    global pool
    pool = await asyncpg.create_pool("postgresql://db/shop")
async def ask():
    return await pool.fetch("select 1")
def main():
    asyncio.run(open_pool())
    asyncio.run(ask())
if __name__ == "__main__":
    main()
"""
TOLERANT = DB.replace("+asyncpg", "+psycopg")
LIBRARY = """
def send_now():
    asyncio.run(load())
"""

#: A project's main file, then the certainty, the start's function and the chain's functions.
FOUND: dict[str, tuple[str, str, list[str]]] = {
    "task": (TASK, "proven", ["send", "load"]),
    "two runs in a row": (TWICE, "proven", ["<module>", "main", "save"]),
    "a server after a run": (SERVER, "likely", ["<module>", "load"]),
    "a helper": (HELPER, "proven", ["send", "load"]),
    "a decorator": (DECORATOR, "proven", ["work", "save"]),
    "in a loop's body": (LOOP, "proven", ["main", "load"]),
    "in a thread": (THREAD, "likely", ["work", "load"]),
    "a lazy getter": (GETTER, "proven", ["send", "look"]),
    "an object of a module": (SERVICE, "proven", ["send", "look"]),
    "an HTTP client": (CLIENT, "proven", ["send", "fetch"]),
    "a bridge in a loop's body": (BRIDGE, "proven", ["main", "answer", "load"]),
    "a server with routes in a list": (ROUTE, "likely", ["<module>", "prepare", "save"]),
    "a runner handed to a pool of threads": (SUBMITTED, "likely", ["begin", "load"]),
    "a runner handed to a thread": (TARGET, "likely", ["begin", "load"]),
    "a class that is a task": (CLASS_TASK, "proven", ["run", "load"]),
    "a management command": (COMMAND, "proven", ["handle", "save"]),
    "a warm function": (WARM, "proven", ["handler", "load"]),
    "a script that runs again": (STREAMLIT, "proven", ["<module>", "load"]),
    "a run while a server imports": (IMPORTED, "likely", ["<module>", "save"]),
    "a pool that one run opens for the next": (ESCAPES, "proven", ["<module>", "main", "ask"]),
    "no caller": (LIBRARY, "latent", ["send_now", "load"]),
}

RUNNERS = """
def main():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(load())
    loop = asyncio.new_event_loop()
    asyncio.run(save())
if __name__ == "__main__":
    main()
"""
NO_POOL = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
engine = create_async_engine("postgresql+asyncpg://db/shop", poolclass=NullPool)
Session = async_sessionmaker(engine)
"""

#: What one change makes of a project that is found: the source, the two texts that are exchanged,
#: and the rule that keeps silent then.
TWINS: dict[str, tuple[str, str, str, str]] = {
    "disposed in the coroutine": (
        TASK,
        'await session.execute("select 1")',
        'await session.execute("select 1"); await engine.dispose()',
        "disposed",
    ),
    "disposed before the run": (
        TASK,
        "    asyncio.run(load())",
        "    engine.sync_engine.dispose(); asyncio.run(load())",
        "disposed",
    ),
    "a kept loop": (
        HELPER,
        "loop = asyncio.new_event_loop()",
        "loop = asyncio.get_event_loop()",
        "kept-loop",
    ),
    "one run": (TWICE, "    asyncio.run(save())\n", "", "one-run"),
    "one or the other": (
        TWICE,
        "    asyncio.run(load())\n",
        "    if engine:\n        asyncio.run(load())\n        return\n",
        "one-run",
    ),
    "a server in children": (SERVER, "run(app)", "run(app, reload=True)", "one-run"),
    "one loop in a variable": (
        RUNNERS,
        "asyncio.run(save())",
        "loop.run_until_complete(save())",
        "one-run",
    ),
    "one loop for a loop's body": (
        LOOP,
        "    while True:\n        asyncio.run(load())",
        (
            "    loop = asyncio.new_event_loop()\n"
            "    while True:\n        loop.run_until_complete(load())"
        ),
        "one-run",
    ),
    "one runner": (
        TWICE,
        "    asyncio.run(load())\n    asyncio.run(save())",
        (
            "    with asyncio.Runner() as runner:\n"
            "        runner.run(load())\n        runner.run(save())"
        ),
        "one-run",
    ),
    "nothing shared": (TASK, "run(load())", "run(asyncio.sleep(1))", "nothing-shared"),
    "an object of its own": (
        SERVICE,
        "database = Database()\n@shared_task\ndef send():\n",
        "@shared_task\ndef send():\n    database = Database()\n",
        "nothing-shared",
    ),
    "a loop that a getter keeps": (
        GETTER_LOOP,
        "    loop = asyncio.new_event_loop()\n    return",
        "    loop = loop_of_process()\n    return",
        "kept-loop",
    ),
    "disposed below the helper": (CLEANING, "print(loop)", "clean(loop)", "disposed"),
    "one run of a command": (COMMAND, "        asyncio.run(save())\n", "", "one-run"),
    "another signature": (WARM, "def handler(event, context)", "def test_handler(event)", "test"),
    "no handlers": (IMPORTED, '@app.get("/")\n', "", "one-run"),
    "no task": (TASK, "@shared_task\ndef send", "def test_send", "test"),
}


def write(folder: Path, main: str, *, db: str = DB, name: str = "main.py") -> Path:
    """Write a project with a package `app`."""
    package = folder / "app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "db.py").write_text(db, "utf-8")
    (package / name).write_text(main, "utf-8")
    return folder


def found_in(folder: Path) -> list[Finding]:
    """Audit a project; give its findings of the rule under test."""
    return [each for each in audit([folder]).findings if each.code == "LSA101"]


@pytest.mark.parametrize("case", FOUND)
def test_a_mistake_is_found_place_by_place(tmp_path: Path, case: str) -> None:
    """The certainty, the start, the chain and the object are those of the source."""
    main, certainty, chain = FOUND[case]
    source = USES + main
    (finding,) = found_in(write(tmp_path, source))
    assert finding.certainty == certainty
    assert [link.function for link in finding.chain] == chain
    assert finding.file == "app/main.py"
    assert ".run" in source or finding.line <= source.count("\n")
    assert finding.object is not None
    assert finding.fixes


@pytest.mark.parametrize("case", TWINS)
def test_one_change_silences_it(tmp_path: Path, case: str) -> None:
    """What cures the mistake, or makes it none, is understood, and can be asked for."""
    main, before, after, rule = TWINS[case]
    source = USES + main
    assert source.count(before) == 1
    broken, cured = tmp_path / "broken", tmp_path / "cured"
    for folder in (broken, cured):
        folder.mkdir()
    assert found_in(write(broken, source))
    assert found_in(write(cured, source.replace(before, after))) == []
    silences = audit([cured]).silences
    told = next(each for each in silences if each.rule == rule)
    assert rule in explain_silence(audit([cured]), f"{told.file}:{told.line}")


def test_an_engine_without_a_pool_is_left_alone(tmp_path: Path) -> None:
    """NullPool leaves nothing behind on a loop."""
    write(tmp_path, USES + TASK, db=NO_POOL)
    assert found_in(tmp_path) == []
    assert [each.rule for each in audit([tmp_path]).silences] == ["own-pool"]


PERHAPS = """
import os
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
options = {}
if os.environ.get("WORKER"):
    options["poolclass"] = NullPool
engine = create_async_engine("postgresql+asyncpg://db/shop", **options)
Session = async_sessionmaker(engine)
"""


def test_a_pool_that_depends_on_a_setting_is_only_likely(tmp_path: Path) -> None:
    """What would be proven is likely where the engine may have no pool, and the reason says so."""
    (finding,) = found_in(write(tmp_path, USES + TASK, db=PERHAPS))
    assert finding.certainty == "likely"
    assert "depends on a setting" in finding.reason


def test_a_driver_that_is_bound_to_no_loop_is_left_alone(tmp_path: Path) -> None:
    """Psycopg's and aiosqlite's connections survive a change of loop between uses."""
    write(tmp_path, USES + TASK, db=TOLERANT)
    assert found_in(tmp_path) == []
    assert [each.rule for each in audit([tmp_path]).silences] == ["tolerant-driver"]


# what is reported ------------------------------------------------------------------------------


def test_every_rule_says_what_it_is() -> None:
    """A rule has a code of its own, a name, a title and an explanation."""
    rules = load_rules()
    assert len({rule.CODE for rule in rules}) == len(rules) > 0
    for rule in rules:
        title, _, explanation = (rule.__doc__ or "").partition("\n")
        assert title
        assert explanation.strip()
        assert rule.CODE.startswith("LSA1")
        assert explanation.strip() in explain(rule.CODE)
        assert rule.CODE in explain(None)


def test_the_json_form_is_that_of_the_contract(tmp_path: Path) -> None:
    """The record has the published fields, with paths relative to the audited folder."""
    (tmp_path / "broken.py").write_text("def (", "utf-8")
    told = json.loads(render(audit([write(tmp_path, USES + TASK)]), "json"))
    assert told["schema"] == 1
    (finding,) = told["findings"]
    assert {"code", "kind", "certainty", "file", "line", "message", "chain", "object", "fixes"} <= (
        finding.keys()
    )
    assert set(finding["chain"][0]) == {"file", "line", "function", "note"}
    assert {"name", "file", "line"} <= finding["object"].keys()
    assert finding["object"]["file"] == "app/db.py"
    assert [skipped["file"] for skipped in told["skipped"]] == ["broken.py"]


@pytest.mark.parametrize("how", ["text", "concise"])
def test_a_report_names_the_start_and_the_object(tmp_path: Path, how: str) -> None:
    """A reader, and grep, find the place, the code and the count."""
    shown = render(audit([write(tmp_path, USES + TASK)]), how)
    assert "LSA101" in shown
    assert "app/main.py:" in shown
    assert "1 proven, 0 likely, 0 latent; 1 starts" in shown


def test_github_gets_annotations(tmp_path: Path) -> None:
    """What is proven annotates its line as an error, what is latent as a notice."""
    shown = render(audit([write(tmp_path, USES + TASK + LIBRARY)]), "github").splitlines()
    assert [line.partition(" ")[0] for line in shown] == ["::error", "::notice"]
    assert shown[0].startswith("::error file=app/main.py,line=")
    assert "title=LSA101::" in shown[0]


CUSTOM = """
from app.worker import background
@background
def send():
    asyncio.run(load())
"""
SETTINGS = {
    "ignored": ('ignore = ["LSA101"]', []),
    "another selected": ('select = ["LSA102"]', []),
    "selected": ('select = ["LSA101"]', ["latent"]),
    "ignored there": ('per-file-ignores = {"app/*" = ["LSA101"]}', []),
    "ignored elsewhere": ('per-file-ignores = {"other/*" = ["LSA101"]}', ["latent"]),
    "a starter": ('starters = ["app.worker.background"]', ["latent"]),
    "an entry point": ('entry-points = ["background"]', ["proven"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_project_says_how_it_is_audited(tmp_path: Path, case: str) -> None:
    """Codes are chosen, left out, and left out by file, and decorators of tasks are named."""
    table, expected = SETTINGS[case]
    write(tmp_path, USES + CUSTOM)
    (tmp_path / "pyproject.toml").write_text(f"[tool.loopsentry.audit]\n{table}\n", "utf-8")
    assert [each.certainty for each in found_in(tmp_path)] == expected


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("slect = []", "'slect'; it has select, ignore"),
        ('select = "LSA101"', "is not a list of texts"),
        ("per-file-ignores = []", "is not a table"),
        ("select = [", "pyproject.toml"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, table: str, words: str) -> None:
    """A wrong key or value is an error that says what is valid, never half an audit."""
    write(tmp_path, USES + CUSTOM)
    (tmp_path / "pyproject.toml").write_text(f"[tool.loopsentry.audit]\n{table}\n", "utf-8")
    with pytest.raises(AuditError, match=words):
        audit([tmp_path])


def test_a_comment_silences_a_finding(tmp_path: Path) -> None:
    """`# noqa: LSA101` on the start's line takes it out, another code does not."""
    source = USES + TASK
    line = "asyncio.run(load())"
    write(tmp_path, source.replace(line, f"{line}  # noqa: LSA999"))
    assert found_in(tmp_path)
    (tmp_path / "app" / "main.py").write_text(
        source.replace(line, f"{line}  # noqa: LSA101"), "utf-8"
    )
    assert found_in(tmp_path) == []


ODD: dict[str, bytes] = {
    "null.py": b"x = 1\0",
    "latin.py": b"# -*- coding: latin-1 -*-\nname = '\xe9'\n",
    "bom.py": b"\xef\xbb\xbfx = 1\n",
    "deep.py": b"x = " + b"(" * 500 + b"1" + b")" * 500,
    "chain.py": b"x = " + b" + ".join([b"1"] * 3_000),
    "cycle.py": b"from cycle import a as b\nfrom cycle import b as a\na = b\nb = a\n",
    "empty.py": b"",
}


def test_odd_files_cost_a_line_and_nothing_else(tmp_path: Path) -> None:
    """Files that cannot be read are told, one line each; the others are audited."""
    for name, source in ODD.items():
        (tmp_path / name).write_bytes(source)
    found = audit([write(tmp_path, USES + TASK)])
    assert [each.code for each in found.findings] == ["LSA101"]
    assert {file for file, *_ in found.skipped} <= {"null.py", "deep.py", "chain.py"}
    assert "null.py" in {file for file, *_ in found.skipped}
    assert as_json(found)["skipped"]


def test_the_command_says_by_its_status_what_it_found(tmp_path: Path) -> None:
    """0 for a clean project, 1 for findings, 2 for what cannot be audited."""

    def run(*arguments: Any) -> tuple[int, str]:
        ended = CliRunner().invoke(cli, ["audit", "--no-cache", *map(str, arguments)])
        return ended.exit_code, ended.output

    clean = tmp_path / "clean"
    clean.mkdir()
    write(clean, USES)
    broken = tmp_path / "broken"
    broken.mkdir()
    write(broken, USES + TASK)
    assert run(clean)[0] == 0
    assert run(broken)[0] == 1
    assert run(broken, "--exit-zero")[0] == 0
    assert run(broken, "--min-certainty", "proven", "--format", "concise")[0] == 1
    status, shown = run(tmp_path / "nowhere")
    assert status == 2
    assert "does not exist" in shown
    assert run(broken, "--why-silent", "app/main.py:1")[0] == 2


def test_a_start_that_is_none_cannot_be_explained(tmp_path: Path) -> None:
    """Asking about a line without a start lists the lines that have one."""
    write(tmp_path, USES + TWICE.replace("    asyncio.run(save())\n", ""))
    with pytest.raises(AuditError, match="known starts in that file: lines"):
        explain_silence(audit([tmp_path]), "app/main.py:1")


@pytest.mark.parametrize("path", ["main.py", "app/main.py", "./app/main.py", "{root}/app/main.py"])
def test_a_start_is_found_by_any_path_to_its_file(tmp_path: Path, path: str) -> None:
    """A file is named by its end, from the audited root, or from where the command runs."""
    write(tmp_path, USES + TWICE.replace("    asyncio.run(save())\n", ""))
    found = audit([tmp_path])
    [silence] = found.silences
    asked = f"{path.format(root=tmp_path.as_posix())}:{silence.line}"
    assert silence.rule in explain_silence(found, asked)


STARTER = """
from app.db import engine
from elsewhere.runs import run_now
from celery import shared_task
async def load():
    async with engine.connect() as connection:
        await connection.close()
@shared_task
def send():
    run_now(load())
"""


def test_a_starter_of_another_package_is_named(tmp_path: Path) -> None:
    """What runs a coroutine in a package that is not read is a start once its name is given."""
    write(tmp_path, STARTER)
    assert found_in(tmp_path) == []
    table = '[tool.loopsentry.audit]\nstarters = ["elsewhere.runs.run_now"]\n'
    (tmp_path / "pyproject.toml").write_text(table, "utf-8")
    assert [each.certainty for each in found_in(tmp_path)] == ["proven"]


LAYOUTS = {
    "a src folder": ("src/app/db.py", "src/app/tasks.py", "from app.db import engine"),
    "a namespace package": (
        "acme/shop/db.py",
        "acme/shop/tasks.py",
        "from acme.shop.db import engine",
    ),
    "two roots": ("services/a/shared/db.py", "services/a/jobs.py", "from shared.db import engine"),
    "scripts beside a package": ("app/db.py", "scripts/nightly.py", "from app.db import engine"),
    "a relative import": ("app/core/db.py", "app/jobs/send.py", "from ..core.db import engine"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_imports_are_followed_in_each_layout(tmp_path: Path, case: str) -> None:
    """The engine of another file is found, however the project is laid out."""
    db, tasks, line = LAYOUTS[case]
    files = {db: DB, tasks: STARTER.replace("from app.db import engine", line)}
    files["other/db.py"] = DB.replace("engine =", "other_engine =")
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.replace("from elsewhere.runs import run_now", "from asyncio import run")
        path.write_text(text.replace("run_now(", "run("), "utf-8")
    if case == "a relative import":
        for folder in ("app", "app/core", "app/jobs"):
            (tmp_path / folder / "__init__.py").touch()
    (finding,) = found_in(tmp_path)
    assert finding.object is not None
    assert (finding.file, finding.object.file) == (tasks, db)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link that leads back into the tree ends no audit and doubles no finding."""
    write(tmp_path, USES + TASK)
    (tmp_path / "app" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(found_in(tmp_path)) == 1
