"""The soak test, in small; `python tests/soak.py --full` is the large one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the program measures memory as Unix does")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nothing_is_lost_between_many_loops(loop: str) -> None:
    """Each committed row is there exactly once, and no backend and no object stays behind."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    options = ["--uvloop", "--ping"] if loop == "uvloop" else []
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(SOAK), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "rows committed" in ended.stdout
