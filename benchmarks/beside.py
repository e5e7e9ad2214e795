"""What loopsentry costs beside other tools that watch a service: `python -m benchmarks.beside`.

Each tool is installed in a process of its own, with what it enables by itself, and sends nothing
anywhere. All of them are timed in turn, a fraction of a second apart, so that what else the machine
does meets all. The table shows medians, and what each tool adds to a process without any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from . import database
from .__main__ import pin, start_plot, write_record
from .pairs import Side, side
from .tools import TOOLS

MEASURES = ("checkout", "statement", "session", "request")
PACKAGES = (
    "loopsentry",
    "sentry-sdk",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-sqlalchemy",
    "sqlalchemy",
    "asyncpg",
)
NAMES = {"loopsentry": "sqlalchemy-loopsentry"}

#: What one tool adds: the medians of the times and of the differences inside a round, in
#: microseconds, and between which of those the middle half lies.
Row = dict[str, Any]


def measure(url: str, tools: Sequence[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Time all tools in new processes, round by round; who comes first changes each round."""
    with ExitStack() as stack:
        sides: list[tuple[str, Side]] = [
            (tool, stack.enter_context(side(url, f"--tool={tool}"))) for tool in tools
        ]
        timed: dict[str, dict[str, list[float]]] = {
            name: {tool: [] for tool in tools} for name in MEASURES
        }
        for name in MEASURES:
            for number in range(rounds):
                first = number % len(sides)
                for tool, process in sides[first:] + sides[:first]:
                    timed[name][tool].append(process.time(name))
    return timed


def summarise(repeats: list[dict[str, dict[str, list[float]]]]) -> dict[str, dict[str, Row]]:
    """The medians over all rounds, by measure and tool."""
    found: dict[str, dict[str, Row]] = {}
    for name in MEASURES:
        bare = [time for repeat in repeats for time in repeat[name]["nothing"]]
        found[name] = {}
        for tool in repeats[0][name]:
            times = [time for repeat in repeats for time in repeat[name][tool]]
            more = [time - base for time, base in zip(times, bare, strict=True)]
            low, _, high = quantiles(more, n=4) if len(more) > 1 else (more[0],) * 3
            row = {"us": median(times), "more": median(more), "low": low, "high": high}
            found[name][tool] = row
    return found


def table(summary: dict[str, dict[str, Row]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| operation | tool | time | more | middle half |", "|---|---|---|---|---|"]
    for name, tools in summary.items():
        for tool, row in tools.items():
            more = f"{row['more']:.2f} us | {row['low']:.2f} to {row['high']:.2f} us"
            told = " | " if tool == "nothing" else more
            lines.append(f"| {name} | {tool} | {row['us']:.2f} us | {told} |")
    return "\n".join(lines)


def plot(summary: dict[str, dict[str, Row]], file: Path, subtitle: str) -> None:
    """Draw what each tool adds as bars, into an SVG file."""
    plt = start_plot()
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(10, 2.6), layout="constrained")
    for axes, name in zip(panels, MEASURES, strict=True):
        tools = [tool for tool in summary[name] if tool != "nothing"][::-1]
        more = [max(0.0, summary[name][tool]["more"]) for tool in tools]  # less is chance
        colours = ["#2f6fb3" if tool == "loopsentry" else "#9aa4ad" for tool in tools]
        bars = axes.barh(tools, more, color=colours)
        axes.bar_label(bars, [f"{each:.1f}" for each in more], padding=3, fontsize=8)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlim(0, max(more) * 1.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if name != MEASURES[0]:
            axes.set_yticks([])
    figure.supxlabel(f"microseconds more for each operation; {subtitle}", fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("--repeats", type=int, default=4, help="times all new (default 4)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds in each (default 20)")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--plot", type=Path, help="SVG file to draw; needs matplotlib")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file and, if asked for, the plot."""
    options = read_options(arguments)
    tools = list(dict.fromkeys(["nothing", *options.tools]))
    pin()
    repeats = []
    with database.running() as url:
        for number in range(options.repeats):
            print(f"repeat {number + 1} of {options.repeats}", file=sys.stderr)
            repeats.append(measure(url, tools, options.rounds))
    summary, now = summarise(repeats), datetime.now(UTC)
    known = {name: metadata.version(NAMES.get(name, name)) for name in PACKAGES if _has(name)}
    known = {"python": sys.version.split()[0], **known}
    print(f"{now:%Y-%m-%d}, {options.repeats} times {options.rounds} rounds")
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    print()
    print(table(summary))
    write_record("beside", now, versions=known, measured=summary)
    if options.plot:
        plot(summary, options.plot, f"{now:%Y-%m-%d}, python {known['python']}")


def _has(package: str) -> bool:
    try:
        metadata.version(NAMES.get(package, package))
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
