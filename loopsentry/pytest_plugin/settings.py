"""Reading the plugin's options, and saying what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SEVERITIES = ("warning", "error")


def make_report_file(name: str, *, anew: bool) -> str:
    """Make the file of `--loopsentry-report`, readable by its owner only; return its full path.

    Raises:
        pytest.UsageError: if the file cannot be written.
    """
    path = Path(name).absolute()
    if not anew:
        return str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    except OSError as exc:
        raise pytest.UsageError(
            f"--loopsentry-report: cannot write {name}: {exc.strerror}"
        ) from None
    return str(path)


def check(config: pytest.Config) -> None:
    """Refuse a cause that does not exist, and what is no length of time.

    Raises:
        pytest.UsageError: says what is wrong and what is valid.
    """
    watched_seconds(config)
    for word in fail_on(config):
        _check_word(word)


def watched_seconds(config: pytest.Config) -> float:
    """The seconds of `loopsentry_watch`.

    Raises:
        pytest.UsageError: if it is no number of seconds.
    """
    text = str(config.getini("loopsentry_watch")).strip()
    from loopsentry.installation import seconds_of

    try:
        return seconds_of(text or "0")
    except ValueError:
        raise pytest.UsageError(f"loopsentry_watch: {text!r} is no number of seconds") from None


def fail_on(config: pytest.Config) -> frozenset[str]:
    """The words of `loopsentry_fail_on`: severities, codes and causes."""
    words = " ".join(config.getini("loopsentry_fail_on")).replace(",", " ").split()
    return frozenset(word.upper() if word.upper().startswith("LS") else word for word in words)


def _check_word(word: str) -> None:
    import loopsentry

    if word in SEVERITIES:
        return
    try:
        if loopsentry.explain(word).startswith("# LS"):
            return
    except LookupError:
        pass
    raise pytest.UsageError(
        f"loopsentry_fail_on: {word!r} is no severity ({', '.join(SEVERITIES)}), no code and no"
        " cause; `loopsentry explain` lists the codes and causes"
    )
