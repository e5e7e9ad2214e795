"""An ordinary Session shared by threads: the text of the asynchronous mistake, and no event loop anywhere."""
import os
import threading

from sqlalchemy import create_engine, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

engine = create_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+psycopg://", 1))
refused = []


def work(session, barrier):
    barrier.wait()
    try:
        session.execute(text("select pg_sleep(0.05)"))
    except InvalidRequestError as exc:
        refused.append(exc)
    except Exception as exc:
        print("also refused:", type(exc).__name__)


def main():
    for _ in range(20):
        session, barrier = Session(engine), threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(session, barrier)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.invalidate()
        if refused:
            break
    print(refused[0])
    engine.dispose()


if __name__ == "__main__":
    main()
