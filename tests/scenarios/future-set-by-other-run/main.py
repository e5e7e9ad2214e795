"""A cache that stores futures, so that nobody computes the same price twice."""
import asyncio

cache = {}


async def price(article):
    if article not in cache:
        cache[article] = asyncio.get_running_loop().create_future()
        return 5
    return await cache[article]


def main():
    print(asyncio.run(price("tea")))
    print(asyncio.run(price("tea")))


if __name__ == "__main__":
    main()
