import os

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)
app = FastAPI()


async def get_session():
    async with Session() as session:
        yield session


@app.get("/users/{name}")
async def read_user(name: str, session=Depends(get_session)):
    return {"known": await session.scalar(text("select count(*) from pg_roles where rolname = :n"), {"n": name})}


def test_known_user():
    with TestClient(app) as client:
        assert client.get("/users/pg_monitor").json() == {"known": 1}


def test_unknown_user():
    with TestClient(app) as client:
        assert client.get("/users/nobody-at-all").json() == {"known": 0}
