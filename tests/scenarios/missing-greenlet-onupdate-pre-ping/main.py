"""An order is touched and shown: the server computes `changed`, so reading it after the flush needs a query."""
import asyncio
import os

from sqlalchemy import DateTime, func
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_pre_ping=True
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "trap_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    changed: Mapped[object] = mapped_column(DateTime, server_default=func.now(), onupdate=func.now())


async def ship(session, order):
    order.state = "shipped"
    await session.flush()
    return order.changed


async def main():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    try:
        async with AsyncSession(engine) as session:
            order = Order(id=1, state="new")
            session.add(order)
            await session.commit()
            await session.refresh(order)
            print(await ship(session, order))
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
