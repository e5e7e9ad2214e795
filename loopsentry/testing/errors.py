"""What the harness raises, and what it warns of."""

from __future__ import annotations

from loopsentry.model import Diagnosis


class LoopSafetyError(AssertionError):
    """Raised by `assert_loop_safe`: the function fails, or hangs, in one of the arrangements.

    Since version 0.1.0.

    Attributes:
        arrangement: the arrangement that broke, in words.
        diagnosis: what is known about it, None for a hang or another failure.
    """

    __module__ = "loopsentry.testing"

    def __init__(
        self, text: str, arrangement: str = "", diagnosis: Diagnosis | None = None
    ) -> None:
        super().__init__(text)
        self.arrangement = arrangement
        self.diagnosis = diagnosis


class LoopCrossingWarning(UserWarning):
    """Given by `assert_loop_safe` for a crossing that the driver in use survives.

    psycopg's and aiosqlite's connections are bound to no loop between operations; asyncpg's are, so
    what passes here fails there. Since version 0.1.0.
    """

    __module__ = "loopsentry.testing"
