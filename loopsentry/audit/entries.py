"""How often a function runs in one process: entries, by how they are decorated and called."""

from __future__ import annotations

import tomllib
from pathlib import Path

from . import syntax
from .facts import Call, Function
from .names import PROCESS_POOLS, THREAD_POOLS
from .sources import Project
from .symbols import Symbols
from .syntax import last_name, plain

#: Decorators by the last part of their name. A task and a handler run many times in a process; a
#: command and a script run once.
TASKS = frozenset(
    {"task", "shared_task", "actor", "periodic_task", "db_task", "scheduled_job", "job", "cron"}
)
COMMANDS = frozenset({"command", "callback", "default_command"})
HANDLERS = frozenset(
    {
        *("get", "post", "put", "patch", "delete", "head", "options"),
        *("route", "api_route", "websocket"),
        *("message_handler", "callback_query_handler", "inline_handler"),
    }
)
#: Decorators of what is called while a request is handled, or between two.
SIGNALS = frozenset({"receiver", "listens_for"})
#: Calls that run a function in a thread, or again and again.
THREADS = frozenset({"Thread", "submit", "run_in_executor", "to_thread", "Timer", "run_sync"})
JOBS = frozenset(
    {
        "add_task",
        "run_repeating",
        "run_daily",
        "add_job",
        "every",
        "do",
        "schedule",
        "add_periodic_task",
        "enqueue",
    }
)
ROUTES = frozenset(
    {
        "Route",
        "WebSocketRoute",
        "add_api_route",
        "add_route",
        "add_websocket_route",
        "add_api_websocket_route",
        "add_url_rule",
        "CommandHandler",
        "MessageHandler",
        "CallbackQueryHandler",
        *("path", "re_path"),
        "add_get",
        "add_post",
    }
)
_MAPS = frozenset(f"{pool}().map" for pool in THREAD_POOLS | PROCESS_POOLS)
#: Methods that a framework calls, by the last part of a base class's name.
METHODS = {
    **dict.fromkeys(("Task", "BaseTask"), (frozenset({"run"}), "task")),
    "BaseCommand": (frozenset({"handle"}), "command"),
    "AppCommand": (frozenset({"handle_app_config"}), "command"),
    "Thread": (frozenset({"run"}), "thread"),
    **dict.fromkeys(
        ("BaseRequestHandler", "StreamRequestHandler"), (frozenset({"handle"}), "handler")
    ),
    **dict.fromkeys(
        ("View", "MethodView", "APIView", "GenericAPIView", "Resource", "HTTPEndpoint"),
        (frozenset({"get", "post", "put", "patch", "delete", "dispatch"}), "handler"),
    ),
    **dict.fromkeys(
        ("ViewSet", "GenericViewSet", "ModelViewSet"),
        (frozenset({"list", "create", "retrieve", "update", "destroy"}), "handler"),
    ),
}
#: Base classes whose methods of a prefix are called again and again.
_PREFIXES = {
    "Cmd": ("do_", "rerun"),
    "BaseHTTPRequestHandler": ("do_", "handler"),
    "SimpleHTTPRequestHandler": ("do_", "handler"),
}
#: What grpc generates; each method but those of Python's own answers a call.
_SERVICER = "Servicer"
#: How a WSGI application is called (PEP 3333).
_WSGI = ["environ", "start_response"]
_CLOUD = frozenset({"http", "cloud_event"})
#: Parameters of a function of a serverless platform, which a warm process calls many times.
_EVENTS = frozenset({"event", "evt", "events"})
_CONTEXTS = frozenset({"context", "ctx", "lambda_context"})
MANY = frozenset({"task", "handler", "thread", "process", "job", "invocation", "rerun", "callback"})
ONCE = frozenset({"command", "main", "script"})


class Entries:
    """Says what kind of entry a function is.

    Attributes:
        handed: the calls that hand a function to a thread or a scheduler.
    """

    def __init__(
        self,
        project: Project,
        symbols: Symbols,
        entry_points: tuple[str, ...] = (),
    ) -> None:
        self.symbols = symbols
        self.tasks = TASKS | set(entry_points)
        self.scripts = _scripts(project.root)
        self._passed: dict[Function, str] = {}
        self.handed: dict[Function, list[Call]] = {}
        self._kinds: dict[Function, str | None] = {}
        named = (name for name in sorted({*THREADS, *JOBS, *ROUTES, "map"}))
        for call in (call for name in named for call in project.calls_of(name)):
            self._note_passed(call)
        keyed = (f for name in sorted(_CALLBACKS) for f in project.callers_of(f"={name}"))
        for function in dict.fromkeys(keyed):
            for call in function.calls:
                self._note_callbacks(call)

    def _note_callbacks(self, call: Call) -> None:
        """Remember functions that are handed to what calls them back."""
        if last_name(call.node.func) not in {*THREADS, *JOBS, *ROUTES}:
            called = [k.value for k in call.node.keywords if k.arg in _CALLBACKS]
            self._pass(called, "callback", call.function)

    def _note_passed(self, call: Call) -> None:
        """Remember functions that are handed to a thread or a scheduler."""
        name = last_name(call.node.func)
        kinds = (("thread", THREADS), ("job", JOBS), ("handler", ROUTES))
        kind = next((kind for kind, names in kinds if name in names), None)
        if name == "map" and self._outside(call.node.func, call) in _MAPS:
            kind = "thread"
        if kind is None:
            return
        given = [*call.node.args, *(k.value for k in call.node.keywords if k.arg in _TARGETS)]
        if kind == "thread" and self._is_in_processes(call):
            kind = "process"
        self._pass(given, kind, call.function, call)

    def _pass(
        self, given: list[syntax.Node], kind: str, scope: Function, call: Call | None = None
    ) -> None:
        for argument in given:
            if isinstance(argument, (syntax.Name, syntax.Attribute)):
                found = self.symbols.resolve(argument, scope)
                if isinstance(found, Function):
                    self._passed.setdefault(found, kind)
                    if call is not None:
                        self.handed.setdefault(found, []).append(call)

    def _is_in_processes(self, call: Call) -> bool:
        """Whether it is a pool of processes that is handed a function."""
        held = (call.node.func, *call.node.args[:1])
        paths = (self._outside(node, call) for node in held)
        return any(
            "ProcessPool" in path or path.removesuffix("().map") in PROCESS_POOLS for path in paths
        )

    def _outside(self, node: syntax.Node, call: Call) -> str:
        return self.symbols.outside(node, call.function)

    def kind(self, function: Function) -> str | None:
        """What calls a function from outside the program's own code, None if nothing does."""
        if function not in self._kinds:
            self._kinds[function] = self._kind(function)
        return self._kinds[function]

    def _kind(self, function: Function) -> str | None:
        if is_test(function):
            return "test"
        if function.parent is None:
            return "rerun" if "streamlit" in _imported(function) else "script"
        return (
            _kind_of_signature(function)
            or self._decorated(function)
            or self._passed.get(function)
            or self._declared(function)
        )

    def is_handler(self, function: Function) -> bool:
        """Whether a function answers requests, a test application's too."""
        return "handler" in (self._decorated(function), self._passed.get(function))

    def _decorated(self, function: Function) -> str | None:
        for place, name in enumerate(function.decorators):
            kind = self._kind_of_decorator(name, place, function)
            if kind is not None:
                return kind
        return None

    def _declared(self, function: Function) -> str | None:
        name = f"{'.'.join(function.module.parts)}:{function.name}"
        return "main" if name in self.scripts else None

    def _kind_of_decorator(self, name: str, place: int, function: Function) -> str | None:
        if name in self.tasks:
            return "task"
        if name in COMMANDS:
            return "command"
        if name in SIGNALS:
            return "callback"
        if name not in HANDLERS and name not in _CLOUD:
            return None
        node = plain(function.decorations[place])
        path = self.symbols.outside(node, function.parent or function.module.body)
        if name in _CLOUD and path.startswith("functions_framework."):
            return "invocation"
        is_handler = name in HANDLERS and isinstance(node, syntax.Attribute)
        elsewhere = path.startswith(("requests", "httpx", "unittest"))
        return "handler" if is_handler and not elsewhere else None


_INVOKED_WITH = 2
_CALLBACKS = frozenset({"on_message_callback", "on_message", "fn"})
_TARGETS = ("target", "func", "function", "endpoint", "view_func")


def _kind_of_signature(function: Function) -> str | None:
    """What a method of a framework's class is, and a function of a serverless platform."""
    if function.owner is None:
        names = [name.strip("_") for name in function.parameters]
        if len(names) == _INVOKED_WITH and names[0] in _EVENTS and names[1] in _CONTEXTS:
            return "invocation"
        return "handler" if names == _WSGI else None
    for name in function.owner.base_names:
        methods, kind = METHODS.get(name, (frozenset[str](), ""))
        if function.name in methods:
            return kind
        prefix, kind = _PREFIXES.get(name, ("", ""))
        if prefix and function.name.startswith(prefix):
            return kind
        if name.endswith(_SERVICER) and function.parameters[1:] == ["request", "context"]:
            return "handler"
    return None


def _imported(body: Function) -> set[str]:
    """The packages that a module's body imports."""
    return {name.partition(".")[0] for name in body.imports.values()}


def is_test(function: Function) -> bool:
    """Whether a function belongs to tests."""
    return function.module.is_test or function.name.startswith("test_")


def _scripts(root: Path) -> set[str]:
    """The console scripts that a project declares, as `module:function`."""
    found: set[str] = set()
    for path in (root / "pyproject.toml", *root.glob("*/pyproject.toml")):
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        project = data.get("project", {})
        poetry = data.get("tool", {}).get("poetry", {})
        for table in (project.get("scripts", {}), poetry.get("scripts", {})):
            found.update(str(value) for value in table.values())
    return found
