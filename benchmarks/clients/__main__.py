"""Play all clients in all situations and print a table: `python -m benchmarks.clients [NAME …]`."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import database

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
SITUATIONS = {
    "two-runs": "two runs",
    "two-live-loops": "two live loops",
    "shared": "two tasks",
}
LIMIT = 40
# Two live loops that meet on one asyncpg connection can crash the interpreter.
ATTEMPTS = 4
LONGEST = 60


@dataclass(frozen=True, slots=True)
class Row:
    """What one client comes to in one situation."""

    title: str
    situation: str
    bare: str
    code: str
    starters: str
    cure: str
    cured: str

    def __str__(self) -> str:
        cells = (self.title, self.situation, self.bare, self.code, self.starters, self.cure)
        return " | ".join(("", *cells, self.cured, "")).strip()


HEAD = "| client | situation | without loopsentry | told | both starters | first cure | cured |"


def play(*arguments: str, report: Path | None = None) -> tuple[str, list[dict[str, Any]]]:
    """Play in a child process; give the last line it printed, and the diagnoses."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOOPSENTRY")}
    module = ["-m", "benchmarks.clients.play", *arguments]
    if report is not None:
        environment["LOOPSENTRY_REPORT"] = str(report)
        module = ["-m", "loopsentry", "run", *module]
    for _ in range(ATTEMPTS):
        if report is not None:
            report.unlink(missing_ok=True)
        try:
            ended = subprocess.run(  # noqa: S603 - our own module
                [sys.executable, *module],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "waits for ever", []
        if ended.returncode >= 0:
            break
    else:
        return "the interpreter crashes", []
    lines = ended.stdout.strip().splitlines()
    if not lines:
        raise SystemExit(f"{' '.join(arguments)} said nothing:\n{ended.stderr}")
    told = report.read_text("utf-8") if report is not None and report.exists() else ""
    return lines[-1], [json.loads(line) for line in told.splitlines()]


def row(name: str, title: str, situation: str, report: Path) -> Row:
    """Play one client in one situation: bare, watched, and cured."""
    bare, _ = play(name, situation)
    _, records = play(name, situation, report=report)
    grave = [record for record in records if record["severity"] == "error"]
    if not grave:
        return Row(title, SITUATIONS[situation], _short(bare), "-", "-", "-", "-")
    told = grave[0]
    loops = [told["owner_loop"], told["current_loop"]]
    named = sum(1 for loop in loops if loop and loop["started_by"])
    cure = told["fixes"][0]["id"] if told["fixes"] else "-"
    cured = play(name, situation, cure)[0] if cure != "-" else "-"
    code = f"{told['code']}, {told['certainty']}"
    starters = "yes" if named == len(loops) else f"{named} of 2"
    return Row(title, SITUATIONS[situation], _short(bare), code, starters, cure, _short(cured))


def _short(text: str) -> str:
    """A text without what differs from run to run, cut."""
    text = re.sub(r"Task <.*?> got Future <.*?> attached", "Task ... got Future ... attached", text)
    text = re.sub(r"<([\w.]+) object at 0x\w+ \[.*?\]>", r"\1 ...", text)
    text = re.sub(r"<class '[\w.]+'>: | at 0x\w+", "", text).replace("|", "/")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start what servers there are, in temporary folders; give their URLs by their variables."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clients")))
        url = stack.enter_context(database.running())
        found = {"POSTGRESQL": url.replace("+asyncpg", "", 1)}
        redis = shutil.which("redis-server")
        if redis:
            found["REDIS"] = stack.enter_context(_redis(redis, folder))
        sys.path.insert(0, str(ROOT / "tests"))
        import mysql

        program = mysql.find()
        if program:
            found["MYSQL"] = stack.enter_context(mysql.running(*program))
        yield found


@contextmanager
def _redis(server: str, folder: Path) -> Iterator[str]:
    port = database.free_port()
    options = ["--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL) as process:  # noqa: S603
        time.sleep(1)
        yield f"redis://127.0.0.1:{port}"
        process.terminate()


def missing(name: str) -> str | None:
    """What a client needs and this machine has not, None if it can be played."""
    source = (FOLDER / f"{name}.py").read_text("utf-8")
    wanted = set(re.findall(r"^import (\w+)", source, re.MULTILINE))
    wanted |= set(re.findall(r'^NEEDS = \("(\w+)",\)', source, re.MULTILINE))
    for package in sorted(wanted - sys.stdlib_module_names):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    for variable in re.findall(r'os\.environ\["(\w+)"\]', source):
        if variable not in os.environ:
            return f"no server for {variable}"
    return None


def title_of(name: str) -> str:
    """The title that a client's file gives itself."""
    source = (FOLDER / f"{name}.py").read_text("utf-8")
    return re.findall(r'^TITLE = "(.*)"', source, re.MULTILINE)[0]


def names() -> list[str]:
    """The clients' files."""
    modules = (info.name for info in pkgutil.iter_modules([str(FOLDER)]))
    return [name for name in modules if name[0] != "_" and name != "play"]


def main() -> None:
    """Print the table, and what could not be played."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *names()], help="clients (default: all)")
    options = parser.parse_args()
    left_out = []
    with servers() as found, tempfile.TemporaryDirectory() as folder:
        os.environ.update(found)
        print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n")
        for name in options.names or names():
            reason = missing(name)
            if reason is not None:
                left_out.append(f"{name} ({reason})")
                continue
            for situation in SITUATIONS:
                report = Path(folder) / "report.jsonl"
                print(row(name, title_of(name), situation, report), flush=True)
    versions = (f"{p} {importlib.metadata.version(p)}" for p in ("sqlalchemy", "asyncpg"))
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    print(f"\n{today}, Python {platform.python_version()}, {', '.join(versions)}")
    print(f"Not played: {', '.join(left_out) or 'nothing'}")


if __name__ == "__main__":
    main()
