"""What a project's `[tool.loopsentry.audit]` says."""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KNOWN = ("select", "ignore", "per-file-ignores", "entry-points", "starters")


class SettingsError(ValueError):
    """Settings that cannot be used; the message says which, and what is valid."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a project wants to be audited.

    Attributes:
        select: codes that alone are reported; empty for all.
        ignore: codes that are not reported.
        per_file_ignores: codes that are not reported in files that match a pattern.
        entry_points: further decorators, by their last name, whose functions run many times.
        starters: further functions, by their dotted names, that run a coroutine on a new loop.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file_ignores: dict[str, tuple[str, ...]] = field(default_factory=dict)
    entry_points: tuple[str, ...] = ()
    starters: tuple[str, ...] = ()

    def wants(self, code: str, file: str) -> bool:
        """Whether a finding of a code in a file is to be reported."""
        if code in self.ignore or (self.select and code not in self.select):
            return False
        patterns = (p for p, codes in self.per_file_ignores.items() if code in codes)
        return not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def read_settings(root: Path) -> Settings:
    """The settings of the nearest `pyproject.toml` at or above a folder; none for defaults.

    Raises:
        SettingsError: for a file that is no TOML, an unknown key or a value of another type.
    """
    for folder in (root, *root.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except ValueError as exc:
            raise SettingsError(f"{path}: {exc}") from None
        table = data.get("tool", {}).get("loopsentry", {}).get("audit", {})
        return _read(table, path)
    return Settings()


def _read(table: dict[str, Any], path: Path) -> Settings:
    unknown = sorted(set(table) - set(_KNOWN))
    if unknown:
        raise SettingsError(
            f"{path}: tool.loopsentry.audit has no {unknown[0]!r}; it has {', '.join(_KNOWN)}"
        )
    ignores = table.get("per-file-ignores", {})
    if not isinstance(ignores, dict):
        raise SettingsError(f"{path}: per-file-ignores is not a table of patterns and codes")
    return Settings(
        select=_names(table, "select", path),
        ignore=_names(table, "ignore", path),
        per_file_ignores={pattern: _names(ignores, pattern, path) for pattern in ignores},
        entry_points=_names(table, "entry-points", path),
        starters=_names(table, "starters", path),
    )


def _names(table: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise SettingsError(f"{path}: {key} = {value!r} is not a list of texts")
    return tuple(value)
