"""Compare the scenarios' results with those that have to pass, listed in `scenarios-passed.txt`."""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

LISTED = Path(__file__).with_name("scenarios-passed.txt")


def listed_names() -> list[str]:
    """Read the names that have to pass; `#` starts a comment."""
    lines = (line.partition("#")[0].strip() for line in LISTED.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def read_results(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Read results by name; a later file counts more, a missing one counts nothing."""
    results: dict[str, dict[str, Any]] = {}
    for file in files:
        if file.exists():
            results |= {row["id"]: row for row in json.loads(file.read_text("utf-8"))}
    return results


def passes(row: dict[str, Any] | None) -> bool:
    """Whether a scenario fails bare as reported, and is diagnosed in full."""
    return row is not None and row.get("score") == 1 and not row["bare_faults"]


def reason(row: dict[str, Any] | None) -> str:
    """Say what a scenario lacks."""
    if row is None:
        return "no result"
    return "; ".join([*row["bare_faults"], *row.get("missing", [])]) or f"score {row.get('score')}"


def main() -> int:
    """Print the listed names that failed; with --strict say why, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files of run_scenarios.py --json")
    parser.add_argument("--strict", action="store_true", help="fail if a listed one failed")
    options = parser.parse_args()
    results, listed = read_results(options.results), listed_names()
    failed = [name for name in listed if not passes(results.get(name))]
    hints = sorted(name for name in set(results) - set(listed) if passes(results[name]))
    if options.strict:
        for name in failed:
            sys.stderr.write(f"scenario failed: {name}: {reason(results.get(name))}\n")
    else:
        for name in hints:
            sys.stderr.write(f"scenario passes and is not listed in {LISTED.name}: {name}\n")
        sys.stdout.write(" ".join(failed) + "\n")
    return 1 if options.strict and failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
