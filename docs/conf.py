"""Sphinx configuration. The pages on causes and fixes are made from the shelves at each build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import loopsentry
from loopsentry import catalog
from loopsentry.explanation import explain, explain_texts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sphinx.application import Sphinx

project = "loopsentry"
author = "The loopsentry authors"
release = version = loopsentry.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"loopsentry {release}"
html_show_sphinx = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
myst_heading_anchors = 2
napoleon_use_ivar = True

GENERATED = Path(__file__).parent / "reference" / "generated"


def write_pages(_app: Sphinx) -> None:
    """Write one page for each cause and each fix, and a list of either."""
    GENERATED.mkdir(exist_ok=True)
    for old in GENERATED.glob("*.md"):
        old.unlink()
    causes, fixes = catalog.load_causes(), catalog.load_fixes()
    for topic in [*(cause.code for cause in causes), *(fix.id for fix in fixes)]:
        _write(topic, explain(topic))
    _write(
        "causes",
        "# Causes\n\n"
        "What `loopsentry explain CODE` prints. A code never changes its meaning.\n\n"
        + _rows((cause.code, f"{cause.name}: {cause.title}") for cause in causes)
        + _contents(cause.code for cause in causes),
    )
    _write(
        "fixes",
        "# Fixes\n\n"
        "What `loopsentry explain FIX` prints. Each program here is run by the tests.\n\n"
        + _rows((fix.id, fix.title) for fix in sorted(fixes, key=lambda fix: fix.id))
        + _contents(sorted(fix.id for fix in fixes)),
    )
    write_texts()


def write_texts() -> None:
    """Write one page for each text of an error, titled by it, and the list of all."""
    texts = catalog.load_texts()
    for text in texts:
        _write(text.name, _linked(explain_texts([text])))
    _write(
        "texts",
        "# Texts of errors\n\n"
        "What was printed, and where it leads; `loopsentry explain 'TEXT'` says the same.\n\n"
        + _rows((text.name, f"`{text.text}`, of {text.by}") for text in texts)
        + _contents(text.name for text in texts),
    )


def _linked(text: str) -> str:
    """A text whose codes and fixes lead to their pages."""
    names = [cause.code for cause in catalog.load_causes()]
    names += [fix.id for fix in catalog.load_fixes()]
    for name in names:
        text = text.replace(f"- `{name}`:", f"- [{name}]({name}.md):")
        text = text.replace(f"`loopsentry explain {name}` has", f"[{name}]({name}.md) has")
    return text


def _write(name: str, text: str) -> None:
    (GENERATED / f"{name}.md").write_text(text, encoding="utf-8")


def _rows(entries: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"- [{name}]({name}.md): {words}\n" for name, words in entries)
    return f"{rows}\n"


def _contents(names: Iterable[str]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def setup(app: Sphinx) -> None:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages)
