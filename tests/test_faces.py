"""The faces of a missing greenlet: what was read or called, and the cure that fits that."""

from __future__ import annotations

import json

from conftest import RunProgram

BEGINNING = """
import asyncio, datetime, json, tempfile
from pathlib import Path
from sqlalchemy import ForeignKey, MetaData, create_engine, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase, DynamicMapped, Mapped, Session, mapped_column, relationship, sessionmaker
)
import loopsentry

URL = f"sqlite+aiosqlite:///{Path(tempfile.mkdtemp()) / 'faces.db'}"
engine = create_async_engine(URL)
Keeping = async_sessionmaker(engine, expire_on_commit=False)
Expiring = async_sessionmaker(engine)

class Base(DeclarativeBase): pass

class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[str] = mapped_column(default="", deferred=True)
    changed: Mapped[datetime.datetime] = mapped_column(
        server_default=func.now(), onupdate=func.now()
    )
    books: Mapped[list["Book"]] = relationship(back_populates="author")
    shelf: DynamicMapped["Book"] = relationship(viewonly=True)
    @property
    def shout(self): return self.name.upper()
    def __repr__(self): return f"<Author {self.name}>"

class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")

async def begin():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with Keeping() as s:
        s.add(Author(id=1, name="ann"))
        await s.flush()
        s.add(Book(id=1, author_id=1))
        await s.commit()
"""

PLAIN = ("sync-driver", "synchronous engine or session")
FUNCTION = ("eager-load", "synchronous function of SQLAlchemy's")
BENEATH = ("eager-load", "the session beneath an AsyncSession called outside run_sync()")
#: What each program does with a session `s` or a fresh `a` of it; the first cure, and words of the
#: headline.
FACES = {
    "collection": ("list(a.books)", "eager-load", "`Author.books` was loaded lazily"),
    "other side": (
        "s.expunge(a); (await s.scalars(select(Book))).one().author",
        "eager-load",
        "`Book.author` was loaded lazily",
    ),
    "getattr": ("{f: getattr(a, f) for f in ('id', 'books')}", "eager-load", "`Author.books`"),
    "append": ("a.books.append(Book(id=2))", "eager-load", "`Author.books` was loaded lazily"),
    "deferred": ("len(a.notes)", "eager-load", "`Author.notes` was loaded lazily"),
    "expired": ("await s.commit(); a.name", "eager-load", "`Author."),
    "property": ("await s.commit(); a.shout", "eager-load", "`Author."),
    "text of it": ("await s.commit(); f'{a!r}'", "eager-load", "`Author."),
    "sorted": ("await s.commit(); sorted([a], key=lambda a: a.name)", "eager-load", "`Author."),
    "thread": ("await s.commit(); await asyncio.to_thread(repr, a)", "eager-load", "`Author."),
    "generated": (
        "a.name = 'bea'; await s.flush(); a.changed",
        "refresh-attributes",
        "`Author.changed`",
    ),
    "dynamic": ("a.shelf.all()", "eager-load", "`Author.shelf` is a dynamic relationship"),
    "dynamic, in a loop": ("[b for b in a.shelf]", "eager-load", "`Author.shelf` is a dynamic"),
    "beneath the session": (
        "s.sync_session.execute(text('select 1'))",
        *BENEATH,
    ),
    "query beneath it": (
        "s.sync_session.query(Author).all()",
        *BENEATH,
    ),
    "beneath it, in a function": (
        "total(s.sync_session)",
        *BENEATH,
    ),
    "beneath it, in a method": (
        "Totals().total(s.sync_session)",
        *BENEATH,
    ),
    "sync engine": (
        "with Session(engine.sync_engine) as plain: plain.execute(text('select 1'))",
        *PLAIN,
    ),
    "sync maker": (
        "sessionmaker(engine.sync_engine)().execute(text('select 1'))",
        *PLAIN,
    ),
    "sync query": (
        "Session(engine.sync_engine).query(Author).all()",
        *PLAIN,
    ),
    "plain engine": (
        "create_engine(URL).connect()",
        *PLAIN,
    ),
    "plain engine's tables": (
        "Base.metadata.create_all(create_engine(URL))",
        *PLAIN,
    ),
    "tables": (
        "Base.metadata.create_all(engine.sync_engine)",
        *FUNCTION,
    ),
    "reflection": (
        "MetaData().reflect(engine.sync_engine)",
        *FUNCTION,
    ),
    "inspection": (
        "inspect(engine.sync_engine).get_table_names()",
        *FUNCTION,
    ),
}

#: What the cure of some of them has to say, with the reader's own names.
LINES = {
    "collection": "select(Author).options(selectinload(Author.books))",
    "other side": "select(Book).options(selectinload(Book.author))",
    "deferred": "select(Author).options(undefer(Author.notes))",
    "expired": "async_sessionmaker(engine, expire_on_commit=False)",
    "property": "async_sessionmaker(engine, expire_on_commit=False)",
    "generated": 'await session.refresh(instance, ["changed"])',
    "dynamic": 'shelf: WriteOnlyMapped["Model"] = relationship()',
    "beneath the session": "await session.execute(...)",
    "query beneath it": "await session.run_sync(function)",
    "beneath it, in a function": "await session.run_sync(total)",
    "beneath it, in a method": "await session.run_sync(function)",
}

END = """
def total(session): return session.scalar(text("select 1"))

class Totals:
    def total(self, session): return session.scalar(text("select 1"))

told = {}
for name, form in forms.items():
    async def main():
        await begin()
        async with (Expiring() if "commit" in sources[name] else Keeping()) as s:
            a = (await s.scalars(select(Author))).one()
            await form(s, a)
    try: asyncio.run(main())
    except Exception as exc:
        found = loopsentry.diagnose(exc)
        told[name] = [found.code, found.fixes[0].id, found.title, found.fixes[0].snippet]
    asyncio.run(engine.dispose())
print(json.dumps(told))
"""


def test_each_face_of_a_missing_greenlet_gets_its_own_cure(run_program: RunProgram) -> None:
    """The attribute is named, and a synchronous engine is not told to load anything eagerly."""
    text = BEGINNING + "forms, sources = {}, {}\n"
    for number, (name, (body, _, _)) in enumerate(FACES.items()):
        text += f"async def form_{number}(s, a):\n    {body}\n"
        text += f"forms[{name!r}], sources[{name!r}] = form_{number}, {body!r}\n"
    ended = run_program(text + END)
    assert ended.returncode == 0, ended.stderr

    told = json.loads(ended.stdout)
    assert told.keys() == FACES.keys()
    for name, (_, cure, words) in FACES.items():
        assert told[name][:2] == ["LS401", cure], name
        assert words in told[name][2], name
        assert LINES.get(name, "") in told[name][3], name
