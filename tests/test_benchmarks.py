"""The documented measurements can be made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
