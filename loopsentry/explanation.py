"""The long version of a cause, a finding in source or a fix, from the shelves."""

from __future__ import annotations

import itertools
from types import ModuleType

from . import catalog
from .audit.auditor import load_rules
from .diagnosis import Cause, Remedy


class UnknownTopicError(LookupError):
    """There is no cause and no fix of that name."""


def explain(topic: str | None = None) -> str:
    """Explain a code ("LS101", "LSA101"), a cause ("closed-loop") or a fix, as Markdown.

    Args:
        topic: what to explain, in any case of letters; None lists everything there is.

    Returns:
        What happened, a program that fails and the cures, as Markdown.

    Raises:
        UnknownTopicError: if nothing has that name; the message lists what there is.
    """
    causes, fixes = catalog.load_causes(), catalog.load_fixes()
    if topic is None:
        return _overview(causes, fixes)
    wanted = topic.strip().lower()
    for cause in causes:
        if wanted in (cause.code.lower(), cause.name):
            return _explain_cause(cause, fixes)
    for fix in fixes:
        if wanted == fix.id:
            return _explain_fix(fix, causes)
    rules = load_rules()
    for rule in rules:
        if wanted in (rule.CODE.lower(), rule.NAME):
            title, text = _parts(rule)
            parts = [f"# {rule.CODE} {rule.NAME}", f"*{title}*", text]
            parts += ["## A program that fails", f"```python\n{rule.BROKEN}```"]
            parts += ["## The same program, cured", f"```python\n{rule.CURED}```"]
            return "\n\n".join(parts) + "\n"
    coded = (*(cause.code for cause in causes), *(rule.CODE for rule in rules))
    names = ", ".join([*coded, *(fix.id for fix in fixes)])
    raise UnknownTopicError(f"nothing is called {topic!r}; there are {names}")


def _overview(causes: tuple[Cause, ...], fixes: tuple[Remedy, ...]) -> str:
    lines = ["# Causes", ""]
    lines += [f"- `{cause.code}` {cause.name}: {cause.title}" for cause in causes]
    lines += ["", "# Findings in source", ""]
    lines += [f"- `{rule.CODE}` {rule.NAME}: {_parts(rule)[0]}" for rule in load_rules()]
    lines += ["", "# Fixes", ""]
    lines += [f"- `{fix.id}`: {fix.title}" for fix in fixes]
    return "\n".join(lines) + "\n"


def _parts(rule: ModuleType) -> tuple[str, str]:
    """A rule's title and its explanation."""
    title, _, text = catalog.docstring_of(rule).strip().partition("\n")
    return title, text.strip()


def _explain_cause(cause: Cause, fixes: tuple[Remedy, ...]) -> str:
    cures = [fix for fix in fixes if cause.name in fix.cures]
    parts = [f"# {cause.code} {cause.name}", f"*{cause.title}*", cause.explanation]
    examples = ((fix, ex) for fix in cures for ex in fix.examples if ex.cause == cause.name)
    for fix, example in itertools.islice(examples, 1):
        parts += ["## A program that fails", f"```python\n{example.broken}```"]
        parts += [f"## The same program with `{fix.id}`", f"```python\n{example.fixed}```"]
    if cures:
        listed = "\n".join(f"- `{fix.id}`: {fix.title}. {fix.reason}" for fix in cures)
        parts += ["## Cures", listed]
    return "\n\n".join(parts) + "\n"


def _explain_fix(fix: Remedy, causes: tuple[Cause, ...]) -> str:
    cured = ", ".join(f"`{cause.code}`" for cause in causes if cause.name in fix.cures)
    return f"# {fix.id}\n\n*{fix.title}*, for {cured}\n\n{fix.text}\n"
