"""The reader's own name for an object: the global variable of a module of theirs that holds it."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

from ._copies import copy_of
from ._frames import is_user_file
from ._safely import safely
from .exceptions import variables_of

#: How long the user's modules may be searched for one object, in seconds of the thread's own time.
SEARCH_SECONDS = 0.02

#: A variable, and the file of its module.
Found = tuple[str, str | None]


def find_variable(
    holds: Callable[[Any], bool], makers: frozenset[str] = frozenset()
) -> Found | None:
    """Find the global variable that holds an object, in the user's modules, one level deep.

    Where several modules have it, the others import it from the one that can make such objects.

    Args:
        holds: whether a value is the object.
        makers: names of what makes such objects.

    Returns:
        The variable, as `name` or `name.attribute`, and its module's file; None if there is none,
        or too much to search.
    """
    found: Found | None = safely(_find)(holds, makers)
    return found


def _find(holds: Callable[[Any], bool], makers: frozenset[str]) -> Found | None:
    found: list[tuple[int, str, str | None]] = []
    deadline = thread_time() + SEARCH_SECONDS
    for names in own_modules():
        if thread_time() > deadline:
            break
        variable = _variable_in(names, holds)
        if variable is not None:
            imported = names.get("__name__") != "__main__"
            rank = 2 * (not makers.isdisjoint(names)) + imported
            found.append((rank, variable, names.get("__file__")))
    found.sort(key=lambda each: -each[0])
    return found[0][1:] if found else None


#: How much source is read for one definition, in bytes, and how long the answer may be.
SOURCE_READ, LONGEST = 200_000, 70


def definition_of(variable: str, file: str | None) -> str | None:
    """How the source of a module makes what a variable holds, with `...` for each string.

    Args:
        variable: as `find_variable` gives it.
        file: of its module.

    Returns:
        The one call that is assigned to it, None if there is none, or several, or none that fits.
    """
    found: str | None = safely(_read_definition)(variable, file)
    return found


def _read_definition(variable: str, file: str | None) -> str | None:
    source = "".join(linecache.getlines(file)) if file is not None else ""
    if not 0 < len(source) < SOURCE_READ:
        return None
    name = variable.rpartition(".")[2]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    made = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if getattr(target, "attr", getattr(target, "id", None)) == name
    ]
    if len(made) != 1:
        return None
    text = ast.unparse(_WithoutStrings().visit(made[0]))
    return text if len(text) <= LONGEST and "\n" not in text else None


class _WithoutStrings(ast.NodeTransformer):
    """Replaces what may be a secret."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant(...) if isinstance(node.value, str | bytes) else node

    def visit_JoinedStr(self, _node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant(...)


def own_modules() -> Iterator[dict[str, Any]]:
    """The variables of each of the user's own modules."""
    return (variables_of(sys.modules.get(name)) for name in _own_names())


def _own_names() -> tuple[str, ...]:
    """The names of the user's own modules, found out anew when others have been imported."""
    global _known  # noqa: PLW0603 - one list of the process
    count = len(sys.modules)
    if _known[0] != count:
        modules = copy_of(sys.modules.items)
        own = (n for n, m in modules if n == "__main__" or _is_own(variables_of(m)))
        _known = count, tuple(own)
    return _known[1]


_known: tuple[int, tuple[str, ...]] = (0, ())


def _variable_in(names: dict[str, Any], holds: Callable[[Any], bool]) -> str | None:
    for variable, value in copy_of(names.items):
        if holds(value):
            return variable
        if _is_own(variables_of(sys.modules.get(type(value).__module__))):
            for attribute, inner in copy_of(variables_of(value).items):
                if holds(inner):
                    return f"{variable}.{attribute}"
    return None


def _is_own(names: dict[str, Any]) -> bool:
    """Whether these are the names of one of the user's own modules."""
    file = names.get("__file__")
    return isinstance(file, str) and is_user_file(file)
