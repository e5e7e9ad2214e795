"""`loopsentry audit`: what its options come to."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .auditor import AuditError, audit, explain_silence, select
from .baseline import BaselineError, accept, write_baseline
from .findings import Audit
from .reports import render, summarise, tell

__all__ = ["AuditError", "run_audit"]

_STYLES = {
    "proven": "bold red",
    "likely": "bold yellow",
    "head": "bold",
    "place": "cyan",
    "source": "dim",
    "note": "",
    "help": "green",
}


def run_audit(  # noqa: PLR0913 - one for each option
    paths: tuple[Path, ...],
    *,
    how: str,
    min_certainty: str,
    why_silent: str | None,
    baseline: Path | None,
    write_baseline: bool,
    output: Path | None,
    exit_zero: bool,  # noqa: ARG001 - the command's own
) -> bool:
    """Audit, report, and say whether there is something to mend.

    Raises:
        AuditError: for paths, settings and files that cannot be used.
    """
    found = audit(paths)
    if why_silent is not None:
        click.echo(explain_silence(found, why_silent))
        return False
    told = select(found, min_certainty)
    if write_baseline:
        return _accept_all(told, baseline)
    if baseline is not None:
        try:
            told = accept(told, baseline)
        except BaselineError as exc:
            raise AuditError(str(exc)) from None
    _report(told, how, output)
    return any(not each.accepted for each in told.findings)


def _accept_all(told: Audit, path: Path | None) -> bool:
    if path is None:
        raise AuditError("--write-baseline needs --baseline FILE, the file to write")
    write_baseline(told, path)
    click.echo(f"{len(told.findings)} findings are accepted in {path}")
    return False


def _report(told: Audit, how: str, output: Path | None) -> None:
    if output is not None:
        output.write_text(render(told, how), "utf-8")
    elif how == "text" and sys.stdout.isatty():
        _print_in_colour(told)
    else:
        click.echo(render(told, how), nl=False)


def _print_in_colour(told: Audit) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for kind, text in tell(told):
        console.print(Text(text, style=_STYLES.get(kind, "")))
    for text in summarise(told):
        console.print(text, markup=False)
