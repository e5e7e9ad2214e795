"""Real failing programs, and healthy ones: what the diagnosis of each must say.

Each folder in `scenarios/` has the form of the public ones: `scenario.toml` beside `main.py` or
`test_it.py`. Beyond their keys, `needs` lists packages outside the extra `test`, and `fork` says
that the program forks. Each is run without loopsentry too, at the same time: it has to end in the
same way. `LOOPSENTRY_TEST_SCENARIOS` names further folders of such programs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from secrecy import assert_kept

FOLDERS = [Path(__file__).parent / "scenarios"]
FURTHER = os.environ.get("LOOPSENTRY_TEST_SCENARIOS", "")
FOLDERS += [Path(folder) for folder in FURTHER.split(os.pathsep) if folder]
PLACES = {
    path.parent.name: path for each in FOLDERS for path in sorted(each.glob("*/scenario.toml"))
}
SCENARIOS = {name: tomllib.loads(path.read_text("utf-8")) for name, path in PLACES.items()}
HEALTHY = [name for name, scenario in SCENARIOS.items() if "expect" not in scenario]
FAILING = [name for name, scenario in SCENARIOS.items() if "expect" in scenario]

# Two running loops that meet on one asyncpg connection can crash the interpreter by themselves.
CRASHES_BORNE = 3


# An exception's line at the end of a traceback, and what differs from run to run in any text.
TYPE_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Group|Greenlet)\b.*")
CHANGING = re.compile(
    r" \(Background on .*\)|0x[0-9a-f]+|\b\d+(?:\.\d+)?(?: ?m?s\b)?|Task-\d+|/tmp/\S+"
)
EXIT = re.compile(r"^(?:Exception ignored in|Task was destroyed)", re.MULTILINE)
LINK = re.compile(r" \(Background on [^)]*\)")
TOLD = re.compile(r" \[LS\d+\] .*")
BROKEN = re.compile(r"INTERNALERROR|SystemError: AST constructor recursion depth")
MAKES = re.compile(r"create_all|create (?:temp )?(?:table|function)", re.IGNORECASE)
COUNTS = re.compile(r"\b(\d+) (passed|failed|errors?|skipped|xfailed)\b")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scenario ended.

    Attributes:
        returncode: its exit status.
        stdout: what it printed.
        stderr: what it complained of.
        records: the diagnoses.
    """

    returncode: int
    stdout: str
    stderr: str
    records: list[dict[str, Any]]

    @property
    def output(self) -> str:
        """Everything it wrote."""
        return self.stdout + self.stderr

    def outcome(self, how: str, *, fork: bool = False) -> tuple[object, ...]:
        """What must be the same with loopsentry and without it.

        After a fork two processes read from one socket: who reads what differs from run to run, and
        so do the texts.
        """
        if how == "pytest":
            return (self.returncode, *COUNTS.findall(self.stdout))
        # What the interpreter tells of its own end depends on when it collects what.
        shown = TOLD.sub("", LINK.sub("", EXIT.split(self.stderr)[0])).splitlines()
        lines = [found[0] for line in shown if (found := TYPE_LINE.match(line))]
        # What a program that ends well prints of exceptions is its log, in which pools' are folded.
        texts = (self.stdout, *(lines[-1:] if self.returncode and not fork else ()))
        return (self.returncode, *(CHANGING.sub("?", text) for text in texts))


def need(name: str) -> None:
    """Skip a test of a scenario that this machine has not the packages, or the forks, for."""
    scenario = SCENARIOS[name]
    missing = [p for p in scenario.get("needs", ()) if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if scenario.get("fork") and not hasattr(os, "fork"):
        pytest.skip("needs os.fork")


def run_both(name: str, dsn: str, report: Path) -> Ended:
    """Run one scenario with and without loopsentry; both have to end in the same way."""
    how = SCENARIOS[name]["how"]
    fork = bool(SCENARIOS[name].get("fork"))
    need(name)
    # Those that make tables would make each other's at the same time.
    alone = any(MAKES.search(file.read_text("utf-8")) for file in PLACES[name].parent.glob("*.py"))
    with ThreadPoolExecutor(1 if alone else 2) as pool:
        runs = [pool.submit(run, name, dsn, each) for each in (None, report)]
        bare, under = [each.result() for each in runs]
    # Python 3.11 can fail in `ast` while pytest prints: "recursion depth mismatch".
    if under.returncode >= 0 and bare.returncode >= 0 and not BROKEN.search(bare.output):
        assert under.outcome(how, fork=fork) == bare.outcome(how, fork=fork), under.output
    return under


def command_of(name: str, *, watched: bool) -> list[str]:
    """How a scenario is run, with loopsentry or without it."""
    args = SCENARIOS[name].get("args", ())
    if SCENARIOS[name]["how"] == "pytest":
        bare = [] if watched else ["-p", "no:loopsentry"]
        return ["-m", "pytest", "-q", "-p", "no:cacheprovider", *args, *bare]
    return [*(["-m", "loopsentry", "run"] if watched else []), "main.py", *args]


def run(name: str, dsn: str, report: Path | None, folder: Path | None = None) -> Ended:
    """Run a scenario in a child process: with loopsentry where it has a report file to write.

    It runs where it lies, or in another folder that has a copy of it.
    """
    own = {"LOOPSENTRY_REPORT": str(report)} if report is not None else {}
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LOOPSENTRY", "PYTEST"))
    }
    environment |= {
        "SCENARIO_DSN": dsn,
        "COLUMNS": "160",
        "NO_COLOR": "1",
        **SCENARIOS[name].get("env", {}),
        **own,
    }
    for _ in range(CRASHES_BORNE):
        if report is not None:
            report.unlink(missing_ok=True)
        ended = subprocess.run(
            [sys.executable, *command_of(name, watched=report is not None)],
            cwd=folder or PLACES[name].parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SCENARIOS[name]["timeout"],
            check=False,
        )
        if ended.returncode >= 0:
            break
    told = report.read_text("utf-8") if report is not None and report.exists() else ""
    assert_kept(ended.stdout, ended.stderr, told)
    records = [json.loads(line) for line in told.splitlines()]
    return Ended(ended.returncode, ended.stdout, ended.stderr, records)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_failure_is_explained(name: str, dsn: str, tmp_path: Path) -> None:
    """A failing program ends as it does alone, and its first diagnosis says what is expected."""
    ended = run_both(name, dsn, tmp_path / "report.jsonl")
    assert (ended.returncode == 0) == (SCENARIOS[name]["raw_exit"] == "zero"), ended.output
    assert faults(SCENARIOS[name]["expect"], ended.records, ended.output) == [], ended.output


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_program_is_left_alone(name: str, dsn: str, tmp_path: Path) -> None:
    """A program without such a mistake ends as it does alone, and nothing is reported."""
    ended = run_both(name, dsn, tmp_path / "report.jsonl")
    assert (ended.returncode == 0) == (SCENARIOS[name]["raw_exit"] == "zero"), ended.output
    assert ended.records == [], ended.output
