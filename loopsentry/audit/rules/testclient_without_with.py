"""each request of a test client runs on a loop of its own

Outside of `with`, Starlette's `TestClient` starts an event loop for each request and closes it.
What the application's shared engine opened for the first request is taken out of its pool for the
second one, on another loop.

Enter the client, `with TestClient(app) as client:`, which keeps one loop and runs the lifespan, or
use `httpx.AsyncClient` with an `ASGITransport` in asynchronous tests.
"""

from __future__ import annotations

from collections.abc import Iterator

from loopsentry.audit import syntax
from loopsentry.audit.facts import Call, Function, Module
from loopsentry.audit.findings import Finding
from loopsentry.audit.program import Program
from loopsentry.audit.sources import shares_fixtures
from loopsentry.audit.symbols import Resource
from loopsentry.audit.syntax import dotted, plain

CODE = "LSA105"
NAME = "testclient-without-with"

BROKEN = """\
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")
app = FastAPI()


@app.get("/")
async def show() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("select 1")).scalar_one()


def test_show() -> None:
    client = TestClient(app)
    assert client.get("/").json() == 1
    assert client.get("/").json() == 1
"""
CURED = """\
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://db/shop")
app = FastAPI()


@app.get("/")
async def show() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("select 1")).scalar_one()


def test_show() -> None:
    with TestClient(app) as client:
        assert client.get("/").json() == 1
        assert client.get("/").json() == 1
"""

_CLIENTS = frozenset({"fastapi.testclient.TestClient", "starlette.testclient.TestClient"})
_REQUESTS = frozenset(
    {"get", "post", "put", "patch", "delete", "head", "options", "request", "websocket_connect"}
)


def find(program: Program) -> Iterator[Finding]:
    """Find clients that nothing enters, and that make two requests to what uses a shared engine."""
    for call in program.project.calls_of("TestClient"):
        function = call.function
        if program.symbols.outside(call.node.func, function) not in _CLIENTS:
            continue
        # Tests that replace what a request depends on do not use the application's engine.
        if "dependency_overrides" in function.module.words:
            continue
        names = _names_of(function, call)
        if names and _requests(program, function, names) > 1:
            for engine in _engines_of(program, function, call)[:1]:
                yield _finding(program, function, call, engine)


def _engines_of(program: Program, function: Function, call: Call) -> list[Resource]:
    """The shared engines that the client's application uses in its request handlers."""
    home = _home_of(program, function, call.node.args[0]) if call.node.args else None
    if home is None:
        return []
    modules = {home} if home is function.module else program.imported_by(home)
    handlers = [
        each
        for module in modules
        for each in module.functions()
        if program.entries.is_handler(each)
    ]
    used = program.reach.down(handlers).uses
    kept = (each for each in used if each.shared and each.pooled and not each.tolerant)
    return [each for each in kept if each.kind != "primitive"]


def _home_of(program: Program, function: Function, node: syntax.Node) -> Module | None:
    """The module whose variable, or whose function, the application is."""
    name = (dotted(plain(node)) or "").partition(".")[0]
    around: Function | None = function
    while around is not None:
        if name in around.imports:
            given = around.imports[name]
            whole = program.project.find(given, function.module)
            return whole or program.project.find(given.rpartition(".")[0], function.module)
        if name in around.bindings and around.parent is None:
            return function.module
        if name in around.bindings:
            return None  # made for this test
        around = around.parent
    return None


def _names_of(function: Function, call: Call) -> set[str]:
    """The names that hold a client, the fixture's too; none if something enters it."""
    holders = {n for n, values in function.bindings.items() if call.node in values}
    entered = {dotted(node) for node in function.entered.values()}
    if call.node in function.entered.values() or holders & entered:
        return set()
    if _is_fixture(function) and (call.node in function.returned or _gives(function, holders)):
        holders.add(function.name)
    used_by_with = any(
        dotted(node) in holders
        for each in function.module.functions()
        for node in each.entered.values()
    )
    return set() if used_by_with else holders


def _gives(function: Function, holders: set[str]) -> bool:
    return any(dotted(node) in holders for node in function.returned)


def _is_fixture(function: Function) -> bool:
    return "fixture" in function.decorators


def _requests(program: Program, function: Function, names: set[str]) -> int:
    """How many requests the names make, in loops counted twice; a fixture's, where it is seen."""
    count = 0
    for method in sorted(_REQUESTS):
        for call in program.project.calls_of(method):
            if (dotted(call.node.func) or "").rpartition(".")[0] in names:
                count += (2 if call.repeated else 1) if _sees(call, function, names) else 0
    return count


def _sees(call: Call, function: Function, names: set[str]) -> bool:
    """Whether a call stands in the file of a client, or in a test that asks for its fixture."""
    if call.function.module is function.module:
        return True
    asked = function.name in names and function.name in call.function.parameters
    return asked and shares_fixtures(function.module, call.function.module)


def _finding(program: Program, function: Function, call: Call, engine: Resource) -> Finding:
    return Finding(
        code=CODE,
        kind=NAME,
        certainty="likely",
        file=program.project.relative(function.module.path),
        line=call.line,
        message=f"each request of this client runs on a loop of its own, and the application's"
        f" `{engine.name}` outlives them",
        chain=(program.link((function, call.line), "makes a client that nothing enters"),),
        object=program.thing(engine),
        reason="two requests or more are made with it",
        fixes=("testclient-context", "async-test-client"),
    )
