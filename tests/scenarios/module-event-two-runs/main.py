"""A start signal that all steps share."""
import asyncio

started = asyncio.Event()


async def step(name):
    started.clear()
    asyncio.get_running_loop().call_later(0.05, started.set)
    await started.wait()
    print(name)


def main():
    asyncio.run(step("first"))
    asyncio.run(step("second"))


if __name__ == "__main__":
    main()
