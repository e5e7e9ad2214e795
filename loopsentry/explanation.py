"""The long version of a cause, a finding in source or a fix, from the shelves."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from . import catalog
from .audit.auditor import load_rules
from .catalog import KnownText
from .diagnosis import Cause, Remedy

_TEXTS = 3
_CURES = 3
_SHOWN = 60


class UnknownTopicError(LookupError):
    """There is no cause and no fix of that name."""


def explain(topic: str | None = None) -> str:
    """Explain a code ("LS101", "LSA101"), a cause, a fix, or the text of an error, as Markdown.

    Args:
        topic: what to explain, in any case of letters; None lists everything there is. The text
            of an error may be pasted whole, with what stands around it.

    Returns:
        What happened, a program that fails and the cures, as Markdown.

    Raises:
        UnknownTopicError: if nothing has that name, and no text of an error is recognised; the
            message says what comes nearest.
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
            title, text = catalog.words_of(rule)
            parts = [f"# {rule.CODE} {rule.NAME}", f"*{title}*", text]
            parts += ["## A program that fails", f"```python\n{rule.BROKEN}```"]
            parts += ["## The same program, cured", f"```python\n{rule.CURED}```"]
            return "\n\n".join(parts) + "\n"
    meant = [text for text in catalog.load_texts() if text.fits(topic) or wanted == text.name]
    if meant:
        return explain_texts(meant[:_TEXTS])
    raise UnknownTopicError(_suggest(topic, causes, fixes, rules))


def explain_texts(texts: Sequence[KnownText]) -> str:
    """What the texts of errors can mean, how to tell, and the first cures, as Markdown."""
    causes = {cause.name: cause for cause in catalog.load_causes()}
    fixes = catalog.load_fixes()
    parts: list[str] = []
    for text in texts:
        parts += [f"# {text.text}", f"A text of {text.by}. {_counted(len(text.means))}"]
        for name, when in text.means:
            cause = causes[name]
            cures = [fix for fix in _ordered(fixes) if name in fix.cures][:_CURES]
            listed = "\n".join(f"- `{fix.id}`: {fix.title}" for fix in cures)
            parts += [f"## {cause.code} {cause.title}", f"If {when}.", listed]
            parts.append(f"`loopsentry explain {cause.code}` has a program that fails, and cured.")
    parts.append(
        "Which of them it is, loopsentry says when the program runs: `loopsentry run SCRIPT`, or"
        " `loopsentry.install()` as its first lines."
    )
    return "\n\n".join(parts) + "\n"


def _counted(number: int) -> str:
    return "It means one thing." if number == 1 else f"It can mean {number} things."


def _suggest(
    topic: str, causes: tuple[Cause, ...], fixes: tuple[Remedy, ...], rules: tuple[ModuleType, ...]
) -> str:
    """What is said of a name that nothing has: the nearest one, and where the list is."""
    names = [name for cause in causes for name in (cause.code, cause.name)]
    names += [name for rule in rules for name in (rule.CODE, rule.NAME)]
    names += [fix.id for fix in fixes]
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(topic.strip().lower(), folded, n=1, cutoff=0.6)
    meant = f"; did you mean {folded[near[0]]}?" if near else "."
    shown = topic if len(topic) <= _SHOWN else f"{topic[:_SHOWN]}..."
    return (
        f"nothing is called {shown!r}{meant} `loopsentry explain` lists all codes and fixes, and"
        " takes the text of an error, in quotes"
    )


def _ordered(fixes: Iterable[Remedy]) -> list[Remedy]:
    """Fixes for everyone before those for one context, and for engines before other objects'."""

    def place(fix: Remedy) -> tuple[bool, bool, int]:
        of_others = bool(fix.objects) and not {"engine", "session"} & set(fix.objects)
        return bool(fix.only_in), of_others, fix.rank

    return sorted(fixes, key=place)


def _overview(causes: tuple[Cause, ...], fixes: tuple[Remedy, ...]) -> str:
    def table(head: str, rows: Iterable[tuple[str, ...]]) -> list[str]:
        count = len(head.split("|"))
        lines = [f"| {head} |", "|" + "---|" * count]
        return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]

    rules = load_rules()
    lines = ["`loopsentry explain NAME` has more on each, and on an error's text, in quotes.", ""]
    lines += ["# Causes", "", *table("code | name | what happened", _cause_rows(causes))]
    found = ((f"`{rule.CODE}`", str(rule.NAME), catalog.words_of(rule)[0]) for rule in rules)
    lines += ["# Findings in source", "", *table("code | name | what is wrong", found)]
    cures = ((f"`{fix.id}`", fix.title) for fix in _ordered(fixes))
    lines += ["# Fixes", "", *table("fix | what to do", cures)]
    return "\n".join(lines)


def _cause_rows(causes: Iterable[Cause]) -> Iterator[tuple[str, ...]]:
    return ((f"`{cause.code}`", cause.name, cause.title) for cause in causes)


def _explain_cause(cause: Cause, fixes: tuple[Remedy, ...]) -> str:
    cures = [fix for fix in _ordered(fixes) if cause.name in fix.cures]
    parts = [f"# {cause.code} {cause.name}", f"*{cause.title}*", cause.explanation]
    examples = ((fix, ex) for fix in cures for ex in fix.examples if ex.cause == cause.name)
    for fix, example in itertools.islice(examples, 1):
        parts += ["## A program that fails", f"```python\n{example.broken}```"]
        parts += [f"## The same program with `{fix.id}`", f"```python\n{example.fixed}```"]
    if cures:
        listed = "\n".join(
            f"- `{fix.id}`: {fix.title}. {fix.reason} (`loopsentry explain {fix.id}`)"
            for fix in cures
        )
        parts += ["## Cures", listed]
    return "\n\n".join(parts) + "\n"


def _explain_fix(fix: Remedy, causes: tuple[Cause, ...]) -> str:
    cured = ", ".join(f"`{cause.code}`" for cause in causes if cause.name in fix.cures)
    return f"# {fix.id}\n\n*{fix.title}*, for {cured}\n\n{fix.text}\n"
