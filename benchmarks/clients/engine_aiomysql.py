"""SQLAlchemy on aiomysql."""

from __future__ import annotations

import os

from ._engine import SLEEP, maker

TITLE = "SQLAlchemy engine, aiomysql"
NEEDS = ("aiomysql",)
globals().update(maker(os.environ["MYSQL"].replace("mysql", "mysql+aiomysql", 1), sleep=SLEEP))
