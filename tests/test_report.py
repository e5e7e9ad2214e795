"""`loopsentry report`: the report files of many processes as one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import RunProgram

from loopsentry.cli import cli

PROGRAM = """
import asyncio, os, sys
lock, queue = asyncio.Lock(), asyncio.Queue()
async def take():
    async with lock: await asyncio.sleep(0)
async def twice(): await asyncio.gather(take(), take())
async def get():
    try: await asyncio.wait_for(queue.get(), 0.01)
    except TimeoutError: pass
for work in (twice, get) if "both" in sys.argv else (twice,):
    asyncio.run(work())
    for _ in range(3):
        try: asyncio.run(work())
        except RuntimeError as exc:
            import logging; logging.error("failed", exc_info=True)
"""


def ask(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


@pytest.fixture
def files(run_program: RunProgram, tmp_path: Path) -> list[Path]:
    """Give the report files of three processes, of which one made two mistakes."""
    made = []
    for number, arguments in enumerate([(), ("both",), ()]):
        records = run_program(PROGRAM, *arguments).records
        assert len(records) == 1 + len(arguments)
        file = tmp_path / f"process{number}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        made.append(file)
    return made


def test_processes_are_merged_by_mistake(files: list[Path]) -> None:
    """A mistake that several processes made is one row, with how many, since when, and its cure."""
    told = json.loads(ask(*files, "--format=json").stdout)["mistakes"]
    assert [(each["code"], each["processes"]) for each in told] == [("LS104", 3), ("LS104", 1)]
    first = told[0]
    assert first["here"].endswith("main.py:5 take()")
    assert first["first"] < first["last"]
    assert first["fix"].startswith("make the lock")
    shown = ask(*files).stdout
    assert "foreign-primitive" in shown
    assert "2 mistakes in 3 files; 4 records" in shown
    rows = ask(*files, "--format=markdown").stdout.splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| LS104 | foreign-primitive, proven |")


def test_what_is_no_record_is_told_and_left_out(files: list[Path]) -> None:
    """Half a record, another program's JSON and an unknown schema lose nothing of the rest."""
    with files[0].open("a") as file:
        file.write('{"schema": 1, "co\n[1]\n{"schema": 2, "code": "LS101"}\n\n')
        file.write('{"schema": 1, "code": "LS101", "fixes": 7}\n')
    ended = ask(*files)
    assert ended.exit_code == 0
    assert [line.partition(": left out: ")[2] for line in ended.stderr.splitlines()] == [
        "no JSON, perhaps half a record of a full disk",
        "no record of loopsentry's",
        "schema 2; this version reads schema 1",
        "no record of loopsentry's",
    ]
    assert "4 records" in ended.stdout


def test_texts_of_a_file_cannot_command_the_terminal(files: list[Path]) -> None:
    """Escape codes and markup in a record are shown as they are written."""
    record = json.loads(files[0].read_text())
    record["fixes"][0]["title"] = "\x1b]0;owned\x07[red]x[/red] | y"
    files[0].write_text(json.dumps(record))
    for form in ("table", "markdown"):
        shown = ask(files[0], f"--format={form}").stdout
        assert "\x1b" not in shown
        assert "[red]x[/red]" in shown


def test_wrong_use_is_told(tmp_path: Path) -> None:
    """No file, or one that does not exist, is wrong use."""
    assert ask().exit_code == 2
    missing = ask(tmp_path / "none.jsonl")
    assert missing.exit_code == 2
    assert "none.jsonl" in missing.stderr
