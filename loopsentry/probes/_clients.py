"""Objects that keep their loop in `_loop`, and clients that complain of another one themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from loopsentry._frames import first_argument, raised_outside, running_loop
from loopsentry._monitoring import on_return
from loopsentry.exceptions import type_name_of
from loopsentry.model import ObjectKind, Sighting, Symptom
from loopsentry.registry import Registry, Undo
from loopsentry.trails import Trail

from ._births import birth_here, when_there


def sighter(
    module: str, *names: str, kind: ObjectKind = "client"
) -> Callable[[Any], Sighting | None]:
    """A probe's `sight` for classes whose instances keep their loop in `_loop`.

    Args:
        module: the module that has the classes; while it is not imported nothing is recognised.
        names: of the classes in it.
        kind: what their instances are.
    """
    library = module.partition(".")[0]

    def sight(target: Any) -> Sighting | None:
        there = sys.modules.get(module)
        kinds = tuple(getattr(there, name) for name in names if hasattr(there, name))
        if not kinds or not issubclass(type(target), kinds):
            return None
        label = f"{library} {kind}"
        loop = getattr(target, "_loop", None)
        return Sighting(kind=kind, label=label, library=library, target=target, loop=loop)

    return sight


def reader(
    text: str, packages: tuple[str, ...], *, sent: bool | None = None
) -> Callable[[BaseException, str], Symptom | None]:
    """A probe's `read` for a client that refuses another loop with a RuntimeError of its own.

    Args:
        text: what its message contains.
        packages: the library's; raised outside of them the text is only quoted.
        sent: whether anything may have been sent then.
    """

    def read(exc: BaseException, said: str) -> Symptom | None:
        if text not in said or not issubclass(type(exc), RuntimeError):
            return None
        quoted = raised_outside(exc, packages)
        return Symptom(
            kind="foreign-loop",
            library=packages[0],
            type=type_name_of(exc),
            text=text,
            quoted=quoted,
            sent=sent,
            about=None if quoted else "client",
        )

    return read


def hear_made(registry: Registry, module: str, name: str) -> Undo:
    """Record where instances of a class are made (Python 3.12), once its module is imported.

    When they are complete: one that is not yet may have no hash (pymongo).
    """

    def is_made(frame: FrameType) -> None:
        birth = birth_here(registry, "client", running_loop(), Trail(frame))
        registry.bear(first_argument(frame), birth)

    def listen(there: ModuleType) -> Undo:
        return on_return(getattr(getattr(there, name, None), "__init__", None), is_made)

    return when_there(registry, module, listen)
