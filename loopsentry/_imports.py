"""What the program has imported; nothing is imported for it."""

from __future__ import annotations

import sys


def is_imported(name: str) -> bool:
    """Whether the program has imported a module, to its end: importlib marks what is under way."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)
