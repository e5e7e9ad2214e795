"""pydantic, and FastAPI's use of it: they swallow what reading an attribute raised into a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loopsentry._frames import Site
from loopsentry.exceptions import type_name_of
from loopsentry.model import Face, Symptom

PACKAGES = ("pydantic", "pydantic_core")

_TYPES = (
    "pydantic_core._pydantic_core.ValidationError",
    "fastapi.exceptions.ResponseValidationError",
)
# pydantic-core, src/errors/types.rs: `get_attribute_error`.
_TEXT = "Error extracting attribute: MissingGreenlet"


def read(exc: BaseException, _text: str) -> Symptom | None:
    """Translate a validation that failed because an attribute had to be loaded."""
    name = type_name_of(exc)
    attribute = _error_in(exc) if name.startswith(_TYPES) else None
    if attribute is None:
        return None
    return Symptom(
        kind="missing-greenlet",
        library="pydantic",
        type=name,
        text=_TEXT,
        quoted=True,
        sent=False,
        at=attribute,
    )


def face_of(symptom: Symptom, _sites: list[Site]) -> Face | None:
    """Name the attribute that was read while an answer was made of an object."""
    if symptom.library != "pydantic" or not symptom.at:
        return None
    headline = f"`{symptom.at}` was loaded lazily while an answer was made of its object"
    return Face(name="lazy", headline=headline, names={"attribute": symptom.at})


def _error_in(exc: Any) -> str | None:
    """The attribute that could not be read; "" where that is not told, None if there is none."""
    told = exc.errors()
    errors: Iterable[Any] = told if isinstance(told, list | tuple) else ()
    for error in errors:
        if isinstance(error, Mapping) and _TEXT in str(error.get("msg", "")):
            names = [part for part in error.get("loc", ()) if isinstance(part, str)]
            return names[-1] if names else ""
    return None
