"""One client in one situation, in a process of its own: `python -m benchmarks.clients.play`.

Prints what the program came to as the last line: `works`, or the exception's type and text.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from typing import Any

import loopsentry

SECONDS = 15.0


class Play:
    """A client's file, and the one object that is shared.

    Attributes:
        client: the file.
        shared: the object, made in the first run.
        loop: the loop in another thread, where there is one.
    """

    def __init__(self, name: str) -> None:
        self.client: Any = importlib.import_module(f"benchmarks.clients.{name}")
        self.shared: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def begin(self) -> None:
        """Make the object, and use it on its own loop."""
        self.shared = await self.client.make()
        await self.client.use(self.shared)

    async def use(self) -> None:
        """Use the object on the loop that runs."""
        await asyncio.wait_for(self.client.use(self.shared), SECONDS)

    async def share(self) -> None:
        """Use it in two tasks of one loop."""
        await self.begin()
        both = asyncio.gather(self.client.use(self.shared), self.client.use(self.shared))
        await asyncio.wait_for(both, SECONDS)

    def run_first(self, situation: str) -> None:
        """Start what comes first."""
        if situation == "two-runs":
            asyncio.run(self.begin())
        elif situation == "two-live-loops":
            self.loop = asyncio.new_event_loop()
            threading.Thread(target=self.loop.run_forever, daemon=True).start()
            asyncio.run_coroutine_threadsafe(self.begin(), self.loop).result(SECONDS)

    def run_second(self, situation: str) -> None:
        """Start what fails."""
        asyncio.run(self.share() if situation == "shared" else self.use())


class Cured(Play):
    """The same, with a cure."""

    async def use_own(self) -> None:
        """Make, use and close an object of one's own: `client-per-loop`, `session-per-task`."""
        own = await self.client.make()
        try:
            await self.client.use(own)
        finally:
            await self.client.close(own)

    async def use_twice(self) -> None:
        """Do all in one run: `single-run`."""
        await self.begin()
        await self.use()
        await self.client.close(self.shared)

    async def submit(self) -> None:
        """Let the owner do it: `submit-to-owner`."""
        if self.loop is None:
            raise AssertionError("the cure is only offered where the owner runs")
        future = asyncio.run_coroutine_threadsafe(self.client.use(self.shared), self.loop)
        await asyncio.wrap_future(future)

    async def use_fresh(self) -> None:
        """Open a session on an engine of its own: `fresh-session`."""
        async with loopsentry.session_scope_fresh(self.shared) as session:
            await self.client.query(session)

    async def use_each_its_own(self) -> None:
        """Give each task an object of its own: `session-per-task`."""
        await asyncio.gather(self.use_own(), self.use_own())

    def run(self, situation: str, cure: str) -> None:
        """Run the program with a cure."""
        if cure == "single-run":
            asyncio.run(self.use_twice())
            return
        self.run_first(
            situation if situation == "two-live-loops" or cure == "fresh-session" else ""
        )
        ways = {
            "client-per-loop": self.use_own,
            "submit-to-owner": self.submit,
            "fresh-session": self.use_fresh,
            "session-per-task": self.use_each_its_own,
        }
        asyncio.run(asyncio.wait_for(ways[cure](), SECONDS))


def main() -> None:
    """Play one client in one situation, or a cure."""
    name, situation, *cure = sys.argv[1:]
    try:
        if cure:
            Cured(name).run(situation, cure[0])
        else:
            play = Play(name)
            play.run_first(situation)
            play.run_second(situation)
    except Exception as exc:
        words = " ".join(str(exc).partition("\n[LS")[0].split())
        print(f"{type(exc).__name__}: {words}", flush=True)
        raise
    print("works", flush=True)


if __name__ == "__main__":
    main()
