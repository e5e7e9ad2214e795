"""Whether code stands in a loop that only an exception leaves, read off its instructions."""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType

_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
#: What closes a loop without a condition. An `await` goes round with JUMP_BACKWARD_NO_INTERRUPT.
_AROUND = "JUMP_BACKWARD"
#: Where handlers begin, which the compiler since 3.12 puts behind all else.
_HANDLERS = frozenset({"PUSH_EXC_INFO", "CLEANUP_THROW"})
_COLD = sys.version_info >= (3, 12)
_RETURNS = frozenset({"RETURN_VALUE", "RETURN_CONST"})


def is_in_endless_loop(code: CodeType, at: int) -> bool:
    """Whether an instruction stands in a loop such as `while True:` without `break` or `return`.

    Such a loop is left by an exception that nothing inside it catches, or by what its handlers do.

    Args:
        code: what runs.
        at: the offset of an instruction in it, as `frame.f_lasti`.
    """
    return any(first <= at <= last for first, last in _endless_loops(code))


@lru_cache(maxsize=256)
def _endless_loops(code: CodeType) -> tuple[tuple[int, int], ...]:
    """First and last offset of each such loop."""
    steps = list(dis.get_instructions(code))
    cold = [each.offset for each in steps if each.opname in _HANDLERS and _COLD]
    handlers = min(cold, default=None)
    steps = [each for each in steps if handlers is None or each.offset < handlers]
    backs = [each for each in steps if each.opname == _AROUND and each.argval <= each.offset]
    loops: dict[int, tuple[int, int]] = {}
    for back in backs:  # `continue` may go back to before the NOP at which others arrive
        body = next(each.offset for each in steps if each.offset >= back.argval and _acts(each))
        first, last = loops.get(body, (back.argval, back.offset))
        loops[body] = min(first, back.argval), max(last, back.offset)
    return tuple(each for each in loops.values() if not _ends(steps, *each))


def _acts(step: dis.Instruction) -> bool:
    return step.opname != "NOP"


def _ends(steps: list[dis.Instruction], first: int, last: int) -> bool:
    inside = [each for each in steps if first <= each.offset <= last]
    names = [each.opname for each in inside]
    # `async for` ends by an exception, that is caught behind it.
    if names.count("GET_ANEXT") > names.count("END_ASYNC_FOR") or _RETURNS.intersection(names):
        return True
    return any(each.opcode in _JUMPS and not first <= each.argval <= last for each in inside)
