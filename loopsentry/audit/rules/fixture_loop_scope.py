"""a fixture's engine outlives the event loop of the tests that use it

pytest-asyncio gives each test a loop of its own, unless it is told otherwise. An engine that a
fixture of a session, a package, a module or a class makes is used on many of these loops, and one
that such a fixture connects was connected on the fixture's own: *attached to a different loop*,
*another operation is in progress*.

Let the tests run on the fixture's loop (`asyncio_default_test_loop_scope`, or
`@pytest.mark.asyncio(loop_scope="session")`), make the fixture one of the function, or give its
engine no pool.
"""

from __future__ import annotations

import configparser
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from loopsentry.audit import syntax
from loopsentry.audit.facts import Class, Function
from loopsentry.audit.findings import Finding
from loopsentry.audit.program import Program
from loopsentry.audit.reach import Step
from loopsentry.audit.sources import shares_fixtures
from loopsentry.audit.symbols import Resource
from loopsentry.audit.syntax import dotted, last_name, plain

CODE = "LSA108"
NAME = "fixture-loop-scope"

BROKEN = """\
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import create_async_engine


@pytest_asyncio.fixture(scope="session")
async def engine():
    engine = create_async_engine("postgresql+asyncpg://db/shop")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("create table users (id int)")
    yield engine
    await engine.dispose()


@pytest.mark.asyncio
async def test_users(engine) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("select * from users")
"""
CURED = """\
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import create_async_engine


@pytest_asyncio.fixture(scope="session")
async def engine():
    engine = create_async_engine("postgresql+asyncpg://db/shop")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("create table users (id int)")
    yield engine
    await engine.dispose()


@pytest.mark.asyncio(loop_scope="session")
async def test_users(engine) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("select * from users")
"""

_SCOPES = ("function", "class", "module", "package", "session")
_PLUGIN = frozenset({"pytest_asyncio.fixture", "pytest_asyncio.plugin.fixture"})
_FIXTURES = _PLUGIN | {"pytest.fixture"}
_MARK = "pytest.mark.asyncio"
#: What is read of an engine without using it.
_READ = frozenset({"url", "dialect", "name", "driver", "echo"})
_DEEP = 3
_CONNECTS = frozenset({"begin", "connect", "acquire", "fetch", "execute", "ping", "get"})


@dataclass(frozen=True, slots=True)
class Plugin:
    """How pytest-asyncio is set.

    Attributes:
        test: the loop scope of tests that name none.
        fixture: the loop scope of fixtures that name none, None for the fixture's own scope.
        auto: whether every asynchronous test is its own.
    """

    test: str = "function"
    fixture: str | None = None
    auto: bool = False


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fixture, and what it gives.

    Attributes:
        function: its function.
        name: the name by which tests ask for it.
        scope: how long it is kept.
        loop: the scope of the loop that it runs on; of a synchronous one, its own scope.
        gives: the engine or pool that it makes.
        connects: whether it connects what it gives, on its own loop.
    """

    function: Function
    name: str
    scope: str
    loop: str
    gives: Resource
    connects: bool


def find(program: Program) -> Iterator[Finding]:
    """Find fixtures whose engine tests use on loops that end before the fixture does."""
    plugin = _read_plugin(program.project.root)
    functions = [f for f in program.functions if f.module.is_test]
    if _marks_by_hook(functions) or any(_is_own_loop(program, each) for each in functions):
        return
    kept = [f for f in functions if _fixture_call(program, f) is not None]
    all_tests = [f for f in functions if _is_test(program, f, plugin)]
    for function in kept:
        fixture = _read_fixture(program, function, plugin)
        if fixture is None:
            continue
        between = {f.name: f for f in kept if not _loops_as_long(program, f, fixture, plugin)}
        tests = [
            test
            for test in all_tests
            if shares_fixtures(function.module, test.module)
            and _is_narrower(_loop_of(program, test, plugin), fixture.loop)
            and _uses(program, test, fixture, between)
        ]
        if tests and (fixture.connects or len(tests) > 1 or _is_parametrized(tests[0])):
            yield _finding(program, fixture, tests[0])


# fixtures ------------------------------------------------------------------------------------


def _fixture_call(program: Program, function: Function) -> tuple[str, syntax.Node] | None:
    """The decorator that makes a fixture of a function, and its name after imports."""
    for node in function.decorations if "fixture" in function.decorators else ():
        name = program.symbols.outside(plain(node), function.parent or function.module.body)
        if name in _FIXTURES:
            return name, node
    return None


def _read_fixture(program: Program, function: Function, plugin: Plugin) -> Fixture | None:
    made = _fixture_call(program, function)
    if made is None:
        return None
    name, node = made
    if function.asynchronous and not (name in _PLUGIN or plugin.auto):
        return None
    scope = _text(node, "scope") or "function"
    loop = _loop_of_fixture(program, function, plugin)
    if scope not in _SCOPES or loop not in _SCOPES:
        return None
    given = _given(program, function)
    if given is None:
        return None
    gives, connects = given
    if not function.asynchronous and connects:
        return None  # on a loop that is over, and disposed of or not: LSA101's
    return Fixture(function, _text(node, "name") or function.name, scope, loop, gives, connects)


def _loop_of_fixture(program: Program, function: Function, plugin: Plugin) -> str:
    """The scope of the loop on which a fixture runs; of a synchronous one, its own scope."""
    _, node = _fixture_call(program, function) or ("", function.decorations[0])
    scope = _text(node, "scope") or "function"
    if not function.asynchronous:
        return scope
    return _text(node, "loop_scope") or plugin.fixture or scope


def _given(program: Program, function: Function) -> tuple[Resource, bool] | None:
    """The engine or pool that a fixture makes and gives, and whether the fixture connects it."""
    for node in function.returned:
        found = program.symbols.value(node, function, (function.name, False))
        entered = isinstance(node, syntax.Name) and node.id in function.entered
        if not isinstance(found, Resource) or found.engine.kind == "primitive":
            continue
        engine = found.engine
        if engine.pooled is False or engine.tolerant or _ends_before(program, function, engine):
            return None
        opened = engine.kind == "pool" and function.asynchronous
        session = entered and engine.kind != "client"
        return engine, session or opened or _connects(program, function, engine)
    return None


def _connects(program: Program, function: Function, engine: Resource) -> bool:
    for call in function.calls:
        node = call.node.func
        if isinstance(node, syntax.Attribute) and node.attr in _CONNECTS:
            found = program.symbols.resolve(node.value, function)
            if isinstance(found, Resource) and found.engine is engine:
                return True
    return False


def _ends_before(program: Program, function: Function, engine: Resource) -> bool:
    """Whether a fixture disposes of its engine before it gives it."""
    gives = min((node.lineno for node in function.returned), default=0)
    return any(
        call.line < gives and engine in program.reach.ended_by(call.node.func, function)
        for call in function.calls
    )


# tests ---------------------------------------------------------------------------------------


def _is_test(program: Program, function: Function, plugin: Plugin) -> bool:
    """Whether pytest-asyncio runs a function as a test."""
    if not function.asynchronous or not function.name.startswith("test"):
        return False
    return plugin.auto or bool(_marks(program, function))


def _marks(program: Program, function: Function) -> list[syntax.Node]:
    """The marks of pytest-asyncio on a test, its class and its module, the nearest first."""
    scope = function.module.body
    nodes = [*function.decorations]
    owner: Class | None = function.owner
    if owner is not None:
        nodes += owner.decorations
    for value in scope.bindings.get("pytestmark", ()):
        nodes += value.elts if isinstance(value, (syntax.List, syntax.Tuple)) else [value]
    return [each for each in nodes if program.symbols.outside(plain(each), scope) == _MARK]


def _loop_of(program: Program, test: Function, plugin: Plugin) -> str:
    """The scope of the loop on which a test runs."""
    for mark in _marks(program, test):
        named = _text(mark, "loop_scope") or _text(mark, "scope")
        if named:
            return named
    return plugin.test


def _uses(program: Program, test: Function, fixture: Fixture, between: dict[str, Function]) -> bool:
    """Whether a test, or a fixture of its own loop that it asks for, uses what a fixture gives."""
    waiting, seen = [test], set[Function]()
    while waiting:
        asking = waiting.pop()
        seen.add(asking)
        for name in (*asking.parameters, *_used_by_mark(asking)):
            other = between.get(name)
            if name == fixture.name and _touches(program, asking, name, _DEEP):
                return True
            if name != fixture.name and other is not None and other not in seen:
                waiting.append(other)
    return False


def _touches(program: Program, function: Function, name: str, deep: int) -> bool:
    """Whether a function does more with an engine than to read its address."""
    passed = {id(a): call for call in function.calls for a in call.node.args}
    for node in function.loads:
        path = (dotted(node) or "").split(".")
        if path[0] != name or (len(path) > 1 and path[1] in _READ):
            continue
        call = passed.get(id(node)) if len(path) == 1 else None
        callee = program.symbols.resolve(call.node.func, function) if call is not None else None
        if call is None or not isinstance(callee, Function) or not deep:
            return True
        index = next(i for i, each in enumerate(call.node.args) if each is node)
        parameters = callee.parameters
        if index >= len(parameters) or _touches(program, callee, parameters[index], deep - 1):
            return True
    return any(_touches(program, each, name, deep) for each in _inner(function))


def _inner(function: Function) -> list[Function]:
    return [each for each in function.inner.values() if isinstance(each, Function)]


def _loops_as_long(program: Program, function: Function, fixture: Fixture, plugin: Plugin) -> bool:
    """Whether another fixture runs on a loop that lasts as long as a fixture's own."""
    if not function.asynchronous:
        return False
    return not _is_narrower(_loop_of_fixture(program, function, plugin), fixture.loop)


def _used_by_mark(test: Function) -> Iterator[str]:
    for node in test.decorations:
        if isinstance(node, syntax.Call) and last_name(node.func) == "usefixtures":
            yield from (str(a.value) for a in node.args if isinstance(a, syntax.Constant))


def _is_parametrized(test: Function) -> bool:
    return "parametrize" in test.decorators


def _is_narrower(one: str, other: str) -> bool:
    return one in _SCOPES and _SCOPES.index(one) < _SCOPES.index(other)


# settings ------------------------------------------------------------------------------------


def _text(node: syntax.Node, keyword: str) -> str | None:
    """A keyword's text, as it stands in a decorator."""
    for each in node.keywords if isinstance(node, syntax.Call) else ():
        if each.arg == keyword and isinstance(each.value, syntax.Constant):
            return str(each.value.value)
    return None


def _is_own_loop(program: Program, function: Function) -> bool:
    """Whether a project has a loop fixture of its own, as was the way before loop scopes."""
    return function.name == "event_loop" and _fixture_call(program, function) is not None


def _marks_by_hook(functions: list[Function]) -> bool:
    """Whether a hook gives tests their marks."""
    return any(
        function.name == "pytest_collection_modifyitems"
        and any(last_name(call.node.func) == "asyncio" for call in function.calls)
        for function in functions
    )


def _read_plugin(root: Path) -> Plugin:
    """What the nearest pytest settings at or above a folder say of pytest-asyncio."""
    for folder in (root, *root.parents):
        for table in (_of_toml(folder / "pyproject.toml"), *_of_ini(folder)):
            if table:
                return Plugin(
                    test=table.get("asyncio_default_test_loop_scope", "function"),
                    fixture=table.get("asyncio_default_fixture_loop_scope"),
                    auto=table.get("asyncio_mode") == "auto",
                )
    return Plugin()


def _of_toml(path: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    pytest = data.get("tool", {}).get("pytest", {})
    return {str(k): str(v) for k, v in {**pytest, **pytest.get("ini_options", {})}.items()}


def _of_ini(folder: Path) -> Iterator[dict[str, str]]:
    for name, section in (
        ("pytest.ini", "pytest"),
        ("tox.ini", "pytest"),
        ("setup.cfg", "tool:pytest"),
    ):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(folder / name, "utf-8")
        except (OSError, ValueError, configparser.Error):
            continue
        if parser.has_section(section):
            yield dict(parser[section])


# words ---------------------------------------------------------------------------------------


def _finding(program: Program, fixture: Fixture, test: Function) -> Finding:
    function, engine = fixture.function, fixture.gives
    here: Step = (function, function.line)
    does = "connects" if fixture.connects else "makes"
    loops = f"on the {fixture.loop}'s loop" if function.asynchronous else f"for the {fixture.scope}"
    return Finding(
        code=CODE,
        kind=NAME,
        certainty="proven",
        file=program.project.relative(function.module.path),
        line=function.line,
        message=f"the fixture `{fixture.name}` {does} its {engine.kind} {loops}, and its tests run"
        " on shorter ones",
        chain=(
            program.link(here, f"{does} `{engine.name or fixture.name}` {loops}"),
            program.link((test, test.line), "uses it on a loop of its own"),
        ),
        object=replace(program.thing(engine), name=engine.name or fixture.name),
        reason="nothing gives these tests the fixture's loop",
        fixes=("pytest-loop-scope", "null-pool", "loop-local-pool"),
    )
