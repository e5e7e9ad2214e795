"""Reads a project, asks the rules, and orders what they find."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from .findings import CERTAINTIES, Audit, Finding, source_line
from .program import Program
from .reading import Progress, cache_of
from .settings import Settings, SettingsError, read_settings
from .sources import Project, read_project
from .summaries import DEEP


class AuditError(Exception):
    """What was asked for cannot be audited; the message says what is wrong and what is valid."""


def load_rules() -> tuple[ModuleType, ...]:
    """All rules of the shelf, by their codes."""
    package = importlib.import_module("loopsentry.audit.rules")
    names = (info.name for info in pkgutil.iter_modules(package.__path__) if info.name[0] != "_")
    rules = [importlib.import_module(f"loopsentry.audit.rules.{name}") for name in names]
    return tuple(sorted(rules, key=lambda rule: str(rule.CODE)))


def audit(
    paths: Iterable[Path],
    settings: Settings | None = None,
    *,
    cached: bool = False,
    progress: Progress | None = None,
    instead: Mapping[Path, bytes] | None = None,
) -> Audit:
    """Audit the source files below some paths; nothing of them is imported or run.

    Args:
        paths: files and folders. Paths are reported relative to the folder that holds them all.
        settings: how; by default as `[tool.loopsentry.audit]` of the `pyproject.toml` there says.
        cached: whether what the files say is kept in the user's cache directory for the next
            audit. A cache that cannot be read, or is another version's, is read anew.
        instead: sources that are read in place of what stands in these files.
        progress: called now and then with how many of how many files are read.

    Returns:
        The findings, the most certain first, what was kept silent about, and what was not read.

    Raises:
        AuditError: for a path that does not exist, and settings that cannot be used.

    Since version 0.1.0.
    """
    given = [path.resolve() for path in paths]
    for path in given:
        if not path.exists():
            raise AuditError(f"{path} does not exist; give a file or a folder")
    root = _common_root(given)
    if settings is None:
        try:
            settings = read_settings(root)
        except SettingsError as exc:
            raise AuditError(str(exc)) from None
    limit, collecting = sys.getrecursionlimit(), gc.isenabled()
    # Long chains of operators nest deeply, and nothing of a short search is garbage.
    sys.setrecursionlimit(max(limit, DEEP))
    gc.disable()
    try:
        cache = cache_of(root) if cached else None
        return _audit(read_project(root, given, cache, progress, instead), settings)
    finally:
        sys.setrecursionlimit(limit)
        if collecting:
            gc.enable()


def _audit(project: Project, settings: Settings) -> Audit:
    program = Program(project, settings.entry_points, settings.starters)
    everything = (finding for rule in load_rules() for finding in rule.find(program))
    found = [each for each in everything if settings.wants(each.code, each.file)]
    shared = {id(each) for each in program.shared_objects()}
    return Audit(
        root=project.root,
        findings=sorted(_without_noqa(program, found), key=_order),
        silences=sorted(program.silences, key=lambda each: (each.file, each.line)),
        skipped=[(each.file, each.reason, each.newer) for each in project.skipped],
        files=len(project.modules),
        lines=sum(module.lines for module in project.modules),
        starts=len(program.starts),
        resources=len(shared),
    )


def select(audit: Audit, least: str) -> Audit:
    """The same audit without what is less certain than asked for."""
    allowed = CERTAINTIES[: [*CERTAINTIES].index(least) + 1]  # type: ignore[arg-type]
    return replace(audit, findings=[f for f in audit.findings if f.certainty in allowed])


def explain_silence(audit: Audit, where: str) -> str:
    """Why a start is no finding.

    Raises:
        AuditError: if there is no start at that place; the message lists those of the file.
    """
    file, _, line = where.rpartition(":")
    found = [f for f in audit.findings if _is_file(f.file, file) and str(f.line) == line]
    if found:
        return f"{where} is a finding: {found[0].code} {found[0].certainty}: {found[0].message}"
    for silence in audit.silences:
        if _is_file(silence.file, file) and str(silence.line) == line:
            return f"{silence.file}:{silence.line}: {silence.rule}: {silence.reason}"
    known = sorted({s.line for s in audit.silences if _is_file(s.file, file)})
    lines = ", ".join(map(str, known)) or "none"
    raise AuditError(f"no loop is started at {where}; known starts in that file: lines {lines}")


def _is_file(told: str, asked: str) -> bool:
    """Whether a file is the one asked for, by its path from here, from the root, or its end."""
    asked = Path(asked).as_posix()
    return f"/{told}".endswith(f"/{asked}") or f"/{asked}".endswith(f"/{told}")


def _order(finding: Finding) -> tuple[int, str, str, int]:
    return CERTAINTIES.index(finding.certainty), finding.code, finding.file, finding.line


def _without_noqa(program: Program, findings: Iterable[Finding]) -> Iterable[Finding]:
    """The findings that no `# noqa: CODE` on their line, or on their object's, silences."""
    root = program.project.root
    for finding in findings:
        thing = finding.object
        places = [(finding.file, finding.line), *([(thing.file, thing.line)] if thing else [])]
        texts = (source_line(root / file, line) for file, line in places)
        if not any(_excuses(text, finding.code) for text in texts):
            yield finding


def _excuses(text: str, code: str) -> bool:
    """Whether a line's comment takes out a code, or all codes."""
    _, found, codes = text.partition("# noqa")
    return bool(found) and (not codes.lstrip().startswith(":") or code in codes)


def _common_root(paths: list[Path]) -> Path:
    folders = [path if path.is_dir() else path.parent for path in paths]
    root = folders[0] if folders else Path.cwd()
    while not all(folder.is_relative_to(root) for folder in folders):
        root = root.parent
    return root
