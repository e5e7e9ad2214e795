"""Sphinx configuration. The pages on causes and fixes are made from the shelves at each build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import loopsentry
from loopsentry import catalog
from loopsentry.explanation import explain, explain_texts

if TYPE_CHECKING:
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
    _write_list(
        "causes",
        "# Causes\n\nWhat `loopsentry explain CODE` prints. A code never changes its meaning.",
        [(cause.code, f"{cause.name}: {cause.title}") for cause in causes],
    )
    _write_list(
        "fixes",
        "# Fixes\n\nWhat `loopsentry explain FIX` prints. Each program here is run by the tests.",
        sorted((fix.id, fix.title) for fix in fixes),
    )
    write_texts()


def write_texts() -> None:
    """Write one page for each text of an error, titled by it, and the list of all."""
    texts = catalog.load_texts()
    for text in texts:
        _write(text.name, _linked(explain_texts([text])))
    _write_list(
        "texts",
        "# Texts of errors\n\n"
        "What was printed, and where it leads; `loopsentry explain 'TEXT'` says the same.",
        [(text.name, f"`{text.text}`, of {text.by}") for text in texts],
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


def _write_list(name: str, head: str, entries: list[tuple[str, str]]) -> None:
    """Write a page that lists others, each with what it says in a few words."""
    rows = "".join(f"- [{entry}]({entry}.md): {words}\n" for entry, words in entries)
    names = "\n".join(entry for entry, _ in entries)
    _write(name, f"{head}\n\n{rows}\n```{{toctree}}\n:hidden:\n\n{names}\n```\n")


def setup(app: Sphinx) -> None:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages)
