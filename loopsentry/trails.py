"""The present stack, and what it told before of the same lines at work.

The same few lines of a program open most of its connections. Whatever a stack tells of them is kept
by the code objects and instructions at work, so that it is found out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from ._frames import Site, first_argument, is_user, live_frames, site_of, user_stack
from .holders import place_here, place_in
from .model import Place

KEPT = 256


@dataclass(slots=True)
class _Told:
    """What one stack tells.

    Attributes:
        codes: the code objects at work; while they are kept, their identities are theirs.
        place: the user's line on it, None if there is none, or only the one that started the loop.
        stack: the user's frames.
        found: by types, which frames are those of their methods.
    """

    codes: list[CodeType]
    place: Place | None
    stack: tuple[Place, ...]
    found: dict[tuple[type, ...], tuple[int, ...]] = field(default_factory=dict)


_told: dict[tuple[int, ...], _Told] = {}


class Trail:
    """The stack of what happens right now.

    Args:
        start: the innermost frame.
    """

    def __init__(self, start: FrameType) -> None:
        self.frames = list(live_frames(start))
        self._sites: list[Site] = []
        key: list[int] = []
        for frame in self.frames:
            key += (id(frame.f_code), frame.f_lasti)
        told = _told.get(tuple(key))
        if told is None:
            told = _Told(
                codes=[frame.f_code for frame in self.frames],
                place=place_in(self.sites),
                stack=user_stack(self.sites),
            )
            if len(_told) >= KEPT:
                _told.clear()
            _told[tuple(key)] = told
        self._known = told

    @property
    def sites(self) -> list[Site]:
        """The frames, and where they stand, the innermost first."""
        if not self._sites:
            self._sites = [site_of(frame) for frame in self.frames]
        return self._sites

    @property
    def place(self) -> Place | None:
        """The user's line that the present task works for."""
        return self._known.place or place_here(self.sites)

    @property
    def stack(self) -> tuple[Place, ...]:
        """The user's frames, the nearest first."""
        return self._known.stack

    def first_arguments(self, kinds: tuple[type, ...]) -> Iterator[Any]:
        """The objects of these types whose methods are at work, the innermost first.

        The user's own frames are left untouched.
        """
        found = self._known.found.get(kinds)
        if found is None:
            found = tuple(
                index
                for index, frame in enumerate(self.frames)
                if not is_user(frame) and isinstance(first_argument(frame), kinds)
            )
            self._known.found[kinds] = found
        for index in found:
            target = first_argument(self.frames[index])
            if isinstance(target, kinds):
                yield target
