"""The exact line that cures a test: of an ini file, a marker, a fixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from loopsentry.model import Diagnosis, Fix, Place

from .actors import Actor, Role

ASYNCIO = "pytest-asyncio"
ANYIO = "anyio's pytest plugin"
UNITTEST = "IsolatedAsyncioTestCase"
CLIENT = "TestClient"
_PLUGINS = (ASYNCIO, ANYIO, UNITTEST)

SCOPES = "pytest-loop-scope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the test run is set to.

    Attributes:
        version: pytest-asyncio's, its first two numbers; (0, 0) where it is not installed.
        ini: the ini file, None where there is none.
        fixture_scope: the ini file's default loop scope of fixtures, if it has one.
        test_scope: likewise of tests.
        backend: the fixture `anyio_backend`, where the tests have one of their own.
    """

    version: tuple[int, int] = (0, 0)
    ini: Path | None = None
    fixture_scope: str | None = None
    test_scope: str | None = None
    backend: Role | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Lines that belong in one place.

    Attributes:
        where: the file and what of it, in words.
        lines: what has to stand there.
    """

    where: str
    lines: tuple[str, ...]


def advise(diagnosis: Diagnosis, setting: Setting) -> Diagnosis:
    """Replace general cures of a diagnosis by those that fit this very run."""
    runners = {
        loop.runner
        for loop in (diagnosis.owner_loop, diagnosis.current_loop)
        if loop is not None and loop.runner is not None
    }
    if CLIENT not in runners and diagnosis.context != "testclient":
        diagnosis = _without(diagnosis, {"async-test-client"})
    if len(runners) > 1:
        return _mixed(diagnosis, runners)
    advisers: dict[str, tuple[str, Callable[[Diagnosis, Setting], Fix | None]]] = {
        ASYNCIO: (SCOPES, _one_scope),
        ANYIO: (SCOPES, _one_runner),
        UNITTEST: ("dispose-in-loop", _dispose_in_case),
        CLIENT: ("testclient-context", _one_client),
    }
    runner = next(iter(runners), ASYNCIO if diagnosis.context == ASYNCIO else "")
    name, adviser = advisers.get(runner, ("", None))
    if runner == CLIENT and name not in {fix.id for fix in diagnosis.fixes}:
        # Each test has its block already; what is left is that the engine outlives the block.
        name, adviser = "dispose-in-loop", _dispose_in_client
        diagnosis = _without(diagnosis, {"async-test-client"})
    if adviser is None or name not in {fix.id for fix in diagnosis.fixes}:
        return diagnosis
    fix = adviser(diagnosis, setting)
    others = _without(diagnosis, {name, *_USELESS.get(runner, ())}).fixes
    if fix is None:  # no scope can cure it; a connection that is not kept can
        return replace(diagnosis, fixes=tuple(sorted(others, key=lambda f: f.id != "null-pool")))
    return replace(diagnosis, fixes=(fix, *others))


_USELESS = {UNITTEST: ("single-run",)}


def _without(diagnosis: Diagnosis, names: set[str]) -> Diagnosis:
    fixes = tuple(fix for fix in diagnosis.fixes if fix.id not in names)
    return replace(diagnosis, fixes=fixes)


def _mixed(diagnosis: Diagnosis, runners: set[str]) -> Diagnosis:
    """No loop scope joins a plugin's loop with one that the tests, or a client, start."""
    useless = {SCOPES, "testclient-context"} if CLIENT in runners else {SCOPES}
    if not runners & {*_PLUGINS, CLIENT}:
        return diagnosis
    return _without(diagnosis, useless)


def _fix(name: str, title: str, parts: list[Part], reason: str) -> Fix:
    """One place goes into the title; several are named above their lines."""
    if len(parts) == 1:
        snippet = "\n".join(parts[0].lines)
        return Fix(id=name, title=f"{title}; in {parts[0].where}", snippet=snippet, reason=reason)
    lines = [line for part in parts for line in (f"# in {part.where}", *part.lines)]
    return Fix(id=name, title=title, snippet="\n".join(lines), reason=reason)


def _actors(diagnosis: Diagnosis) -> list[Role]:
    """The test or fixture that opened the object, and the one that used it."""
    birth = diagnosis.object.birth if diagnosis.object else None
    found = (birth.framework if birth else None, diagnosis.framework)
    roles = (actor.role() for actor in found if isinstance(actor, Actor))
    return list(dict.fromkeys(role for role in roles if role is not None))


def _at(place: Place) -> str:
    return f"{place.path}:{place.line}"


# pytest-asyncio ----------------------------------------------------------------------------

_REASON = "fixtures and tests then share the loop that the engine's connections belong to"
_TITLE = "one loop for all tests"


def _one_scope(diagnosis: Diagnosis, setting: Setting) -> Fix | None:
    """Everything on the loop of the session: by the ini file, and where a scope is spelled out."""
    roles = _actors(diagnosis)
    spelled = [role for role in roles if role.explicit not in (None, "session")]
    if setting.version < (0, 24):
        return _before_loop_scopes(roles)
    parts = [*_ini_part(setting), *map(_spelled_part, spelled)]
    if setting.version < (0, 26):
        parts.append(_collection_hook("loop_scope"))
    return _fix(SCOPES, _TITLE, parts, _REASON) if parts else None


def _ini_part(setting: Setting) -> list[Part]:
    """The lines that the ini file lacks; the default scope of tests came with 0.26."""
    wanted = (
        {"asyncio_default_test_loop_scope": setting.test_scope}
        if (setting.version >= (0, 26))
        else {}
    )
    wanted["asyncio_default_fixture_loop_scope"] = setting.fixture_scope
    missing = [name for name, scope in wanted.items() if scope != "session"]
    if not missing:
        return []
    where, quoted = _section(setting.ini)
    value = '"session"' if quoted else "session"
    return [Part(where, tuple(f"{name} = {value}" for name in missing))]


def _section(ini: Path | None) -> tuple[str, bool]:
    """Where the lines belong, in words, and whether values are quoted there."""
    if ini is None:
        return "pytest.ini, [pytest]", False
    name = Place(str(ini), 1, "").path
    if ini.suffix == ".toml":
        if ini.name != "pyproject.toml":
            return f"{name}, [pytest]", True
        native = "[tool.pytest]" in ini.read_text("utf-8", errors="replace")
        return f"{name}, [tool.pytest]" if native else f"{name}, [tool.pytest.ini_options]", True
    return f"{name}, [tool:pytest]" if ini.name == "setup.cfg" else f"{name}, [pytest]", False


def _spelled_part(role: Role) -> Part:
    """The decorator, or the mark, with the session's loop."""
    if role.kind == "fixture":
        return Part(f"{_at(role.place)}, fixture {role.name}", (_decorator(role),))
    mark = 'pytest.mark.asyncio(loop_scope="session")'
    if role.marked == "function":
        return Part(f"{_at(role.place)}, {role.name}()", (f"@{mark}",))
    if role.marked == "class":
        return Part(f"{role.place.path}, class {role.parent}", (f"@{mark}",))
    return Part(f"{role.place.path}, the module", (f"pytestmark = {mark}",))


def _decorator(role: Role, loop_scope: bool = True) -> str:
    options = [f'scope="{role.scope}"'] if loop_scope else ['scope="session"']
    if loop_scope:
        options.append('loop_scope="session"')
    if role.autouse:
        options.append("autouse=True")
    if role.name != role.place.function:
        options.append(f'name="{role.name}"')
    if role.parametrised:
        options.append("params=...")
    return f"@pytest_asyncio.fixture({', '.join(options)})"


def _collection_hook(argument: str) -> Part:
    """The marker on every test, which pytest-asyncio's own documentation gives."""
    return Part(
        "conftest.py",
        (
            "import pytest",
            "from pytest_asyncio import is_async_test",
            "",
            "def pytest_collection_modifyitems(items):",
            f'    marker = pytest.mark.asyncio({argument}="session")',
            "    for item in filter(is_async_test, items):",
            "        item.add_marker(marker, append=False)",
        ),
    )


def _before_loop_scopes(roles: list[Role]) -> Fix | None:
    """pytest-asyncio 0.23: a fixture's loop is that of its scope, and cannot be chosen."""
    fixtures = [role for role in roles if role.kind == "fixture"]
    if any(role.scope == "function" for role in fixtures):
        return None
    wider = [role for role in fixtures if role.scope != "session"]
    parts = [
        Part(f"{_at(role.place)}, fixture {role.name}", (_decorator(role, loop_scope=False),))
        for role in wider
    ]
    return _fix(SCOPES, _TITLE, [*parts, _collection_hook("scope")], _REASON)


# anyio, unittest, TestClient ---------------------------------------------------------------


def _one_runner(_diagnosis: Diagnosis, setting: Setting) -> Fix:
    """The loop of anyio lives as long as the longest asynchronous fixture that is active."""
    lines = [
        "import pytest",
        "",
        '@pytest.fixture(scope="session", autouse=True)',
        "async def one_loop(anyio_backend):",
        "    yield",
    ]
    own = setting.backend
    parts = []
    if own is None:
        lines[2:2] = [
            '@pytest.fixture(scope="session")',
            "def anyio_backend():",
            '    return "asyncio"',
            "",
        ]
    elif own.scope != "session":
        where = f"{_at(own.place)}, fixture anyio_backend"
        parts.append(Part(where, ('@pytest.fixture(scope="session")',)))
    parts.append(Part("conftest.py", tuple(lines)))
    return _fix(SCOPES, _TITLE, parts, _REASON)


def _dispose_in_case(diagnosis: Diagnosis, _setting: Setting) -> Fix:
    """A test case has a loop for each test, and cannot share it."""
    engine = diagnosis.engine.variable if diagnosis.engine else None
    role = next((role for role in _actors(diagnosis) if role.parent), None)
    where = f"{role.place.path}, class {role.parent}" if role else "the test case"
    lines = (
        "async def asyncSetUp(self):",
        f"    self.addAsyncCleanup({engine or 'engine'}.dispose)",
    )
    title = "let each test dispose of the engine on its own loop"
    reason = "IsolatedAsyncioTestCase has a loop for each test; the pool must not outlive it"
    return _fix("dispose-in-loop", title, [Part(where, lines)], reason)


def _dispose_in_client(diagnosis: Diagnosis, _setting: Setting) -> Fix:
    """Inside `with` there is a loop for each block, and the portal reaches it."""
    engine = diagnosis.engine.variable if diagnosis.engine else None
    role = next((role for role in _actors(diagnosis) if role.kind == "test"), None)
    where = f"{role.place.path}, each test" if role else "each test"
    lines = (
        "with TestClient(app) as client:",
        "    ...",
        f"    client.portal.call({engine or 'engine'}.dispose)",
    )
    title = "dispose of the engine at the end of each block, on the client's own loop"
    reason = "each `with` block has a loop of its own; the pool must not outlive it"
    return _fix("dispose-in-loop", title, [Part(where, lines)], reason)


def _one_client(diagnosis: Diagnosis, _setting: Setting) -> Fix:
    """Outside `with` there is a loop for each call, inside one for each client."""
    role = next((role for role in _actors(diagnosis) if role.kind == "test"), None)
    where = role.place.path if role else "conftest.py"
    lines = (
        '@pytest.fixture(scope="session")',
        "def client():",
        "    with TestClient(app) as client:",
        "        yield client",
        "",
        f"def {role.name if role else 'test_it'}(client):",
    )
    title = "one client, and so one loop, for all tests"
    reason = "inside `with`, TestClient keeps one loop and runs the lifespan on it"
    return _fix("testclient-context", title, [Part(where, lines)], reason)
