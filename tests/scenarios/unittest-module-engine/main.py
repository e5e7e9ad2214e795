"""Tests of a repository, with the standard library's own asynchronous test case."""
import os
import unittest

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


class RepositoryTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_database_is_there(self):
        async with engine.connect() as conn:
            self.assertTrue(await conn.scalar(text("select current_database() is not null")))

    async def test_b_user_is_there(self):
        async with engine.connect() as conn:
            self.assertTrue(await conn.scalar(text("select current_user is not null")))


if __name__ == "__main__":
    unittest.main()
