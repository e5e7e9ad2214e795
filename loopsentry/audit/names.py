"""The names of other libraries that mean something to the audit."""

from __future__ import annotations

#: What makes an object that binds to a loop, and the kind of object.
MAKERS = {
    "sqlalchemy.ext.asyncio.create_async_engine": "engine",
    "sqlalchemy.ext.asyncio.engine.create_async_engine": "engine",
    "sqlalchemy.ext.asyncio.async_engine_from_config": "engine",
    "sqlmodel.ext.asyncio.create_async_engine": "engine",
    "asyncpg.create_pool": "pool",
    "asyncpg.pool.create_pool": "pool",
    "psycopg_pool.AsyncConnectionPool": "pool",
    "aiomysql.create_pool": "pool",
    "asyncmy.create_pool": "pool",
    "aiopg.create_pool": "pool",
    "databases.Database": "client",
    "redis.asyncio.Redis": "client",
    "redis.asyncio.from_url": "client",
    "redis.asyncio.Redis.from_url": "client",
    "redis.asyncio.StrictRedis": "client",
    "redis.asyncio.client.Redis": "client",
    "redis.asyncio.ConnectionPool.from_url": "client",
    "aioredis.from_url": "client",
    "httpx.AsyncClient": "client",
    "aiohttp.ClientSession": "client",
    "openai.AsyncOpenAI": "client",
    "openai.AsyncAzureOpenAI": "client",
    "anthropic.AsyncAnthropic": "client",
    "motor.motor_asyncio.AsyncIOMotorClient": "client",
    "pymongo.AsyncMongoClient": "client",
    "elasticsearch.AsyncElasticsearch": "client",
    "opensearchpy.AsyncOpenSearch": "client",
    "aiokafka.AIOKafkaProducer": "client",
    "aiokafka.AIOKafkaConsumer": "client",
    "aio_pika.connect": "client",
    "aio_pika.connect_robust": "client",
    "nats.connect": "client",
    "neo4j.AsyncGraphDatabase.driver": "client",
    "qdrant_client.AsyncQdrantClient": "client",
    "groq.AsyncGroq": "client",
    "grpc.aio.insecure_channel": "client",
    "grpc.aio.secure_channel": "client",
    "asyncio.Lock": "primitive",
    "asyncio.Event": "primitive",
    "asyncio.Condition": "primitive",
    "asyncio.Semaphore": "primitive",
    "asyncio.BoundedSemaphore": "primitive",
    "asyncio.Queue": "primitive",
    "asyncio.PriorityQueue": "primitive",
    "asyncio.LifoQueue": "primitive",
    "asyncio.Barrier": "primitive",
}
#: What makes sessions of an engine.
FACTORIES = frozenset(
    {
        "sqlalchemy.ext.asyncio.async_sessionmaker",
        "sqlalchemy.ext.asyncio.session.async_sessionmaker",
        "sqlalchemy.ext.asyncio.async_scoped_session",
        "sqlalchemy.ext.asyncio.AsyncSession",
        "sqlmodel.ext.asyncio.session.AsyncSession",
        "sqlalchemy.orm.sessionmaker",
    }
)
#: What gives the function that it is given, or one that does the same.
WRAPPERS = frozenset(
    {"functools.partial", "contextlib.asynccontextmanager", "contextlib.contextmanager"}
)
CACHES = frozenset(
    {
        "functools.cache",
        "functools.lru_cache",
        "streamlit.cache_resource",
        "streamlit.experimental_singleton",
        "cachetools.func.lru_cache",
        "cachetools.func.ttl_cache",
    }
)
#: Providers of a container that make their object once.
SINGLETONS = frozenset(
    f"{home}.{kind}"
    for home in ("dependency_injector.providers", "dependency_injector.providers.providers")
    for kind in ("Singleton", "ThreadSafeSingleton", "Resource")
)
#: Pools that keep no connection between uses, or none of another loop.
OWN_POOLS = frozenset(
    {
        "sqlalchemy.pool.NullPool",
        "sqlalchemy.NullPool",
        "sqlalchemy.pool.impl.NullPool",
        "loopsentry.LoopLocalPool",
        "loopsentry.pool.LoopLocalPool",
    }
)
#: What makes an engine of its own like the one that it is given, and disposes of it.
COPIERS = frozenset({"loopsentry.session_scope_fresh", "loopsentry.session.session_scope_fresh"})
#: Drivers whose connections survive a change of loop, as URLs name them.
TOLERANT = ("+psycopg", "+aiosqlite")

#: What runs a coroutine on a loop of its own.
RUNNERS = frozenset(
    {
        "asyncio.run",
        "asyncio.runners.run",
        "uvloop.run",
        "anyio.run",
        "asyncio.Runner().run",
        "asyncio.new_event_loop().run_until_complete",
        "uvloop.new_event_loop().run_until_complete",
    }
)
#: What runs one on the loop of the thread, the same each time.
KEPT = frozenset(
    {
        "asyncio.get_event_loop().run_until_complete",
        "asyncio.get_running_loop().run_until_complete",
        "asyncio.get_event_loop_policy().get_event_loop().run_until_complete",
    }
)
BRIDGES = frozenset({"asgiref.sync.async_to_sync", "asgiref.sync.AsyncToSync"})
#: What runs an asynchronous view on a loop of its own.
BRIDGING_APPS = ("flask.Flask()", "flask.Blueprint()", "flask.views")
#: What awaits the coroutines that it is given.
COMBINERS = frozenset(
    {
        "asyncio.gather",
        "asyncio.wait_for",
        "asyncio.shield",
        "asyncio.create_task",
        "asyncio.ensure_future",
        "asyncio.wait",
    }
)
#: Where a loop's identity comes from.
LOOPS = frozenset(
    {"asyncio.get_running_loop()", "asyncio.get_event_loop()", "asyncio.new_event_loop()"}
)
#: What serves in this process, and what does where it is awaited.
SERVERS = frozenset(
    {
        "uvicorn.run",
        "uvicorn.Server().run",
        "hypercorn.run",
        "granian.Granian().serve",
        "aiohttp.web.run_app",
        "quart.Quart().run",
        "sanic.Sanic().run",
        "discord.Client().run",
        "discord.ext.commands.Bot().run",
    }
)
SERVING = frozenset(
    {
        "uvicorn.Server().serve",
        "hypercorn.asyncio.serve",
        "aiogram.Dispatcher().start_polling",
        "discord.Client().start",
        "discord.ext.commands.Bot().start",
    }
)
#: Methods by which a bot's application serves, whatever built it.
POLLING = frozenset({"run_polling", "run_webhook"})
PROCESS_POOLS = frozenset(
    {
        "multiprocessing.Pool",
        "multiprocessing.pool.Pool",
        "multiprocessing.get_context().Pool",
        "concurrent.futures.ProcessPoolExecutor",
        "concurrent.futures.process.ProcessPoolExecutor",
    }
)
THREAD_POOLS = frozenset(
    {
        "concurrent.futures.ThreadPoolExecutor",
        "concurrent.futures.thread.ThreadPoolExecutor",
        "multiprocessing.pool.ThreadPool",
    }
)
