"""The parent opens a connection, a child asks through it."""
import asyncio
import multiprocessing
import os
import sys

import asyncpg

shared = []


async def ask():
    if not shared:
        shared.append(await asyncpg.connect(os.environ["SCENARIO_DSN"]))
    return await shared[0].fetchval("select 1")


def work():
    print("child asks")
    print("child was told", asyncio.run(ask()))


def main():
    print("parent was told", asyncio.run(ask()))
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(20)
    sys.exit(child.exitcode)


if __name__ == "__main__":
    main()
