"""A module keeps one asynchronous client of MongoDB, and two runs use it; no server answers either."""
import asyncio

import pymongo
import pymongo.errors

client = pymongo.AsyncMongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100)


async def ping():
    try:
        await client.admin.command("ping")
    except pymongo.errors.ServerSelectionTimeoutError:
        return "no server"


if __name__ == "__main__":
    print(asyncio.run(ping()))
    print(asyncio.run(ping()))
