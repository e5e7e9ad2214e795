"""Standard error: only for what no exception's note shows already."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from loopsentry._safely import safely
from loopsentry.model import Diagnosis
from loopsentry.renderers import plain, terminal


class Console:
    """Prints warnings that have no exception to carry them."""

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Print to standard error, coloured if that is a terminal; never to standard output."""
        if shown or sys.stderr is None:
            return
        if sys.stderr.isatty():
            from rich.console import Console as RichConsole

            RichConsole(stderr=True).print(terminal.render(diagnosis), soft_wrap=True)
        else:
            sys.stderr.write(plain.render(diagnosis) + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Nothing is held."""


@safely
def open_sink(_environment: Mapping[str, str]) -> Console:
    """The console is always there."""
    return Console()
