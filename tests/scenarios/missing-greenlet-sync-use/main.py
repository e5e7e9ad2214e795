"""A script written years ago; somebody changed the URL."""
import os

from sqlalchemy import create_engine, text

engine = create_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


def main():
    with engine.connect() as conn:
        print(conn.scalar(text("select 1")))


if __name__ == "__main__":
    main()
