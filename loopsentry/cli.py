"""The command `loopsentry`."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from . import __version__
from ._safely import safely

Program = Callable[[], None]
#: How long a loop may stand still under `loopsentry run` before it is looked at.
WATCHED_SECONDS = 5.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="loopsentry")
def cli() -> None:
    """Explain failures of async database code that crosses event loops."""


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [ARGS]...")
@click.pass_context
def run(context: click.Context, command: tuple[str, ...]) -> Program:
    """Run a program with loopsentry installed first.

    PROGRAM is a file, a folder with a __main__.py, -m MODULE, or the name of an installed command.
    What follows it is the program's own.

    \b
    loopsentry run seed.py --all
    loopsentry run -m app.worker
    loopsentry run uvicorn app:app --port 8080
    """  # noqa: D301 - click reads this mark
    if command in (("-h",), ("--help",)):
        click.echo(context.get_help())
        context.exit()
    if not command or command == ("-m",):
        raise click.UsageError("nothing to run; give SCRIPT, -m MODULE or a command", context)
    if command[0] == "-m":
        return partial(_run, "run_module", command[1], command[2:])
    if command[0].startswith("-m"):
        return partial(_run, "run_module", command[0][2:], command[1:])
    if command[0].startswith("-"):
        raise click.UsageError(f"no such option: {command[0]}", context)
    return partial(_run, "run_script", command[0], command[1:])


def _run(how: str, target: str, arguments: Sequence[str]) -> None:
    from . import program
    from .installation import WATCH, install

    install(watch=None if WATCH in os.environ else WATCHED_SECONDS)
    try:
        getattr(program, how)(target, arguments)
    except program.ProgramError as exc:
        click.echo(f"loopsentry run: {exc}", err=True)
        raise SystemExit(2) from None
    finally:
        _tell_unseen()


@safely
def _tell_unseen() -> None:
    """Tell, at the program's end, the mistakes whose exceptions it caught and did not show."""
    from .installation import current

    installation = current()
    if installation is None or sys.stderr is None:
        return
    for diagnosis in installation.examiner.take_unseen():
        click.echo("loopsentry: the program caught this, and nothing showed it:", err=True)
        click.echo(installation.examiner.render(diagnosis), err=True)


@cli.command()
@click.argument("topic", nargs=-1)
def explain(topic: tuple[str, ...]) -> None:
    """Explain a code (LS101), a fix (fresh-session) or the text of an error; list them without."""
    from .explanation import UnknownTopicError
    from .explanation import explain as explain_topic

    try:
        text = explain_topic(" ".join(topic) or None)
    except UnknownTopicError as exc:
        raise click.UsageError(str(exc)) from None
    _print_markdown(text)


def _print_markdown(text: str) -> None:
    """Print Markdown as a terminal shows it; elsewhere plain, with programs as they are."""
    from rich.console import Console
    from rich.markdown import Markdown

    if sys.stdout.isatty():
        Console().print(Markdown(text))
        return
    for number, part in enumerate(text.split("```")):
        if number % 2:
            click.echo(f"\n{part.partition(chr(10))[2]}")
            continue
        shown = io.StringIO()
        marked = _with_marks(_without_headings(part))
        Console(width=80, color_system=None, file=shown).print(Markdown(marked))
        plain = shown.getvalue().replace(_CODE, "`").replace(_QUOTED, '"')
        click.echo("\n".join(line.rstrip() for line in plain.splitlines()))


_CODE, _QUOTED = "\ue000", "\ue001"


def _with_marks(text: str) -> str:
    """Markdown with marks around code and quoted words, which plain text would not tell apart."""
    return "\n".join(map(_mark, text.split("\n")))


def _mark(line: str) -> str:
    if line.startswith("|") or re.fullmatch(r"\*[^*]+\*", line):
        return line  # a table's cell, a subtitle
    line = re.sub(r"(`[^`]+`)", rf"{_CODE}\1{_CODE}", line)
    return re.sub(r"(?<![*\w])(\*[^*\s][^*]*\*)(?![*\w])", rf"{_QUOTED}\1{_QUOTED}", line)


def _without_headings(text: str) -> str:
    """Markdown whose headings are lines of their own: rich draws frames around some of them."""
    lines = (line.lstrip("# ") if line.startswith("#") else line for line in text.splitlines())
    return "\n".join(lines)


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "how",
    type=click.Choice(["text", "concise", "json", "github", "sarif"]),
    default="text",
    show_default=True,
)
@click.option(
    "--min-certainty",
    type=click.Choice(["proven", "likely", "latent"]),
    default="latent",
    help="the least certain findings to report",
)
@click.option("--why-silent", metavar="FILE:LINE", help="say why a start of a loop is no finding")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="a file of findings that are accepted; only others count",
)
@click.option("--write-baseline", is_flag=True, help="accept all findings: write the baseline")
@click.option(
    "--output", type=click.Path(path_type=Path), help="write the report there, not to the terminal"
)
@click.option(
    "--fix",
    is_flag=False,
    flag_value="loop-local-pool",
    type=click.Choice(["loop-local-pool", "fresh-session", "null-pool", "dispose-in-loop"]),
    help="show an edit that cures what is proven [loop-local-pool]",
)
@click.option("--write", is_flag=True, help="write what --fix shows")
@click.option("--no-cache", is_flag=True, help="read all files anew, and keep nothing of them")
@click.option("--exit-zero", is_flag=True, help="exit with 0 also where something was found")
def audit(paths: tuple[Path, ...], *, exit_zero: bool, **options: Any) -> None:
    """Find event loops that reach one shared engine, pool or client, in source.

    Nothing is imported or run. The exit status is 0 for a clean project, 1 where something was
    found, 2 for an error.
    """
    from .audit.command import AuditError, run_audit

    try:
        found = run_audit(paths or (Path(),), **options)
    except AuditError as exc:
        raise click.UsageError(str(exc)) from None
    if found and not exit_zero:
        raise SystemExit(1)


@cli.command()
def doctor() -> None:
    """Show versions, neighbours, which drivers are watched, and what is not recorded here.

    The exit status is 1 where something should be mended.
    """
    from rich.console import Console
    from rich.table import Table

    from .doctor import examine
    from .installation import switched_off

    found = examine(off=switched_off())
    table = Table(box=None, show_header=False)
    for each in found:
        style = {"wrong": "bold red", "missing": "yellow"}.get(each.state, "green")
        table.add_row(f"[{style}]{each.state}[/]", each.what, each.words)
    Console(highlight=False).print(table)
    if any(each.state == "wrong" for each in found):
        raise SystemExit(1)


@cli.command()
@click.argument("pid", type=int)
@click.option("--wait", "seconds", default=5.0, show_default=True, help="seconds to wait")
@click.option("--signal", "name", metavar="NAME", help="a signal to send too, as USR1")
def attach(pid: int, *, seconds: float, name: str | None) -> None:
    """Show what a running program is doing: its event loops, tasks, engines and connections.

    Needs Python 3.14 or newer, the same in the program as here; loopsentry need not be installed
    there. The program is not signalled unless --signal says so, and answers when its main thread
    next runs Python. The exit status is 1 where it does not answer.
    """
    from rich.console import Console

    from .attach import AttachError, ask
    from .overview import print_lines

    try:
        signum = _signal(name) if name is not None else None
        lines = ask(pid, seconds=seconds, signum=signum)
    except AttachError as exc:
        click.echo(f"loopsentry attach: {exc}", err=True)
        raise SystemExit(1) from None
    print_lines(Console(), lines)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "markdown"]),
    default="table",
    show_default=True,
)
def report(files: tuple[str, ...], *, form: str) -> None:
    """Merge report files of many processes: each mistake, where, since when, and its cure.

    FILES are what LOOPSENTRY_REPORT has named. A line that is no record is told, and left out.
    """
    from contextlib import ExitStack

    from .fleet import merge, render, table_of

    with ExitStack() as opened:
        named = [(name, opened.enter_context(_open(name))) for name in files]
        mistakes, unreadable = merge(named)
    for each in unreadable:
        click.echo(f"{each.file}:{each.line}: left out: {each.why}", err=True)
    if form != "table":
        click.echo(render(mistakes, form))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if mistakes:
        console.print(table_of(mistakes))
    told = sum(len(each.processes) for each in mistakes)
    many = f"{len(mistakes)} mistake{'s' * (len(mistakes) != 1)}"
    console.print(f"{many} in {len(files)} file{'s' * (len(files) != 1)}; {told} records")


def _open(name: str) -> Any:
    return Path(name).open(encoding="utf-8", errors="replace")


def _signal(name: str) -> int:
    import signal

    known = signal.Signals.__members__
    for written in (name.upper(), f"SIG{name.upper()}"):
        if written in known:
            return known[written]
    raise click.UsageError(f"no such signal: {name}; one of {', '.join(known)}")


@cli.command()
@click.option(
    "--serve", is_flag=True, help="only keep that PostgreSQL running, and print its DATABASE_URL"
)
def demo(*, serve: bool) -> None:
    """Show the whole story on a real PostgreSQL: the failure, its explanation, the cure."""
    from . import demo as story

    raise SystemExit(story.serve() if serve else story.tell_story())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A program to run is started outside of click, so that its frames stand alone."""
    try:
        result: Any = cli.main(arguments, prog_name="loopsentry", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        raise SystemExit(exc.exit_code) from None
    except click.Abort:
        click.echo("loopsentry: interrupted", err=True)
        raise SystemExit(130) from None
    if callable(result):
        result()
