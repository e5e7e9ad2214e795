"""Whether SQLAlchemy's own tests notice anything: `python -m benchmarks.neutrality`.

The source distribution of the installed version is brought from the package index, and its tests of
asyncio and of the pool are run in child processes: without loopsentry, and with it in each mode.
Every test has to end as it did without. Ends with status 1 where one does not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from loopsentry.model import MODES

from . import database

TESTS = ("test/ext/asyncio", "test/engine/test_pool.py")
BARE = "without"
SIDES = (BARE, *MODES)

Outcomes = dict[str, str]


def bring(folder: Path) -> Path:
    """Unpack the source distribution of the installed SQLAlchemy; give its folder."""
    version = metadata.version("sqlalchemy")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", f"sqlalchemy=={version}"]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - our own command
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


async def prepare(url: str) -> None:
    """Make the schemas that SQLAlchemy's tests ask for (its README.unittests.rst)."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for schema in ("test_schema", "test_schema_2"):
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    await engine.dispose()


def run(source: Path, url: str, side: str, tests: Sequence[str]) -> Outcomes:
    """How each test ended: passed, skipped, failure or error."""
    record = source.parent / f"{side}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--dburi", url, f"--junitxml={record}", *tests]
    environment = {key: value for key, value in os.environ.items() if "LOOPSENTRY" not in key}
    # What other plugins do that happen to be installed is nobody's business here.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if side != BARE:
        command += ["-p", "loopsentry.pytest_plugin"]
        environment["LOOPSENTRY_ON_MISMATCH"] = side
    ended = subprocess.run(  # noqa: S603 - our own command
        command,
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not record.exists():
        sys.exit(f"pytest gave no record:\n{ended.stdout}{ended.stderr}")
    return {
        f"{case.get('classname')}::{case.get('name')}": next(
            (each.tag for each in case if each.tag in {"failure", "error", "skipped"}), "passed"
        )
        for case in ET.parse(record).iter("testcase")  # noqa: S314 - our own file
    }


def compare(found: dict[str, Outcomes]) -> list[str]:
    """A line for each test that ended otherwise than without loopsentry."""
    bare = found[BARE]
    return [
        f"{test}: {bare.get(test, 'not run')} without, {outcomes.get(test, 'not run')} in {side}"
        for side, outcomes in found.items()
        for test in sorted(bare.keys() | outcomes.keys())
        if outcomes.get(test) != bare.get(test)
    ]


def main() -> None:
    """Run all sides and print what each came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", default=TESTS, help="files of SQLAlchemy's tests")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database.running() as url:
        asyncio.run(prepare(url))
        source = bring(Path(folder))
        found = {side: run(source, url, side, asked.tests) for side in SIDES}
    versions = f"Python {sys.version.split()[0]}, SQLAlchemy {metadata.version('sqlalchemy')}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {versions}")
    for side, outcomes in found.items():
        counts = {kind: list(outcomes.values()).count(kind) for kind in set(outcomes.values())}
        print(f"{side:10}", ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts)))
    differing = compare(found)
    print("\n".join(differing) or "every test ended as it does without loopsentry")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
