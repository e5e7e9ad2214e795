"""loopsentry's own refusal of a connection of another event loop, before a byte was sent."""

from __future__ import annotations

from loopsentry.mismatch import HealedMismatchError, LoopMismatchError
from loopsentry.model import Symptom

PACKAGES = ("loopsentry",)


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate a crossing that was stopped, or healed, at checkout."""
    if not issubclass(type(exc), LoopMismatchError):
        return None
    healed = issubclass(type(exc), HealedMismatchError)
    return Symptom(
        kind="replaced" if healed else "refused",
        library="loopsentry",
        type="loopsentry.LoopMismatchError",
        text=text,
        sent=False,
    )
