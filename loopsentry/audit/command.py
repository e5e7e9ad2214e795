"""`loopsentry audit`: what its options come to."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .auditor import AuditError, audit, explain_silence, select
from .baseline import BaselineError, accept, write_baseline
from .findings import Audit
from .reading import Progress
from .reports import render, summarise, tell

__all__ = ["AuditError", "run_audit"]

_WORTH_A_BAR = 500
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
    no_cache: bool,
    fix: str | None,
    write: bool,
) -> bool:
    """Audit, report, and say whether there is something to mend.

    Raises:
        AuditError: for paths, settings and files that cannot be used.
    """
    with _without_collecting():
        with _progress() as progress:
            found = audit(paths, cached=not no_cache, progress=progress)
        if why_silent is not None:
            click.echo(explain_silence(found, why_silent))
            return False
        if fix is not None:
            return _mend(found, paths, fix, write=write)
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


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Look for no garbage, now or at the end of the process, which is near.

    All that a large audit has made is in use; to look through it takes half as long as the audit.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on the terminal, for trees that take long enough to be waited for."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total > _WORTH_A_BAR)

        yield show


def _mend(found: Audit, paths: tuple[Path, ...], edit: str, *, write: bool) -> bool:
    """Print, or write, edits for what is proven; say whether something stays."""
    try:
        from .mending import propose
    except ImportError:
        advice = "pip install 'sqlalchemy-loopsentry[fix]'"
        raise AuditError(f"--fix edits with libcst, which is not installed: {advice}") from None
    mends = propose(found, paths, edit)
    for mend in mends:
        if mend.refusal:
            where = f"{mend.file}: {mend.findings[0].code}"
            click.echo(f"{where}: not edited, {mend.refusal}", err=True)
            continue
        click.echo(mend.diff, nl=False)
        if write:
            (found.root / mend.file).write_text(mend.after, "utf-8", newline="")
    edited = sum(not mend.refusal for mend in mends)
    done = "written" if write else "shown; --write writes them"
    click.echo(f"{edited} edits {done}", err=True)
    return not write or any(mend.refusal for mend in mends)


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
