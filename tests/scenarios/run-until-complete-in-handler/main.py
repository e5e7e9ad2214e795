"""A property that hides an await."""
import asyncio
import os

import asyncpg


class Account:
    def __init__(self, conn):
        self.conn = conn

    @property
    def balance(self):
        loop = asyncio.get_event_loop()
        return loop.run_until_complete(self.conn.fetchval("select 42"))


async def show():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    try:
        print(Account(conn).balance)
    finally:
        await conn.close()


def main():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(show())
    finally:
        loop.close()


if __name__ == "__main__":
    main()
