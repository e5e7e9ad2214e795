"""A Typer application: the callback checks the schema, the command prints a report."""
import asyncio
import os

import typer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
app = typer.Typer(pretty_exceptions_enable=False)
Session = async_sessionmaker(engine)


async def check_schema():
    async with Session() as session:
        return await session.scalar(text("select count(*) from pg_class where relname = 'pg_type'"))


async def rows():
    async with Session() as session:
        return (await session.execute(text("select datname from pg_database"))).scalars().all()


@app.callback()
def check():
    if asyncio.run(check_schema()) == 1:
        typer.echo("schema ok")


@app.command()
def report():
    for name in asyncio.run(rows()):
        typer.echo(name)


if __name__ == "__main__":
    app()
