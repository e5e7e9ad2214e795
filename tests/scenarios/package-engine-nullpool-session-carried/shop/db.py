import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool
)
Session = async_sessionmaker(engine)
