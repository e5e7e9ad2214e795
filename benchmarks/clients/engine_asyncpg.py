"""SQLAlchemy on asyncpg."""

from __future__ import annotations

import os

from ._engine import maker

TITLE = "SQLAlchemy engine, asyncpg"
globals().update(maker(os.environ["POSTGRESQL"].replace("postgresql", "postgresql+asyncpg", 1)))
