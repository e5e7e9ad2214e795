import asyncio

lock = asyncio.Lock()


async def work():
    async with lock:
        await asyncio.sleep(0.01)


async def test_first():
    await asyncio.gather(work(), work())


async def test_second():
    await asyncio.gather(work(), work())
