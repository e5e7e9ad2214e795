"""Renames a user and shows the result."""
import asyncio
import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "expired_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def rename():
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.drop_all)
        await conn.run_sync(Base.metadata.create_all)
    async with Session() as session:
        user = User(id=1, name="ada")
        session.add(user)
        await session.commit()
        return {"name": user.name}


def main():
    print(asyncio.run(rename()))


if __name__ == "__main__":
    main()
