"""A command of a command-line program built with click or Typer."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "cli"
RANK = 20
PACKAGES = ("click", "typer", "cloup", "rich_click", "argparse")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise a click or Typer command around the loop; loopsentry's own commands are none."""
    own = False
    for frame in stack:
        own = own or frame.module in ("loopsentry.program", "loopsentry.cli")
        if frame.module.partition(".")[0] in ("click", "typer") and not own:
            return Recognition(context=NAME)
    return None
