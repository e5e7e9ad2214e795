"""Measure what loopsentry costs: `python -m benchmarks`.

Each pair is two new processes, one with loopsentry and one without, that are timed in turn, a
fraction of a second apart, so that what else the machine does meets both. The first table shows
the medians over the pairs, the second how long a failure waits for its diagnosis.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import loopsentry

from . import database
from .measures import SIZES
from .pairs import Sample, measure_pair

RESULTS = Path(__file__).parent / "results"

#: What is promised: microseconds more, or a ratio.
TARGETS: dict[str, tuple[str, float]] = {
    "checkout": ("difference", 1.0),
    "statement": ("ratio", 1.02),
    "session": ("ratio", 1.02),
    "request": ("difference", 0.3),
    "log record": ("difference", 0.5),
    "asyncio.run": ("difference", 60.0),
}


#: Milliseconds that a diagnosis may take, by the number of tasks alive.
DIAGNOSIS_TARGETS = {"500": 5.0, "10000": 10.0}


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of processes (default 40)")
    parser.add_argument("--rounds", type=int, default=16, help="rounds in each pair (default 16)")
    parser.add_argument("--quick", action="store_true", help="3 pairs of 8 rounds: a try-out")
    parser.add_argument("--uvloop", action="store_true", help="measure on uvloop")
    parser.add_argument("--name", help="name of the file in benchmarks/results/")
    options = parser.parse_args(arguments)
    if options.quick:
        options.pairs, options.rounds = 3, 8
    if options.pairs < 1 or options.rounds < 1:
        parser.error("--pairs and --rounds take 1 or more")
    return options


def pin() -> None:
    """Stay on one processor with everything we start, where the system lets us choose.

    Waking another processor takes several times longer than what is measured here, and varies.
    """
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def write_record(name: str, now: datetime, **told: Any) -> Path:
    """Write what was measured into a JSON file among the results; give its path."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    record = {"date": now.isoformat(timespec="seconds"), **told}
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return file


def start_plot() -> Any:
    """Matplotlib's pyplot, for an SVG file that is the same for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "loopsentry", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    return plt


def versions(options: argparse.Namespace) -> dict[str, str]:
    """What was measured, on what."""
    return {
        "python": platform.python_version(),
        "loop": f"uvloop {metadata.version('uvloop')}" if options.uvloop else "asyncio",
        "loopsentry": loopsentry.__version__,
        **{name: metadata.version(name) for name in ("sqlalchemy", "asyncpg", "greenlet")},
        "platform": platform.platform(terse=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Medians over the pairs, and the middle half of the differences."""
    summary: dict[str, Any] = {
        field: median(getattr(sample, field) for sample in samples)
        for field in ("without", "watched", "difference", "ratio")
    }
    differences = [sample.difference for sample in samples]
    spread = quantiles(differences) if len(differences) > 1 else differences * 3
    return summary | {"middle_half": [spread[0], spread[2]]}


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The measured figures, with the promised ones beside them."""
    head = "us per operation  without     with  difference  (middle half)   ratio  target"
    lines = [head, "-" * len(head)]
    for name, row in measured.items():
        field, limit = TARGETS[name]
        promised = f"<= {limit:g} us more" if field == "difference" else f"<= {limit - 1:.0%} more"
        low, high = row["middle_half"]
        lines.append(
            f"{name:<16}{row['without']:>9.2f}{row['watched']:>9.2f}{row['difference']:>12.2f}"
            f"  {f'({low:.2f} .. {high:.2f})':<15}{row['ratio']:>6.3f}"
            f"  {promised}: {'held' if row[field] <= limit else 'missed'}"
        )
    return "\n".join(lines)


def measure_diagnoses(url: str, times: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each diagnosis, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.diagnosis", "--url", url, "--times", str(times)]
    ended = subprocess.run(  # noqa: S603 - our own module
        command, cwd=RESULTS.parent.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    measured: dict[str, dict[str, list[float]]] = json.loads(ended.stdout)
    return measured


def diagnosis_table(measured: dict[str, dict[str, list[float]]]) -> str:
    """The milliseconds of diagnoses, with the promised ones beside them."""
    head = "ms per diagnosis      tasks alive  median  slowest  target"
    lines = [head, "-" * len(head)]
    for name, rows in measured.items():
        for tasks, taken in rows.items():
            limit = DIAGNOSIS_TARGETS[tasks]
            held = "held" if median(taken) <= limit else "missed"
            lines.append(
                f"{name:<22}{int(tasks):>11,}{median(taken):>8.2f}{max(taken):>9.2f}"
                f"  <= {limit:g} ms: {held}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    options = read_options(arguments)
    now = datetime.now(UTC)
    pin()
    pairs: list[dict[str, Sample]] = []
    with database.running() as url:
        for number in range(options.pairs):
            print(f"pair {number + 1} of {options.pairs}", file=sys.stderr)
            flags = ["--uvloop"] if options.uvloop else []
            pairs.append(measure_pair(url, options.rounds, flags))
        diagnoses = measure_diagnoses(url, options.rounds)
    measured = {name: summarise([pair[name] for pair in pairs]) for name in SIZES}
    known = versions(options)
    print(f"{now:%Y-%m-%d}, {options.pairs} pairs of {options.rounds} rounds")
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    print()
    print(table(measured))
    print()
    print(diagnosis_table(diagnoses))
    file = write_record(
        options.name or f"{now:%Y%m%dT%H%M%S}",
        now,
        pairs=options.pairs,
        rounds=options.rounds,
        versions=known,
        measured=measured,
        diagnoses=diagnoses,
        samples=[{name: asdict(sample) for name, sample in pair.items()} for pair in pairs],
    )
    print(f"\nwritten to {os.path.relpath(file)}")


if __name__ == "__main__":
    main()
