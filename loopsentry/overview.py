"""The words of a status: loops, engines, connections and mistakes, a few lines each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ._wording import visible
from .model import Holder, Place
from .snapshot import ConnectionStatus, EngineStatus, LoopStatus, MistakeStatus, Status, TaskStatus

if TYPE_CHECKING:
    from rich.console import Console

#: How many tasks of one loop, or connections of one engine, are shown.
SHOWN = 20
#: Seconds after which a thread that does not move is worth a line.
STILL = 1.0


def print_lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    """Print the lines of a status, as wide as they are."""
    from rich.text import Text

    for line, style in lines:
        console.print(Text(line, style=style), soft_wrap=True, highlight=False)


def tell(status: Status) -> Iterator[tuple[str, str]]:
    """The lines of a status, each with its style; nothing in them can control a terminal."""
    for line, style in _tell(status):
        yield visible(line), style


def _tell(status: Status) -> Iterator[tuple[str, str]]:
    yield f"loopsentry {status.version}, process {status.pid}, {status.time:%H:%M:%S} UTC", "bold"
    if not status.recorded:
        yield "  not installed here: who owned and opened what was not recorded", "yellow"
    if not status.loops:
        yield "no event loop", "bold cyan"
    for loop in status.loops:
        yield from _loop(loop)
    for engine in status.engines:
        yield from _engine(engine, status.time)
    if status.others:
        yield "connections and clients of no engine", "bold magenta"
        yield from _connections(status.others, status.time)
    if status.mistakes:
        yield "told until now", "bold red"
    for mistake in status.mistakes:
        yield _mistake(mistake), ""


def _loop(loop: LoopStatus) -> Iterator[tuple[str, str]]:
    info = loop.info
    name = f"loop {info.id}" if info.id else "loop, not recorded"
    starter = info.runner or info.kind
    by = info.started_by
    started = f" in {by.call}, {by.path}:{by.line}" if by else ""
    thread = f"; thread {loop.thread}" if loop.thread else ""
    count = len(loop.tasks) + loop.more
    tasks = f"{count} task{'s' * (count != 1)}"
    yield f"{name}: {starter}{started}, {info.state}{thread}; {tasks}", "bold cyan"
    if loop.place is not None:
        still = loop.still if loop.still is not None and loop.still >= STILL else None
        for_how_long = f" for {still:.0f} s" if still is not None else ""
        yield f"  its thread is at {loop.place.short}{for_how_long}", "yellow" if still else ""
    alike: dict[tuple[object, ...], list[TaskStatus]] = {}
    for task in loop.tasks:
        alike.setdefault((task.place, task.awaits, task.state), []).append(task)
    for tasks_there in list(alike.values())[:SHOWN]:
        yield f"  {_tasks(tasks_there)}", ""
    more = loop.more + sum(map(len, list(alike.values())[SHOWN:]))
    if more:
        yield f"  and {more} more", "dim"


def _tasks(alike: list[TaskStatus]) -> str:
    """Tasks that do the same at the same line."""
    first, *others = alike
    more = f" and {len(others)} like it" if others else ""
    where = f"  {first.place.short}" if first.place else ""
    awaits = f"; awaits {first.awaits}" if first.awaits else ""
    state = "" if first.state == "waiting" else f"; {first.state}"
    return f"{first.name}{more}{where}{awaits}{state}"


def _engine(engine: EngineStatus, now: datetime) -> Iterator[tuple[str, str]]:
    info = engine.info
    module = f", {Place(info.module_file, 0, '').path}" if info.module_file else ""
    name = f"engine `{info.variable}`{module}" if info.variable else "engine"
    yield f"{name}: {info.url}", "bold magenta"
    made = f"; made at {info.created_at.short}" if info.created_at else ""
    size = f", size {engine.size}" if engine.size is not None else ""
    yield f"  {engine.pool}{size}: {engine.out} out, {engine.idle} idle{made}", ""
    yield from _connections(engine.connections, now)
    older = engine.out + engine.idle - len(engine.connections)
    if older > 0:
        yield f"  and {older} whose opening was not recorded", "dim"


def _connections(
    connections: tuple[ConnectionStatus, ...], now: datetime
) -> Iterator[tuple[str, str]]:
    for each in connections[:SHOWN]:
        closed = each.loop is not None and each.loop_state == "closed"
        yield f"  {_connection(each, now)}", "yellow" if closed or each.trouble else ""
        if each.holder is not None:
            yield f"    out: {_holder(each.holder)}", ""
    if len(connections) > SHOWN:
        yield f"  and {len(connections) - SHOWN} more", "dim"


def _connection(each: ConnectionStatus, now: datetime) -> str:
    owner = f"loop {each.loop}, {each.loop_state}" if each.loop is not None else "no loop"
    opened = f" at {each.opened_at.short}" if each.opened_at else ""
    parts = [f"{each.label} of {owner}", f"opened{opened} {_ago(each.opened, now)}"]
    if each.trouble:
        parts.append(f"left unusable by {each.trouble}")
    return "; ".join(parts)


def _holder(holder: Holder) -> str:
    task = holder.task or ("no task" if holder.searched else "")
    where = f" at {holder.place.short}" if holder.place else ""
    return f"{holder.label}{f', in hand of {task}{where}' if task else ''}"


def _ago(time: datetime, now: datetime) -> str:
    seconds = max(0, int((now - time).total_seconds()))
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} s ago"


def _mistake(mistake: MistakeStatus) -> str:
    told = mistake.diagnosis
    where = f"; {told.used_at.short}" if told.used_at else ""
    return f"  {mistake.count} x {told.code} {told.title}{where}"
