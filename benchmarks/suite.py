"""Measure what the pytest plugin costs a test suite: `python -m benchmarks.suite`.

A suite of trivial async tests is run by pytest with the plugin and with `-p no:loopsentry`, each
time in a new process, in turn; who comes first changes. Once the tests import nothing, which leaves
the plugin asleep; once asyncpg, and once SQLAlchemy's asyncio part too, so that loopsentry is
installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from .__main__ import pin, versions, write_record

TESTS = 500
#: What is promised: the ratio of a run with the plugin to one without.
TARGET = 1.03

SUITES = {
    "without a database": "import asyncio\n",
    "with asyncpg alone": "import asyncio\nimport asyncpg\n",
    "with SQLAlchemy": "import asyncio\nimport asyncpg\nimport sqlalchemy.ext.asyncio\n",
}
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""


def write_suite(folder: Path, imports: str) -> None:
    """Write the tests and the ini file that every run uses."""
    tests = (f"async def test_{n}():\n    await asyncio.sleep(0)\n" for n in range(TESTS))
    (folder / "test_it.py").write_text(f"{imports}\n\n" + "\n\n".join(tests), "utf-8")
    (folder / "pytest.ini").write_text(INI, "utf-8")


def time_run(folder: Path, *options: str) -> float:
    """Seconds of one run of the suite.

    Raises:
        SystemExit: if not every test passed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOOPSENTRY")}
    environment["PYTHONHASHSEED"] = "0"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    start = perf_counter()
    ended = subprocess.run(  # noqa: S603 - our own command
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = perf_counter() - start
    if ended.returncode != 0 or f"{TESTS} passed" not in ended.stdout:
        raise SystemExit(f"the suite did not pass:\n{ended.stdout}{ended.stderr}")
    return seconds


def measure(folder: Path, pairs: int) -> list[tuple[float, float]]:
    """Seconds without and with the plugin, pair by pair, after one run of each."""
    without, watched = ("-p", "no:loopsentry"), ()
    time_run(folder, *without)
    time_run(folder, *watched)
    timed = []
    for number in range(pairs):
        print(f"pair {number + 1} of {pairs}", file=sys.stderr)
        if number % 2:
            second = time_run(folder, *watched)
            timed.append((time_run(folder, *without), second))
        else:
            first = time_run(folder, *without)
            timed.append((first, time_run(folder, *watched)))
    return timed


def summarise(timed: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians over the pairs, and the middle half of the ratios."""
    ratios = [watched / without for without, watched in timed]
    spread = quantiles(ratios) if len(ratios) > 1 else ratios * 3
    return {
        "without": median(without for without, _ in timed),
        "watched": median(watched for _, watched in timed),
        "ratio": median(ratios),
        "middle_half": [spread[0], spread[2]],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs (default 20)")
    options = parser.parse_args(arguments)
    if options.pairs < 1:
        parser.error("--pairs takes 1 or more")
    pin()
    options.uvloop = False
    known = versions(options)
    known |= {name: metadata.version(name) for name in ("pytest", "pytest-asyncio")}
    samples = {}
    for name, imports in SUITES.items():
        with tempfile.TemporaryDirectory(prefix="ls-") as folder:
            write_suite(Path(folder), imports)
            samples[name] = measure(Path(folder), options.pairs)
    measured = {name: summarise(timed) for name, timed in samples.items()}
    now = datetime.now(UTC)
    print(f"{now:%Y-%m-%d}, {options.pairs} pairs of runs of {TESTS} tests")
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    for name, row in measured.items():
        low, high = row["middle_half"]
        print(
            f"{name:<20}{row['without']:>7.2f} s without{row['watched']:>7.2f} s with"
            f"  ratio {row['ratio']:.3f} ({low:.3f} .. {high:.3f})"
            f"  <= {TARGET - 1:.0%} more: {'held' if row['ratio'] <= TARGET else 'missed'}"
        )
    file = write_record(
        f"suite-{now:%Y%m%dT%H%M%S}",
        now,
        pairs=options.pairs,
        versions=known,
        measured=measured,
        samples=samples,
    )
    print(f"\nwritten to {os.path.relpath(file)}")


if __name__ == "__main__":
    main()
