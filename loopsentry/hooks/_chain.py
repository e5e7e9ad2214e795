"""Standing in front of one of the interpreter's hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    asked = [examine]

    def hook(*args: Any) -> None:
        for each in asked:
            each(*args)
        previous(*args)

    def undo() -> None:
        asked.clear()
        if getattr(module, name) is hook:
            setattr(module, name, previous)

    setattr(module, name, hook)
    return undo
