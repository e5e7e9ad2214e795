"""Mends what the audit has proven, by one small edit, and proves that the edit mends it.

Needs libcst, the extra `fix`: everything that is not edited stays as it is, comments and all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.metadata import MetadataWrapper, PositionProvider

from .auditor import audit
from .findings import Audit, Finding
from .settings import Settings

#: The edits that there are; the first one mends every way to an engine at once.
EDITS = ("loop-local-pool", "fresh-session", "null-pool", "dispose-in-loop")

_POOLS = {
    "loop-local-pool": ("loopsentry", "LoopLocalPool"),
    "null-pool": ("sqlalchemy.pool", "NullPool"),
}
_MAKERS = ("create_async_engine", "async_engine_from_config")
_WRAPPER = """
async def _dispose_after(work):
    try:
        return await work
    finally:
        await {engine}.dispose()
"""


@dataclass(frozen=True, slots=True)
class Mend:
    """One edit of one file, or why there is none.

    Attributes:
        findings: what it mends.
        file: the file, below the audited root.
        before: its text.
        after: its text with the edit; the same where there is none.
        refusal: why nothing is edited; "" for an edit.
    """

    findings: tuple[Finding, ...]
    file: str
    before: str
    after: str
    refusal: str = ""

    @property
    def diff(self) -> str:
        """The edit, as `diff -u` shows it."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"a/{self.file}",
            f"b/{self.file}",
        )
        return "".join(lines)


def propose(
    found: Audit, paths: Iterable[Path], edit: str, settings: Settings | None = None
) -> list[Mend]:
    """One edit for each engine at which proven findings meet, each tried by another audit.

    Args:
        found: the audit whose proven findings are to be mended.
        paths: what was audited.
        edit: one of `EDITS`.
        settings: as for the audit.

    Returns:
        The edits; those after which a finding stays, or another one comes, are refusals.
    """
    groups: dict[tuple[str, int], list[Finding]] = {}
    for finding in found.findings:
        thing = finding.object
        meets = finding.code == "LSA101" and finding.certainty == "proven"
        if thing is not None and meets and thing.kind == "engine":
            place = (thing.file, thing.line)
            if edit == "dispose-in-loop":
                place = (finding.file, finding.line)
            elif edit == "fresh-session":
                place = (finding.chain[-1].file, finding.chain[-1].line)
            groups.setdefault(place, []).append(finding)
    given = [*paths]

    def again(path: Path, text: str) -> Audit:
        return audit(given, settings, instead={path: text.encode()})

    return [_try(found, again, edit, place, tuple(findings)) for place, findings in groups.items()]


def _try(
    found: Audit,
    again: Callable[[Path, str], Audit],
    edit: str,
    place: tuple[str, int],
    findings: tuple[Finding, ...],
) -> Mend:
    file, line = place
    path = found.root / file
    before = path.read_text("utf-8")
    try:
        if edit == "dispose-in-loop":
            after = _dispose(before, findings[0])
        elif edit == "fresh-session":
            after = _open_fresh(before, findings[0])
        else:
            after = _set_pool(before, line, edit)
    except _NoEditError as exc:
        return Mend(findings, file, before, before, str(exc))
    keys = {finding.key for finding in again(path, after).findings}
    stays = [each for each in findings if each.key in keys]
    fresh = keys - {finding.key for finding in found.findings}
    if stays or fresh:
        words = "the finding stays" if stays else "another finding comes of it"
        return Mend(findings, file, before, before, f"{edit} was tried, and {words}")
    return Mend(findings, file, before, after)


class _NoEditError(Exception):
    """There is nothing that this edit can change; the message says why."""


# edits ---------------------------------------------------------------------------------------


def _set_pool(source: str, line: int, edit: str) -> str:
    """Give the engine that a line makes another pool."""
    module, name = _POOLS[edit]
    keyword = cst.Arg(
        keyword=cst.Name("poolclass"),
        value=cst.Name(name),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )

    def change(call: cst.Call) -> cst.Call:
        if any(
            each.keyword is not None and each.keyword.value == "poolclass" for each in call.args
        ):
            raise _NoEditError("its pool is chosen already")
        if any(each.star == "**" for each in call.args):
            raise _NoEditError("its options come from elsewhere")
        return call.with_changes(args=[*_closed(call.args), keyword])

    return _edit(source, line, _MAKERS, change, (module, name))


def _closed(arguments: Iterable[cst.Arg]) -> list[cst.Arg]:
    """Arguments after which another can stand."""
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return [each if _has_comma(each) else each.with_changes(comma=comma) for each in arguments]


def _has_comma(argument: cst.Arg) -> bool:
    return isinstance(argument.comma, cst.Comma)


def _open_fresh(source: str, finding: Finding) -> str:
    """Let the coroutine that is run open its session on an engine of its own."""
    start, use = finding.chain[-2:]
    if not start.note:
        raise _NoEditError(f"its session is opened in {use.function}, which others call too")
    name, imported = _engine_in(finding, use.file)

    def change(call: cst.Call) -> cst.Call:
        if call.args:
            raise _NoEditError("its session has options")
        return call.with_changes(
            func=cst.Name("session_scope_fresh"), args=[cst.Arg(cst.Name(name))]
        )

    text = _edit(source, use.line, None, change, ("loopsentry", "session_scope_fresh"))
    return _import(text, imported) if imported is not None else text


def _engine_in(finding: Finding, file: str) -> tuple[str, tuple[str, str] | None]:
    """The engine's name, and the import that a file needs to have it."""
    thing = finding.object
    if thing is None or not thing.name.isidentifier():
        raise _NoEditError("its engine has no name of a module")
    if thing.file == file:
        return thing.name, None
    parts = Path(thing.file).with_suffix("").parts
    home = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return thing.name, (home, thing.name)


def _dispose(source: str, finding: Finding) -> str:
    """Let the coroutine that a line runs dispose of the engine before its loop ends."""
    name, imported = _engine_in(finding, finding.file)

    def change(call: cst.Call) -> cst.Call:
        if not call.args or call.args[0].keyword is not None:
            raise _NoEditError("what it runs is not to be seen there")
        work = cst.Call(cst.Name("_dispose_after"), [cst.Arg(call.args[0].value)])
        return call.with_changes(args=[call.args[0].with_changes(value=work), *call.args[1:]])

    runners = ("run", "run_until_complete")
    text = _edit(source, finding.line, runners, change, imported)
    return _with_helper(text, _WRAPPER.format(engine=name))


def _with_helper(source: str, helper: str) -> str:
    """A module with a function of ours after its imports."""
    if "async def _dispose_after(" in source:
        return source
    tree = cst.parse_module(source)
    last = max(
        (at + 1 for at, each in enumerate(tree.body) if _imports(each)),
        default=0,
    )
    added = cst.parse_module(f"\n{helper}").body
    return tree.with_changes(body=[*tree.body[:last], *added, *tree.body[last:]]).code


def _imports(statement: cst.BaseStatement | cst.BaseSmallStatement) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and isinstance(
        statement.body[0], (cst.Import, cst.ImportFrom)
    )


def _edit(
    source: str,
    line: int,
    names: tuple[str, ...] | None,
    change: Callable[[cst.Call], cst.Call],
    imported: tuple[str, str] | None,
) -> str:
    """Change the call of a name that begins on a line, or what is entered there; import for it."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    changer = _Changer(line, names, change)
    tree = wrapper.visit(changer)
    if not changer.changed:
        what = f"calls no {names[0]}" if names else "opens no session"
        raise _NoEditError(f"line {line} {what}")
    return _import(tree.code, imported) if imported is not None else tree.code


def _import(source: str, imported: tuple[str, str]) -> str:
    """A module with one more import, if it has it not yet."""
    context = CodemodContext()
    AddImportsVisitor.add_needed_import(context, *imported)
    return AddImportsVisitor(context).transform_module(cst.parse_module(source)).code


class _Changer(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(
        self,
        line: int,
        names: tuple[str, ...] | None,
        change: Callable[[cst.Call], cst.Call],
    ) -> None:
        super().__init__()
        self.line = line
        self.names = names
        self.change = change
        self.changed = False

    def leave_Call(  # noqa: N802 - libcst's name
        self, original_node: cst.Call, updated_node: cst.Call
    ) -> cst.BaseExpression:
        """Change the call, if it is the one."""
        name = original_node.func
        last = name.attr if isinstance(name, cst.Attribute) else name
        starts = self.get_metadata(PositionProvider, original_node).start.line
        named = isinstance(last, cst.Name) and last.value in (self.names or ())
        if starts == self.line and named:
            self.changed = True
            return self.change(updated_node)
        return updated_node

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:  # noqa: N802
        """Change what is entered, if the statement is the one."""
        starts = self.get_metadata(PositionProvider, original_node).start.line
        item = updated_node.items[0]
        if self.names is not None or starts != self.line or not isinstance(item.item, cst.Call):
            return updated_node
        self.changed = True
        entered = item.with_changes(item=self.change(item.item))
        return updated_node.with_changes(items=[entered, *updated_node.items[1:]])
