"""SQLAlchemy on asyncmy."""

from __future__ import annotations

import os

from ._engine import SLEEP, maker

TITLE = "SQLAlchemy engine, asyncmy"
NEEDS = ("asyncmy",)
globals().update(maker(os.environ["MYSQL"].replace("mysql", "mysql+asyncmy", 1), sleep=SLEEP))
