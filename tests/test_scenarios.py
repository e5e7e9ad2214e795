"""Real failing programs, and healthy ones: what the diagnosis of each must say.

Each folder in `scenarios/` has the form of the public ones: `scenario.toml` beside `main.py` or
`test_it.py`. Beyond their keys, `needs` lists packages outside the extra `test`, and `fork` says
that the program forks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "scenarios"
SCENARIOS = {
    path.parent.name: tomllib.loads(path.read_text("utf-8"))
    for path in sorted(FOLDER.glob("*/scenario.toml"))
}
HEALTHY = [name for name, scenario in SCENARIOS.items() if "expect" not in scenario]
FAILING = [name for name, scenario in SCENARIOS.items() if "expect" in scenario]

# Two running loops that meet on one asyncpg connection can crash the interpreter by themselves.
CRASHES_BORNE = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scenario ended under loopsentry: its exit status, its output, its diagnoses."""

    returncode: int
    output: str
    records: list[dict[str, Any]]


def run(name: str, dsn: str, report: Path) -> Ended:
    """Run one scenario under loopsentry in a child process, in its own folder."""
    scenario = SCENARIOS[name]
    missing = [p for p in scenario.get("needs", ()) if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if scenario.get("fork") and not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    how = {
        "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"],
        "script": ["-m", "loopsentry", "run", "main.py"],
    }
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LOOPSENTRY", "PYTEST"))
    }
    command = [sys.executable, *how[scenario["how"]], *scenario.get("args", ())]
    environment |= {
        "SCENARIO_DSN": dsn,
        "LOOPSENTRY_REPORT": str(report),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "160",
        "NO_COLOR": "1",
    }
    for _ in range(CRASHES_BORNE):
        report.unlink(missing_ok=True)
        ended = subprocess.run(
            command,
            cwd=FOLDER / name,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=scenario["timeout"],
            check=False,
        )
        if ended.returncode >= 0:
            break
    lines = report.read_text("utf-8").splitlines() if report.exists() else []
    return Ended(ended.returncode, ended.stdout, [json.loads(line) for line in lines])


def starter(record: dict[str, Any], loop: str) -> str | None:
    """Name the function that started one of a record's loops, None if it was not recorded."""
    place = (record[loop] or {}).get("started_by") or {}
    function: str | None = place.get("function")
    return function


def faults(expect: dict[str, Any], records: list[dict[str, Any]], output: str) -> list[str]:
    """List what the diagnoses say otherwise than a scenario expects."""
    severity = expect.get("severity", "error")
    judged = next((r for r in records if severity in ("any", r["severity"])), None)
    if judged is None:
        return [f"no record of severity {severity} among {[r['cause'] for r in records]}"]
    causes = expect.get("any_cause") or [expect["cause"]]
    allowed = {*causes, *expect.get("also", ()), "late-cleanup"}
    wrong = [r["cause"] for r in records if r["certainty"] != "undetermined"]
    offered = [fix["id"] for fix in judged["fixes"]]
    said: dict[str, tuple[object, list[Any]]] = {
        "cause": (judged["cause"], causes),
        "context": (
            judged["context"],
            expect.get("any_context") or [expect.get("context", judged["context"])],
        ),
        "first fix": (offered[0] if offered else None, expect.get("fixes_any", offered[:1])),
    }
    for loop in ("owner", "current"):
        if f"{loop}_started_by" in expect:
            found = starter(judged, f"{loop}_loop")
            said[f"starter of the {loop} loop"] = (found, [expect[f"{loop}_started_by"]])
    if "other_task_function" in expect:
        other = (judged["other_operation"] or {}).get("function")
        said["other task"] = (other, [expect["other_task_function"]])
    found_faults = [
        f"{what} is {value}, not {' or '.join(map(str, wanted))}"
        for what, (value, wanted) in said.items()
        if value not in wanted
    ]
    found_faults += [f"claims {cause} too" for cause in wrong if cause not in allowed]
    if judged["certainty"] == "undetermined":
        found_faults.append("undetermined")
    if len(records) > expect.get("max_records", 3):
        found_faults.append(f"{len(records)} records of one mistake")
    if judged["code"] not in output:
        found_faults.append(f"the output does not show {judged['code']}")
    return found_faults


@pytest.mark.parametrize("name", FAILING)
def test_failure_is_explained(name: str, dsn: str, tmp_path: Path) -> None:
    """A failing program ends as it does alone, and its first diagnosis says what is expected."""
    ended = run(name, dsn, tmp_path / "report.jsonl")
    assert (ended.returncode == 0) == (SCENARIOS[name]["raw_exit"] == "zero"), ended.output
    assert faults(SCENARIOS[name]["expect"], ended.records, ended.output) == [], ended.output


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_program_is_left_alone(name: str, dsn: str, tmp_path: Path) -> None:
    """A program without such a mistake ends as it does alone, and nothing is reported."""
    ended = run(name, dsn, tmp_path / "report.jsonl")
    assert (ended.returncode == 0) == (SCENARIOS[name]["raw_exit"] == "zero"), ended.output
    assert ended.records == [], ended.output
