"""`traceback.print_exc()` and its kin: exceptions that the program catches and prints itself.

A `multiprocessing` child prints its own end so, too. Heard of through `sys.monitoring`, that is
since Python 3.12.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from types import FrameType

from loopsentry._frames import variables_in
from loopsentry._monitoring import on_start
from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

# All others of that module come to these (Lib/traceback.py).
_PRINTERS = (traceback.print_exception, traceback.format_exception)

#: How the interpreter prints, of which its own hooks have told already.
_OF_INTERPRETER = "_print_exception_bltin"


def attach(report: Reporter, _registry: Registry) -> Undo:
    """Examine an exception before it is formatted."""

    def examine(frame: FrameType) -> None:
        if frame.f_back is not None and frame.f_back.f_code.co_name == _OF_INTERPRETER:
            return
        known = variables_in(frame)
        given = (known.get("value"), known.get("exc"))
        exc = next((each for each in given if isinstance(each, Exception)), None)
        if exc is not None:
            report(exc)

    undo = ExitStack()
    for function in _PRINTERS:
        undo.callback(on_start(function, examine))
    return undo.close
