"""Which switch decides when several are set: each against each other one."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from conftest import RunProgram
from inner import Project

PROGRAM = """
import asyncio, json, os, sys, warnings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import loopsentry
warnings.simplefilter("ignore")

async def use(engine):
    async with engine.connect() as connection: await connection.execute(text("select 1"))

def outcome(engine):
    asyncio.run(use(engine))
    try:
        asyncio.run(use(engine))
        return "reconnect"
    except loopsentry.LoopMismatchError:
        return "raise"
    except RuntimeError as exc:
        return "annotate" if hasattr(exc, "__notes__") else "off"
    finally:
        engine.sync_engine.dispose(close=False)

found = []
for off, in_url, option, asked, environment in json.loads(sys.argv[1]):
    for name, value in (("LOOPSENTRY", off), ("LOOPSENTRY_ON_MISMATCH", environment)):
        os.environ.pop(name, None)
        if value: os.environ[name] = value
    url, options = os.environ["DATABASE_URL"], {}
    if option and in_url:
        mark = "&" if "?" in url else "?"
        url += f"{mark}plugin=loopsentry&loopsentry_on_mismatch={option}"
    elif option:
        options["execution_options"] = {"loopsentry_on_mismatch": option}
    loopsentry.install(**({"on_mismatch": asked} if asked else {}))
    found.append(outcome(create_async_engine(url, **options)))
    loopsentry.uninstall()
print(json.dumps(found))
"""
MODES = ("annotate", "raise", "reconnect")


@pytest.mark.parametrize("in_url", [False, True], ids=["execution option", "URL"])
def test_the_first_switch_that_is_set_decides(run_program: RunProgram, in_url: bool) -> None:
    """LOOPSENTRY=off, then the engine's option, then install(), then the environment, then none."""
    cases = [
        (
            off,
            in_url,
            *(mode if present else None for mode, present in zip(modes, given, strict=True)),
        )
        for off in (None, "off")
        for modes in itertools.permutations(MODES)
        for given in itertools.product((False, True), repeat=3)
    ]
    expected = [
        "off" if case[0] else next((mode for mode in case[2:] if mode), "annotate")
        for case in cases
    ]
    ended = run_program(PROGRAM, json.dumps(cases), under=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    wrong = [
        (case, mode, right)
        for case, mode, right in zip(cases, found, expected, strict=True)
        if mode != right
    ]
    assert wrong == []


TESTS = """
import os
import sqlalchemy.ext.asyncio  # for which the plugin installs
import loopsentry
from loopsentry import installation
def test_it():
    installed = installation.current()
    print("MODE", installed.examiner.options.on_mismatch if installed else "off")
    if "ASKED" in os.environ:
        loopsentry.install(on_mismatch=os.environ["ASKED"])
        print("THEN", installation.current().examiner.options.on_mismatch)
"""


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, ["MODE raise"]),
        ({"LOOPSENTRY_ON_MISMATCH": "reconnect"}, ["MODE reconnect"]),
        ({"ASKED": "annotate"}, ["MODE raise", "THEN annotate"]),
        ({"LOOPSENTRY": "off", "LOOPSENTRY_ON_MISMATCH": "reconnect"}, ["MODE off"]),
    ],
    ids=["ini", "environment", "install", "off"],
)
def test_the_ini_option_decides_last(
    tmp_path: Path, url: str, environment: dict[str, str], told: list[str]
) -> None:
    """In pytest the ini option holds where neither environment nor install() says anything."""
    project = Project(tmp_path, url)
    project.write({"pytest.ini": "[pytest]\nloopsentry_on_mismatch = raise\n", "test_it.py": TESTS})
    ended = project.run("-s", env=environment)
    assert re.findall(r"(?:MODE|THEN) \w+", ended.output) == told
