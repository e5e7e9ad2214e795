"""Repository with a helper that was meant to save two lines."""
import asyncio
import os

import asyncpg


class Repository:
    def __init__(self, pool):
        self.pool = pool

    async def connection(self):
        async with self.pool.acquire() as conn:
            return conn

    async def roles(self):
        conn = await self.connection()
        return await conn.fetch("select rolname from pg_roles")


async def main():
    async with asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1, max_size=2) as pool:
        print(await Repository(pool).roles())


if __name__ == "__main__":
    asyncio.run(main())
