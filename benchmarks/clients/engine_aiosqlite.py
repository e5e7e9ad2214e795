"""SQLAlchemy on aiosqlite."""

from __future__ import annotations

from ._engine import maker

TITLE = "SQLAlchemy engine, aiosqlite"
globals().update(maker("sqlite+aiosqlite:///:memory:"))
