"""The three acts: what is run, what happened, and whether that is what was told."""

from __future__ import annotations

import difflib
import http.client
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .children import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOP = Path(__file__).with_name("shop")
STARTERS = ("run_wizard", "serve")
PAGE = "/admins"
LIMIT = 15  # seconds for one act
CODE, CAUSE = "LS101", "closed-loop"
TRACEBACK = "Traceback (most recent call last):"

#: Settings of the caller's that would change the story.
_FOREIGN = re.compile(r"(LOOPSENTRY|UVICORN_|WEB_CONCURRENCY$|PYTHON(ASYNCIO|SAFEPATH|WARN|IOENC))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one act did.

    Attributes:
        status: the HTTP status of the answer; None if there was none.
        body: the answer's text.
        output: everything the program printed.
        records: the diagnoses it wrote to `LOOPSENTRY_REPORT`.
        seconds: how long the act took.
    """

    status: int | None
    body: str
    output: str
    records: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def failure(self) -> list[str]:
        """The lines of the failure: all that the program printed but the server's own news."""
        return [line for line in self.output.splitlines() if not line.startswith("INFO:")]

    @property
    def message(self) -> list[str]:
        """The lines of loopsentry's message: the headline and what is indented under it."""
        headline = f"error[{CODE}]:"
        from_headline = dropwhile(lambda line: not line.startswith(headline), self.failure)
        return list(takewhile(lambda line: line.startswith((headline, "  ")), from_headline))

    @property
    def added(self) -> int:
        """How many lines loopsentry added: its message, and those inside exceptions' texts."""
        rewritten = [line for line in self.failure if line.startswith(f"[{CODE}]")]
        return len(rewritten) + len(self.message)

    @property
    def named(self) -> list[str]:
        """Which of the functions that start an event loop the failure names."""
        text = "\n".join(self.failure)
        return [name for name in STARTERS if re.search(rf"\b{name}\b", text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One run of the program.

    Attributes:
        title: what the run is called.
        command: what a user would type, after `python -m`.
        cured: whether the wizard has an engine of its own.
        faults: says in what an outcome differs from what is told.
    """

    title: str
    command: str
    cured: bool = False
    faults: Callable[[Outcome], Iterator[str]] = field(repr=False)


def play(act: Act, folder: Path, url: str) -> Outcome:
    """Run the program, ask it for its page once, stop it."""
    begin = time.monotonic()
    folder.mkdir()
    _lay_out(folder, cured=act.cured)
    report = folder / "report.jsonl"
    child = Child(
        ("-m", *act.command.split()),
        folder=folder,
        environment=_environment(url, report),
        output=folder / "output.txt",
    )
    try:
        status, body = _ask(child, begin + LIMIT)
        child.end(begin + LIMIT)
    finally:
        child.kill()
    records = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return Outcome(
        status=status,
        body=body,
        output=child.written(),
        records=tuple(json.loads(record) for record in records),
        seconds=time.monotonic() - begin,
    )


def cure() -> list[str]:
    """The lines that differ between the wizard and the cured wizard, marked `-` and `+`."""
    files = (SHOP / "wizard.py", SHOP / "wizard_cured.py")
    before, after = (file.read_text(encoding="utf-8").splitlines() for file in files)
    changes = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    return [line for line in changes if line[0] in "-+" and line[1:].strip()]


def _lay_out(folder: Path, *, cured: bool) -> None:
    """Copy the program, so that its paths are short and nothing is written beside the original."""
    shop = folder / SHOP.name
    shutil.copytree(SHOP, shop, ignore=shutil.ignore_patterns("__pycache__"))
    cured_wizard = shop / "wizard_cured.py"
    if cured:
        cured_wizard.replace(shop / "wizard.py")
    else:
        cured_wizard.unlink()


def _environment(url: str, report: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return {
        **kept,
        "DATABASE_URL": url,
        "LOOPSENTRY_REPORT": str(report),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "NO_COLOR": "1",
    }


def _ask(child: Child, deadline: float) -> tuple[int | None, str]:
    """Ask for the page when the server is up, then interrupt the server."""
    ready = child.await_text(r"running on http://127\.0\.0\.1:(\d+)", deadline)
    if ready is None:
        return None, ""
    left = max(1.0, deadline - time.monotonic())
    client = http.client.HTTPConnection("127.0.0.1", int(ready[1]), timeout=left)
    try:
        client.request("GET", PAGE)
        answer = client.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        client.close()
        child.interrupt()


def _bare_faults(outcome: Outcome) -> Iterator[str]:
    yield from _status_faults(outcome, 500)
    if TRACEBACK not in outcome.failure:
        yield "it printed no traceback"
    if outcome.named:
        yield f"its traceback names {' and '.join(outcome.named)}"
    if outcome.records:
        yield "it wrote a diagnosis although loopsentry was not installed"


def _explained_faults(outcome: Outcome) -> Iterator[str]:
    yield from _status_faults(outcome, 500)
    if not outcome.message:
        yield f"no message error[{CODE}] was printed"
    if outcome.named != list(STARTERS):
        yield f"of {' and '.join(STARTERS)} it names {' and '.join(outcome.named) or 'neither'}"
    if len(outcome.records) != 1:
        yield f"{len(outcome.records)} diagnoses were recorded, not one"
        return
    expected = {"code": CODE, "cause": CAUSE, "certainty": "proven", "severity": "error"}
    record = outcome.records[0]
    for key, value in expected.items():
        if record.get(key) != value:
            yield f"the diagnosis has {key} {record.get(key)}, not {value}"
    for key, starter in zip(("owner_loop", "current_loop"), STARTERS, strict=True):
        if _starter(record, key) != starter:
            yield f"the diagnosis has {key} started by {_starter(record, key)}, not {starter}"


def _cured_faults(outcome: Outcome) -> Iterator[str]:
    yield from _status_faults(outcome, 200)
    if TRACEBACK in outcome.failure:
        yield "it printed a traceback"
    if outcome.records:
        yield f"{len(outcome.records)} diagnoses were recorded, not none"


def _status_faults(outcome: Outcome, expected: int) -> Iterator[str]:
    if outcome.status is None:
        yield f"GET {PAGE} was not answered within {LIMIT} seconds"
    elif outcome.status != expected:
        yield f"GET {PAGE} was answered with {outcome.status}, not {expected}"


def _starter(record: dict[str, Any], loop: str) -> str | None:
    place = (record.get(loop) or {}).get("started_by") or {}
    function: str | None = place.get("function")
    return function


BARE = Act(title="bare", command="shop", faults=_bare_faults)
EXPLAINED = Act(title="explained", command="loopsentry run -m shop", faults=_explained_faults)
CURED = Act(title="cured", command="loopsentry run -m shop", cured=True, faults=_cured_faults)
