"""The web server: one page that lists the administrators."""

import uvicorn
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .db import session_maker


async def list_admins(_request: Request) -> JSONResponse:
    """Answer with the administrators' addresses."""
    async with session_maker() as session:
        rows = await session.execute(text("SELECT email FROM admins"))
        return JSONResponse([row.email for row in rows])


app = Starlette(routes=[Route("/admins", list_admins)])


def serve() -> None:
    """Answer requests until interrupted."""
    uvicorn.run(app, host="127.0.0.1", port=0)
