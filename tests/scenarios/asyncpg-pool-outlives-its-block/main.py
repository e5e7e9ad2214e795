"""A shop keeps the pool of a block that is over."""
import asyncio
import os

import asyncpg


class Shop:
    async def __aenter__(self):
        self.pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1)
        return self

    async def __aexit__(self, *_error):
        await self.pool.close()

    async def count(self):
        async with self.pool.acquire() as connection:
            return await connection.fetchval("select count(*) from pg_type")


async def open_shop():
    async with Shop() as shop:
        print("counted", await shop.count())
        return shop


async def main():
    shop = await open_shop()
    print("counted again", await shop.count())


asyncio.run(main())
