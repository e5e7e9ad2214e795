"""A command-line tool: the group checks the schema, the command prints a report."""
import asyncio
import os

import click
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


async def check_schema():
    async with Session() as session:
        return await session.scalar(text("select count(*) from pg_class where relname = 'pg_type'"))


async def rows():
    async with Session() as session:
        return (await session.execute(text("select datname from pg_database"))).scalars().all()


@click.group()
def cli():
    if asyncio.run(check_schema()) == 1:
        click.echo("schema ok")


@cli.command()
def report():
    for name in asyncio.run(rows()):
        click.echo(name)


if __name__ == "__main__":
    cli()
