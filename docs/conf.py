"""Sphinx configuration. The pages on causes and fixes are made from the shelves at each build."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

import loopsentry
from loopsentry import catalog
from loopsentry.explanation import explain, explain_texts
from loopsentry.renderers.terminal import colour

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

PICTURES = Path(__file__).parent / "_static" / "generated"
GENERATED = Path(__file__).parent / "reference" / "generated"


def write_pages(_app: Sphinx) -> None:
    """Write a page for each cause and each fix, a list of either, and a message as a picture."""
    write_picture()
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


def write_picture() -> None:
    """Draw the message that the README shows, as a terminal shows it."""
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    message = readme.partition("<!-- shown by: loopsentry demo -->\n```text\n")[2].partition("```")[
        0
    ]
    console = Console(record=True, width=82, file=io.StringIO())
    console.print(Text.from_ansi(colour(message)))
    # Without its web font, which browsers would fetch from another host.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    PICTURES.mkdir(exist_ok=True, parents=True)
    picture = console.export_svg(title="python -m shop", code_format=form, unique_id="message")
    (PICTURES / "message.svg").write_text(picture, encoding="utf-8")


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
