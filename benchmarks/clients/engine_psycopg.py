"""SQLAlchemy on psycopg."""

from __future__ import annotations

import os

from ._engine import maker

TITLE = "SQLAlchemy engine, psycopg"
globals().update(maker(os.environ["POSTGRESQL"].replace("postgresql", "postgresql+psycopg", 1)))
