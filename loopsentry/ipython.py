"""`%load_ext loopsentry` for IPython and Jupyter."""

from __future__ import annotations

from typing import Any

from ._safely import safely
from .installation import current, install, uninstall
from .model import cells


def load_ipython_extension(shell: Any) -> None:
    """Install, and explain an exception before IPython shows its traceback.

    IPython ignores `sys.excepthook`; its own way is `InteractiveShell.set_custom_exc`
    (IPython/core/interactiveshell.py).
    """
    install()
    cells[:] = [lambda file: _cell_of(shell, file)]

    def explain(shell: Any, kind: Any, exc: Any, traceback: Any, tb_offset: Any = None) -> None:
        installation = current()
        if installation is not None:
            safely(installation.examiner.report)(exc)
        shell.showtraceback((kind, exc, traceback), tb_offset=tb_offset)

    shell.set_custom_exc((Exception,), explain)


def unload_ipython_extension(shell: Any) -> None:
    """Take both out again."""
    shell.set_custom_exc((), None)
    cells.clear()
    uninstall()


def _cell_of(shell: Any, file: str) -> str | None:
    """`In[3]` for the name under which IPython compiled a cell (IPython/core/compilerop.py)."""
    named = getattr(shell.compile, "format_code_name", lambda _file: None)(file)
    return str(named[1]) if named is not None else None
