"""A condition at module level, on which two runs of one program wait."""

import asyncio

stock_changed = asyncio.Condition()


async def restock():
    await asyncio.sleep(0.01)
    async with stock_changed:
        stock_changed.notify_all()


async def wait_for_stock():
    restocking = asyncio.create_task(restock())
    async with stock_changed:
        await asyncio.wait_for(stock_changed.wait(), 5)
    await restocking
    print("in stock")


def first_day():
    asyncio.run(wait_for_stock())


def second_day():
    asyncio.run(wait_for_stock())


first_day()
second_day()
