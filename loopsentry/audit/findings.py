"""What the audit finds, in words."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Certainty = Literal["proven", "likely", "latent"]
CERTAINTIES: tuple[Certainty, ...] = ("proven", "likely", "latent")


@dataclass(frozen=True, slots=True)
class Link:
    """One step on a way through the source.

    Attributes:
        file: the file, below the audited root.
        line: the line.
        function: the function it stands in.
        note: what happens there.
    """

    file: str
    line: int
    function: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Thing:
    """The object at which two loops meet.

    Attributes:
        name: what holds it.
        file: where it is made.
        line: where it is made.
        kind: "engine", "pool" or "client".
    """

    name: str
    file: str
    line: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake that is visible in source.

    Attributes:
        code: "LSA101".
        kind: "run-reaches-shared-engine".
        certainty: "proven", "likely" or "latent".
        file: where the loop is started, or where the mistake stands.
        line: likewise.
        message: what is wrong, in one line.
        chain: the way from the entry over the start to the object.
        other: the way of the other loop to the object; empty where it is the same way again.
        object: the object at which the loops meet.
        reason: why it is as certain as it is.
        fixes: names of the cures, the first that fits first.
        accepted: whether a baseline holds it.
    """

    code: str
    kind: str
    certainty: Certainty
    file: str
    line: int
    message: str
    chain: tuple[Link, ...] = ()
    other: tuple[Link, ...] = ()
    object: Thing | None = None
    reason: str = ""
    fixes: tuple[str, ...] = ()
    accepted: bool = False

    @property
    def key(self) -> str:
        """What stays the same when lines move: the code, the way through functions, the object."""
        way = ">".join(f"{link.file}:{link.function}" for link in self.chain)
        thing = f"{self.object.file}:{self.object.name}" if self.object is not None else ""
        text = f"{self.code}|{self.file}|{way}|{thing}"
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Silence:
    """A start that is no mistake, and the rule that says so.

    Attributes:
        file: where it is.
        line: where it is.
        rule: name of the rule.
        reason: what was found, in words.
    """

    file: str
    line: int
    rule: str
    reason: str


@dataclass(slots=True)
class Audit:
    """All that one audit comes to.

    Attributes:
        root: the audited folder.
        findings: the mistakes, the most certain first.
        silences: the starts about which nothing is said, and why.
        skipped: files that were not read: their path, the reason, and whether a newer Python may.
        files: how many were read.
        lines: how many lines they have.
        starts: how many places start a loop.
        resources: how many shared objects bind to loops.
    """

    root: Path = Path()
    findings: list[Finding] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    skipped: list[tuple[str, str, bool]] = field(default_factory=list)
    files: int = 0
    lines: int = 0
    starts: int = 0
    resources: int = 0


def source_line(path: Path, line: int) -> str:
    """A line of source; "" if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return next(itertools.islice(file, line - 1, line), "").rstrip()
    except OSError:
        return ""
