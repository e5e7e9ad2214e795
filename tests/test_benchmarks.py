"""The documented measurements can be made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import audit, neutrality
from benchmarks.clients import __main__ as clients
from benchmarks.measures import SIZES
from benchmarks.pairs import measure_pair

ROOT = Path(__file__).parent.parent


def test_each_operation_is_measured_with_and_without(url: str) -> None:
    """A pair of processes gives the microseconds of each operation, bare and watched."""
    samples = measure_pair(url, 1, [])
    assert samples.keys() == SIZES.keys()
    for sample in samples.values():
        assert sample.without > 0
        assert sample.watched > 0


def test_a_test_that_ends_otherwise_is_listed() -> None:
    """Each outcome that differs from the one without loopsentry is a line, a missing one too."""
    found = {
        "without": {"a": "passed", "b": "failure", "c": "skipped"},
        "annotate": {"a": "passed", "b": "failure", "c": "skipped"},
        "raise": {"a": "failure", "b": "failure", "d": "passed"},
    }
    assert neutrality.compare(found) == [
        "a: passed without, failure in raise",
        "c: skipped without, not run in raise",
        "d: not run without, passed in raise",
    ]


def test_diagnoses_are_measured(url: str) -> None:
    """Each failure is diagnosed in earnest, and timed, with few tasks and with many."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.diagnosis", "--url", url, "--times", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert set(measured) == {"two loops", "sharing in one loop"}
    assert all(times for failure in measured.values() for times in failure.values())


CURES = {
    "two-runs": ("LS101, proven", "single-run"),
    "shared": ("LS201, proven", "session-per-task"),
}


@pytest.mark.parametrize("situation", CURES)
def test_a_client_is_played_and_cured(
    dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    situation: str,
) -> None:
    """A row of the table of clients says what is told, and what its first cure comes to."""
    monkeypatch.setenv("POSTGRESQL", dsn)
    assert clients.missing("asyncpg_connection") is None
    row = clients.row("asyncpg_connection", "asyncpg", situation, tmp_path / "report.jsonl")
    assert (row.code, row.cure) == CURES[situation]
    assert row.cured == "works"
    assert "works" not in row.bare


def test_every_client_has_a_title() -> None:
    """Each file of the table says what it is, and what it needs is found in it."""
    titles = [clients.title_of(name) for name in clients.names()]
    assert len(set(titles)) == len(titles) > 10


def test_the_audit_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit's own runs, cold and warm, are timed on a copy of a folder."""
    source = tmp_path / "shop"
    source.mkdir()
    (source / "main.py").write_text("import asyncio\nasyncio.run(None)\n", "utf-8")
    own = {name: tool for name, tool in audit.TOOLS.items() if name.startswith("loopsentry")}
    monkeypatch.setattr(audit, "TOOLS", own)
    lines, times = audit.measure(source, 1)
    assert lines == 2
    assert times.keys() == own.keys()
    assert all(wall > 0 for wall, _ in times.values())


def test_a_status_is_measured(url: str) -> None:
    """A status is timed among tasks and among connections, read and printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.status", "--url", url, "--tasks=30", "--connections=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert measured.keys() == {"30 tasks", "3 connections"}
    assert all(taken > 0 for each in measured.values() for taken in each.values())


def test_a_storm_is_measured(url: str) -> None:
    """Each kind of failure is timed with loopsentry and without."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "--pairs", "1", "--failures", "20"],
        cwd=ROOT,
        env={**os.environ, "LOOPSENTRY_TEST_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(re.findall(r"\| \d+ µs \| \d+ µs \| -?\d+ µs \|", ended.stdout)) == 2


def test_the_watch_is_measured() -> None:
    """The watch's cost is a ratio near one, and a busy program is not accused."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.watch", "--pairs", "2", "--polls", "200"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert measured["with / without"] > 0
    assert measured["false claims"] == 0
