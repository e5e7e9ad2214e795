"""Collections that change while they are read: what is read is all of one moment."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

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
