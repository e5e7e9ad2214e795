"""Two mails through an eager Celery task."""
import os

from asgiref.sync import async_to_sync
from celery import Celery
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
app = Celery("mails", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True
app.conf.task_eager_propagates = True


async def record(number):
    async with AsyncSession(engine) as session:
        await session.execute(text("select cast(:n as integer)"), {"n": number})


@app.task
def send_mail(number):
    async_to_sync(record)(number)
    print("mail", number, "sent")


if __name__ == "__main__":
    send_mail.delay(1)
    send_mail.delay(2)
