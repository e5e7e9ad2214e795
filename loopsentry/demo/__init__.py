"""`loopsentry demo`: the failure, its explanation and its cure, played on a real PostgreSQL.

With `--serve` only that PostgreSQL, for programs of the reader's own.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack

from .acts import BARE, CURED, EXPLAINED, Act, Outcome, play
from .database import NoServerError, require_packages, running, version
from .narration import Narrator
from .stage import temporary_folder

__all__ = ["serve", "tell_story"]


def tell_story() -> int:
    """Play the three acts in child processes on a server of their own, and tell how each ended.

    Returns:
        0 if all went as told, 1 if an act did not, 2 if no server could be started.
    """
    try:
        require_packages()
        return _perform(Narrator())
    except NoServerError as reason:
        return _complain(reason)


def serve() -> int:
    """Keep a PostgreSQL running until Ctrl-C, and print how a shell tells programs of it.

    Returns:
        0 when it was ended, 2 if no server could be started.
    """
    try:
        require_packages()
        with temporary_folder() as folder, running(folder) as url:
            setting = "set" if sys.platform == "win32" else "export"
            sys.stdout.write(f'{setting} DATABASE_URL="{url}"\n')
            sys.stdout.flush()
            sys.stderr.write("PostgreSQL runs, and keeps what it is given, until Ctrl-C\n")
            threading.Event().wait()
    except NoServerError as reason:
        return _complain(reason)
    except KeyboardInterrupt:
        return 0
    return 0


def _complain(reason: NoServerError) -> int:
    sys.stderr.write(f"loopsentry demo: no server could be started: {reason}\n")
    return 2


def _perform(narrator: Narrator) -> int:
    outcomes: list[tuple[Act, Outcome, list[str]]] = []
    narrator.open(as_root=_is_root())
    with temporary_folder() as folder, ExitStack() as stack:
        with narrator.step("starting PostgreSQL"):
            url = stack.enter_context(running(folder))
        narrator.report_server(version())
        for act in (BARE, EXPLAINED, CURED):
            with narrator.step(f"{act.title}: python -m {act.command}"):
                outcome = play(act, folder / act.title, url)
            faults = list(act.faults(outcome))
            narrator.report_act(act, outcome, faults)
            outcomes.append((act, outcome, faults))
    return _conclude(narrator, outcomes)


def _conclude(narrator: Narrator, outcomes: list[tuple[Act, Outcome, list[str]]]) -> int:
    failed = [(act, outcome) for act, outcome, faults in outcomes if faults]
    for act, outcome in failed:
        narrator.show_output(act, outcome)
    if failed:
        return 1
    (_, bare, _), (_, explained, _), _ = outcomes
    narrator.close(bare, explained)
    return 0


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
