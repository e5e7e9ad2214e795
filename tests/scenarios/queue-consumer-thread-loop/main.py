"""Jobs are put into a queue on the main loop; a thread is to take them out on a loop of its own."""
import asyncio
import threading

jobs = asyncio.Queue()
failures = []


async def take():
    return await jobs.get()


def worker():
    try:
        print(asyncio.run(take()))
    except Exception as exc:
        failures.append(exc)
        raise


async def consume_here():
    try:
        await asyncio.wait_for(jobs.get(), 0.5)
    except TimeoutError:
        print("nothing to do here")


async def serve():
    waiting = asyncio.create_task(consume_here())
    await asyncio.sleep(0.1)
    thread = threading.Thread(target=worker, name="worker")
    thread.start()
    await waiting
    await asyncio.to_thread(thread.join, 5)


def main():
    asyncio.run(serve())
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
