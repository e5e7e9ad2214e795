"""Standing in front of one of the interpreter's hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopsentry._screen import colours
from loopsentry.registry import Undo


def chain(module: Any, name: str, examine: Callable[..., object]) -> Undo:
    """Call `examine` with the arguments of a hook, and then whatever was there before.

    Args:
        module: where the hook lives, `sys` or `threading`.
        name: the hook's name.
        examine: takes what the hook takes, and never raises.

    Returns:
        What puts the earlier hook back. Where somebody has put another one on top since, which may
        call ours for ever, ours only passes on.
    """
    previous = getattr(module, name)
    # Another's hook may send the notes anywhere; the interpreter's own prints them.
    own = previous is getattr(module, f"__{name}__", None)
    asked = [examine]

    def hook(*args: Any) -> None:
        for each in asked:
            each(*args)
        with colours(_exception_in(args) if own and asked else None):
            previous(*args)

    def undo() -> None:
        asked.clear()
        if getattr(module, name) is hook:
            setattr(module, name, previous)

    setattr(module, name, hook)
    return undo


def _exception_in(args: tuple[Any, ...]) -> Any:
    """The exception among a hook's arguments: `(type, exception, traceback)`, or one record."""
    return args[1] if len(args) > 1 else getattr(args[0], "exc_value", None)
