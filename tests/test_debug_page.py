"""What a client sees in debug mode, and that it sees nothing of it in production."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from conftest import RunProgram

import loopsentry
from loopsentry.model import Fix, LoopInfo, Place
from loopsentry.renderers import html

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


class Reader(HTMLParser):
    """Reads a page: its text, its elements, and whether each that was opened is closed."""

    VOID = frozenset({"meta", "path", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Check that what ends is what began last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data


PROGRAM = """
import asyncio, json, os, sys, warnings
import loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
warnings.simplefilter("ignore")
from starlette.testclient import TestClient

loopsentry.install()
engine = create_async_engine(os.environ["DATABASE_URL"])

async def use():
    async with engine.connect() as connection:
        await connection.execute(text("select :what"), {"what": os.environ["PARAMETER"]})

async def page(_): await use()
async def stream(_):
    async def parts():
        yield b"begun"
        await use()
    return StreamingResponse(parts())
async def other(_): raise ZeroDivisionError("not of ours")

asyncio.run(use())
answers = []
for debug, watched, path, accept in json.loads(sys.argv[1]):
    middleware = [Middleware(loopsentry.LoopSentryMiddleware)] if watched else []
    routes = [Route("/page", page), Route("/stream", stream), Route("/other", other)]
    app = Starlette(debug=debug, routes=routes, middleware=middleware)
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.get(path, headers={"accept": accept})
    answers.append([answer.status_code, dict(answer.headers), answer.text])
print(json.dumps(answers))
"""
PARAMETER = "s3cret-parameter"

Answer = tuple[int, dict[str, str], str]


def ask(run_program: RunProgram, *requests: tuple[bool, bool, str, str]) -> list[Answer]:
    """Ask applications, each in debug mode or not, watched or not, for a path in a format."""
    ended = run_program(PROGRAM, json.dumps(requests), under=False, env={"PARAMETER": PARAMETER})
    assert ended.returncode == 0, ended.stderr
    answers: list[Answer] = json.loads(ended.stdout)
    return answers


def test_a_browser_gets_a_page(run_program: RunProgram) -> None:
    """It tells both loops, the places and the cures, and shows no parameter."""
    first, second = ask(run_program, *[(True, True, "/page", BROWSER)] * 2)
    status, headers, text = first
    assert status == 500
    page = Reader(text)
    assert "connection of a closed event loop used on another loop" in page.text
    assert "loop A: asyncio.run" in page.text
    assert "loop B: TestClient" in page.text
    assert "main.py:18 use()" in page.text
    assert "session_scope_fresh" in page.text
    assert PARAMETER not in text
    nonce = re.search(r"style-src 'nonce-([\w-]+)'", headers["content-security-policy"])
    assert nonce is not None
    assert "default-src 'none'" in headers["content-security-policy"]
    for tag, attributes in page.found:
        assert not {"src", "href", "style", "onclick"} & attributes.keys()
        if tag in ("style", "script"):
            assert attributes["nonce"] == nonce[1]
    assert nonce[1] not in second[2]


def test_other_clients_get_what_they_accept(run_program: RunProgram) -> None:
    """A program gets JSON or text."""
    accepted = ("application/json", "*/*", "")
    answers = ask(run_program, *((True, True, "/page", accept) for accept in accepted))
    kinds = [headers["content-type"].partition(";")[0] for _, headers, _ in answers]
    assert kinds == ["application/json", "text/plain", "text/plain"]
    assert json.loads(answers[0][2])["code"] == "LS101"
    for status, _, text in answers:
        assert status == 500
        assert PARAMETER not in text
    assert answers[1][2].startswith("error[LS101]")


@pytest.mark.parametrize(
    ("debug", "path"), [(False, "/page"), (False, "/other"), (True, "/other"), (True, "/stream")]
)
def test_everything_else_is_answered_as_without(
    run_program: RunProgram, debug: bool, path: str
) -> None:
    """In production, for other failures, and after the answer has begun, no byte is different."""
    bare, watched = ask(run_program, *((debug, each, path, "*/*") for each in (False, True)))
    (status, headers, text), (bare_status, bare_headers, bare_text) = watched, bare
    assert (status, LINES.sub("", text)) == (bare_status, LINES.sub("", bare_text))
    for each in (headers, bare_headers):
        each.pop("content-length", None)
        each.pop("date", None)
    assert headers == bare_headers


#: A traceback of the debug mode names one frame more, the middleware's.
LINES = re.compile(r'  File ".*\n.*\n(?:[ ^~]+\n)?')


def test_what_others_wrote_is_escaped() -> None:
    """Names, texts and sources cannot become markup."""
    hostile = "</code></pre><script>alert(1)</script>\"' onload=x"
    place = Place(file=f"/{hostile}.py", line=3, function=hostile)
    with loopsentry.install():
        told = loopsentry.diagnose(RuntimeError("Event loop is closed"))
    changed = replace(
        told,
        title=hostile,
        certainty="likely",
        used_at=place,
        current_loop=LoopInfo(id=1, label="B", runner=hostile, started_by=place, state="running"),
        stack=(place,),
        notes=(hostile,),
        fixes=(Fix(id="x", title=hostile, snippet=hostile, reason=hostile),),
    )
    page = Reader(html.render(changed, nonce=hostile, frames=[place]))
    assert [tag for tag, _ in page.found].count("script") == 1
    assert page.text.count("<script>alert(1)</script>") >= 10
