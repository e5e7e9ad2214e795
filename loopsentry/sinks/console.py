"""Standard error: only for what no exception's note shows already."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from loopsentry._safely import safely
from loopsentry._screen import is_terminal
from loopsentry.model import Diagnosis
from loopsentry.renderers import plain


class Console:
    """Prints warnings that have no exception to carry them.

    Args:
        colours: whether the words may be coloured, where standard error is a terminal.
    """

    def __init__(self, *, colours: bool) -> None:
        self.colours = colours

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Print to standard error, coloured if that is a terminal; never to standard output."""
        if shown or sys.stderr is None:
            return
        if self.colours and is_terminal():
            from rich.console import Console as RichConsole

            from loopsentry.renderers import terminal

            console = RichConsole(stderr=True, highlight=False)
            text = terminal.render_for(console, diagnosis, verbose=False, beside=False)
            sys.stderr.write(text + "\n")
        else:
            sys.stderr.write(plain.render(diagnosis) + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Nothing is held."""


@safely
def open_sink(_environment: Mapping[str, str]) -> Console:
    """The console is always there; what colours it is imported now, if it is a terminal."""
    colours = is_terminal()
    if colours:
        import rich.console

        import loopsentry.renderers.terminal

        del rich, loopsentry
    return Console(colours=colours)
