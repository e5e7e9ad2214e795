"""The arrows between the rooms: who may import whom, read off the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import loopsentry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(loopsentry.__file__).parent

# A room is a module or a shelf. `ANY` is for the composition root, which may use all of them.
ANY = frozenset({"*"})
NOTHING: frozenset[str] = frozenset()
ALLOWED: dict[str, frozenset[str]] = {
    "model": NOTHING,
    "_safely": NOTHING,
    "_wording": NOTHING,
    "program": NOTHING,
    "exceptions": NOTHING,
    "_variables": frozenset({"_copies", "_frames", "_safely", "exceptions"}),
    "_starts": frozenset({"_copies", "_frames", "_variables", "exceptions", "model"}),
    "_screen": frozenset({"_safely", "exceptions"}),
    "_frames": frozenset({"model", "exceptions"}),
    "registry": frozenset({"_copies", "model", "_sockets"}),
    "recognition": frozenset({"model"}),
    "diagnosis": frozenset({"model"}),
    "story": frozenset({"model", "_wording"}),
    "session": frozenset({"_copies", "engines", "model", "registry"}),
    "engines": frozenset({"_copies", "model", "registry", "_variables"}),
    "pool": frozenset({"_copies", "_bell", "_loop_pool", "_sockets"}),
    "_loop_pool": frozenset({"_copies", "_safely", "_sockets"}),
    "_bell": NOTHING,
    "_copies": NOTHING,
    "_imports": NOTHING,
    "mismatch": frozenset({"model"}),
    "guard": frozenset({"_copies", "_safely", "_sockets", "mismatch", "model", "registry"}),
    "_sockets": NOTHING,
    "incidents": frozenset({"model", "exceptions", "_frames"}),
    "holders": frozenset({"exceptions", "model", "registry", "_frames"}),
    "repeats": frozenset({"model", "registry", "_frames", "exceptions"}),
    "siblings": frozenset({"model", "registry", "_frames", "exceptions"}),
    "subjects": frozenset(
        {"_copies", "model", "registry", "_frames", "exceptions", "holders", "incidents"}
    ),
    "roles": frozenset({"model", "registry", "_frames"}),
    "stages": frozenset({"model", "_frames"}),
    "closings": frozenset({"model", "_frames", "exceptions"}),
    "trails": frozenset({"model", "_frames", "holders"}),
    "evidence": frozenset(
        {
            "model",
            "registry",
            "_frames",
            "_safely",
            "_starts",
            "_variables",
            "_wording",
            "closings",
            "holders",
            "incidents",
            "siblings",
            "subjects",
            "exceptions",
            "roles",
            "stages",
        }
    ),
    "annotation": frozenset({"model", "exceptions", "story", "renderers"}),
    "catalog": frozenset({"model", "diagnosis", "_frames", "_sockets"}),
    "explanation": frozenset({"audit", "catalog", "diagnosis"}),
    "fleet": frozenset({"model", "_wording"}),
    "debug_page": frozenset({"model", "renderers", "_frames", "exceptions"}),
    "doctor": frozenset({"_monitoring", "catalog"}),
    "report": frozenset(
        {
            "_safely",
            "annotation",
            "catalog",
            "diagnosis",
            "repeats",
            "evidence",
            "exceptions",
            "model",
            "recognition",
            "registry",
            "renderers",
            "story",
            "_frames",
        }
    ),
    "installation": ANY,
    "probes": frozenset(
        {
            "_copies",
            "trails",
            "model",
            "registry",
            "engines",
            "guard",
            "mismatch",
            "exceptions",
            "holders",
            "_frames",
            "_imports",
            "_monitoring",
            "_safely",
            "_sockets",
            "_wording",
        }
    ),
    "_monitoring": frozenset({"_safely"}),
    "hooks": frozenset(
        {"_copies", "model", "registry", "_frames", "_monitoring", "_safely", "_screen"}
    ),
    "_endless": NOTHING,
    "_locks": frozenset({"_frames", "exceptions"}),
    "hangs": frozenset({"_endless", "_locks", "exceptions", "holders", "model", "_frames"}),
    "watchdog": frozenset({"hangs", "model", "_frames", "_safely"}),
    "causes": frozenset({"model"}),
    "contexts": frozenset({"model"}),
    "fixes": NOTHING,
    "renderers": frozenset({"model", "story"}),
    "sinks": frozenset({"model", "story", "renderers", "_safely", "_screen"}),
    "asgi": frozenset({"annotation", "debug_page", "installation", "model", "report", "_safely"}),
    "sqlalchemy_plugin": frozenset({"installation"}),
    "crossings": frozenset(
        {"_copies", "model", "registry", "report", "engines", "_frames", "_safely", "_sockets"}
    ),
    "testing": frozenset({"installation", "model", "registry", "report", "crossings", "_sockets"}),
    "pytest_plugin": frozenset(
        {
            "installation",
            "model",
            "report",
            "crossings",
            "testing",
            "explanation",
            "story",
            "renderers",
            "_imports",
            "_safely",
        }
    ),
    "ipython": frozenset({"installation", "model", "report", "_safely"}),
    "attach": NOTHING,
    "cli": frozenset(
        {
            "attach",
            "audit",
            "installation",
            "program",
            "explanation",
            "doctor",
            "demo",
            "fleet",
            "model",
            "overview",
            "report",
            "_safely",
        }
    ),
    "audit": frozenset({"model", "catalog"}),
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(
        {
            "asgi",
            "explanation",
            "inspection",
            "installation",
            "mismatch",
            "model",
            "pool",
            "session",
            "snapshot",
        }
    ),
    "demo": frozenset({"session"}),
    "snapshot": frozenset({"_copies", "hangs", "holders", "model", "registry", "_frames"}),
    "overview": frozenset({"model", "snapshot", "_wording"}),
    "inspection": frozenset(
        {
            "_copies",
            "_imports",
            "engines",
            "installation",
            "model",
            "overview",
            "registry",
            "report",
            "snapshot",
            "_safely",
        }
    ),
}
MAY_IMPORT_INSTALLATION = {
    "asgi",
    "cli",
    "inspection",
    "ipython",
    "pytest_plugin",
    "sqlalchemy_plugin",
    "testing",
    "__init__",
}
SHELVES = ("probes", "causes", "contexts", "hooks", "sinks", "renderers")


def files() -> Iterator[tuple[str, Path]]:
    """Yield each source file with the room it belongs to."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield parts[0], path


def rooms_imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each room of loopsentry that a file imports, with the entry taken from it."""
    package = ("loopsentry", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        for name in names:
            if name[0] == "loopsentry" and len(name) > 1 and name[1] != "__version__":
                yield loopsentry._HOMES.get(name[1], name[1]), ".".join(name[2:])


def test_every_file_belongs_to_a_known_room() -> None:
    """Every module and shelf of the package has its row in the table of rooms."""
    assert {room for room, _ in files()} <= ALLOWED.keys()


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    """Each room imports only the rooms that the architecture lets it see."""
    allowed = ALLOWED[room] | {room}
    found = {
        f"{path.relative_to(ROOT)} imports {other}"
        for name, path in files()
        if name == room
        for other, _ in rooms_imported(path)
        if other not in allowed and "*" not in allowed
    }
    assert not found


def test_no_entry_of_a_shelf_knows_another() -> None:
    """Entries never import another entry of their shelf; helpers' names begin with `_`."""
    found = {
        f"{path.relative_to(ROOT)} imports {other}.{entry}"
        for room, path in files()
        if room in SHELVES
        for other, entry in rooms_imported(path)
        if other == room and not entry.startswith("_")
    }
    assert not found


def test_only_the_outermost_rooms_import_installation() -> None:
    """Nothing imports the composition root but the integrations and the public names."""
    importers = {
        room
        for room, path in files()
        if room != "installation"
        and any(other == "installation" for other, _ in rooms_imported(path))
    }
    assert importers <= MAY_IMPORT_INSTALLATION


def test_only_the_catalog_looks_into_the_shelves() -> None:
    """No room but the catalog imports a probe, a cause, a context, a hook or a sink."""
    found = {
        f"{path.relative_to(ROOT)} imports {other}.{entry}"
        for room, path in files()
        for other, entry in rooms_imported(path)
        if other in {"probes", "causes", "contexts", "hooks", "sinks", "fixes"} and room != other
    }
    assert not found


def test_importing_loopsentry_imports_no_other_library() -> None:
    """`import loopsentry` brings in neither SQLAlchemy nor rich, starlette, click or a driver."""
    libraries = "asyncpg click psycopg aiosqlite rich sqlalchemy starlette uvloop greenlet asyncio"
    program = (
        "import sys; before = set(sys.modules); import loopsentry;"
        f" print(sorted((set(sys.modules) - before) & set({libraries.split()!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
