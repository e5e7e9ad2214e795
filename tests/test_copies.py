"""Collections that change while they are read: what is read is all of one moment."""

from __future__ import annotations

import ast
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import loopsentry
from loopsentry._bell import Bell, _ThreadWaiter
from loopsentry._copies import ATTEMPTS, copy_of


class Member:
    """Something that weak collections can hold."""


MAKERS: dict[str, Callable[[list[Member]], tuple[Any, Callable[[Member], object]]]] = {
    "set": lambda members: (it := set(members), it.add),
    "WeakSet": lambda members: (it := weakref.WeakSet(members), it.add),
    "dict": lambda members: (it := dict.fromkeys(members), it.setdefault),
    "WeakKeyDictionary": lambda members: (
        it := weakref.WeakKeyDictionary(dict.fromkeys(members)),
        it.setdefault,
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("times", [0, 1, 20])
def test_a_copy_has_what_was_there_at_one_moment(kind: str, times: int) -> None:
    """A collection that grows in the middle of some readings is read anew, with what was added."""
    members = [Member() for _ in range(5)]
    collection, add = MAKERS[kind](members)

    def iterate() -> Iterator[Member]:
        for index, member in enumerate(collection):
            if index == 1 and len(members) < 5 + times:
                members.append(Member())
                add(members[-1])
            yield member

    assert set(copy_of(iterate)) == set(members)
    assert len(members) == 5 + times


def test_a_reading_that_never_succeeds_ends() -> None:
    """A collection that changes during each attempt raises what the iteration raised."""
    collection, attempts = {0}, []

    def iterate() -> Iterable[int]:
        attempts.append(1)
        for each in collection:
            collection.add(len(collection))
            yield each

    with pytest.raises(RuntimeError, match="changed size during iteration"):
        copy_of(iterate)
    assert len(attempts) == ATTEMPTS


def test_another_failure_of_an_iteration_is_raised_at_once() -> None:
    """A RuntimeError that has nothing to do with a change is not tried again."""
    attempts = []

    def iterate() -> Iterable[int]:
        attempts.append(1)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        copy_of(iterate)
    assert len(attempts) == 1


def test_waiters_may_come_and_go_in_a_garbage_collection_while_others_are_woken() -> None:
    """A bell wakes its waiters although a collection, started by that, changes who waits."""
    bell = Bell()
    waiters = [_ThreadWaiter() for _ in range(40)]
    bell._waiters.update(waiters)

    one_more, changes = _ThreadWaiter(), []

    def change(phase: str, _: object) -> None:
        if phase == "start":
            changes.append(len(bell._waiters))
            bell._waiters.symmetric_difference_update({one_more})

    threshold = gc.get_threshold()
    gc.callbacks.append(change)
    gc.set_threshold(1)
    try:
        for before in range(20):
            _ = [[] for _ in range(before)]  # so that a collection comes at each of the places
            bell.ring()
    finally:
        gc.callbacks.remove(change)
        gc.set_threshold(*threshold)
    assert all(waiter.event.is_set() for waiter in waiters)
    assert changes


#: What goes through a whole collection when it is called with one.
READERS = {"all", "any", "dict", "frozenset", "list", "max", "min", "set", "sorted", "sum", "tuple"}
VIEWS = {"copy", "items", "keys", "values"}
FILES = [
    file
    for file in sorted(Path(loopsentry.__file__).parent.rglob("*.py"))
    if "audit" not in file.parts  # reads source, in one thread
]


def readings(node: ast.AST) -> list[ast.expr]:
    """What a piece of code goes through."""
    if isinstance(node, ast.For | ast.comprehension):
        return [node.iter]
    if isinstance(node, ast.Starred):
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in READERS:
        return node.args
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.args if node.func.attr in ("extend", "update") else []
    return []


def attribute_of(node: ast.expr) -> ast.Attribute | None:
    """The attribute that is read, whole or by a view."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        return attribute_of(node.func.value) if node.func.attr in VIEWS else None
    return node if isinstance(node, ast.Attribute) else None


def weak_attributes(tree: ast.AST) -> set[str]:
    """The attributes that a module annotates as weak collections."""
    return {
        node.target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute)
        if "weakref.Weak" in ast.unparse(node.annotation)
    }


def test_weak_collections_are_read_at_one_moment_everywhere() -> None:
    """No module of ours goes through a weak collection that another thread may change under it."""
    trees = {file: ast.parse(file.read_text("utf-8")) for file in FILES}
    weak = {file.name: weak_attributes(tree) for file, tree in trees.items()}
    assert {"births", "engines", "loops"} <= weak["registry.py"]
    assert weak["_loop_pool.py"] == {"records"}
    found = []
    for file, tree in trees.items():
        for read in (read for node in ast.walk(tree) for read in readings(node)):
            attribute = attribute_of(read)
            if attribute is None:
                continue
            base = ast.unparse(attribute.value)
            home = "registry.py" if base.endswith("registry") else file.name
            if attribute.attr in weak[home] and (base == "self" or home == "registry.py"):
                found.append(f"{file.name}:{read.lineno} {ast.unparse(read)}")
    assert found == [], "\n".join(found)
