"""Measure how fast the audit reads, beside other tools: `python -m benchmarks.audit [FOLDER]`.

Each tool checks one copy of a folder, by default the installed SQLAlchemy, in a new process, in
turn; medians of wall and CPU time. The audit runs cold, without a cache, and warm, with the one of
the run before. ruff, mypy and pylint are run where they are installed; what they find is of no
interest here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

from .__main__ import RESULTS

#: What is promised: lines a second cold on two cores, seconds for a million lines warm.
TARGETS = (150_000, 1.5)
AUDIT = ("-m", "loopsentry", "audit", "--exit-zero", "--format", "concise")
#: Tools by name: the package that must be there, and what is run. pylint is slow: once.
TOOLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "loopsentry audit, cold": ("loopsentry", (*AUDIT, "--no-cache")),
    "loopsentry audit, warm": ("loopsentry", AUDIT),
    "ruff check": (
        "ruff",
        ("-m", "ruff", "check", "--no-cache", "--isolated", "--exit-zero", "-q"),
    ),
    "mypy": ("mypy", ("-m", "mypy", "--no-incremental", "--ignore-missing-imports")),
    "pylint -E": ("pylint", ("-m", "pylint", "-E", "--jobs", "0", "--persistent", "n")),
}
_ONCE = ("mypy", "pylint -E")


def copy_source(source: Path, target: Path) -> int:
    """Copy a folder's Python files; give how many lines they have."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return sum(path.read_bytes().count(b"\n") for path in target.rglob("*.py"))


def time_run(command: Sequence[str], folder: Path, cache: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one run, the CPU's of all its processes."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "MYPYPATH": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = perf_counter()
    subprocess.run(  # noqa: S603 - installed tools, our own arguments
        [sys.executable, *command, str(folder)],
        cwd=folder.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wall = perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(source: Path, rounds: int) -> tuple[int, dict[str, tuple[float, float]]]:
    """Run the tools in turn; the lines, and each tool's median wall and CPU seconds."""
    runs: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name, source.name), Path(name, "cache")
        lines = copy_source(source, folder)
        time_run(AUDIT, folder, cache)  # fills the cache for the warm runs
        for number in range(rounds):
            for tool, (package, command) in TOOLS.items():
                if importlib.util.find_spec(package) and not (number and tool in _ONCE):
                    runs.setdefault(tool, []).append(time_run(command, folder, cache))
    return lines, {
        tool: (median(wall for wall, _ in each), median(cpu for _, cpu in each))
        for tool, each in runs.items()
    }


def main() -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="what is read; default SQLAlchemy")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool but the slow ones")
    chosen = parser.parse_args()
    spec = importlib.util.find_spec("sqlalchemy")
    found = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    lines, times = measure((chosen.folder or found).resolve(), chosen.rounds)
    print(f"{lines} lines, {os.cpu_count()} processors\n")
    print("| tool | seconds | CPU seconds | lines a second |\n|---|---|---|---|")
    for tool, (wall, cpu) in times.items():
        print(f"| {tool} | {wall:.2f} | {cpu:.2f} | {round(lines / wall, -2):,.0f} |")
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    tools = {name: metadata.version(name) for name in _installed()}
    record = {
        "time": now.isoformat(),
        "versions": {"python": platform.python_version(), **tools},
        "lines": lines,
        "seconds": times,
    }
    (RESULTS / f"audit-{now:%Y%m%d-%H%M%S}.json").write_text(json.dumps(record, indent=2), "utf-8")


def _installed() -> set[str]:
    names = ("ruff", "mypy", "pylint")
    return {name for name in names if importlib.util.find_spec(name) is not None}


if __name__ == "__main__":
    main()
