"""A plug-in makes its own loop, inside an application that has one."""
import asyncio


async def plugin_work():
    return 1


def plugin():
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(plugin_work())
    finally:
        loop.close()


async def application():
    await asyncio.sleep(0)
    print(plugin())


def main():
    asyncio.run(application())


if __name__ == "__main__":
    main()
