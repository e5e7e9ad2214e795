"""A channel of grpc.aio."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import grpc.aio

TITLE = "grpc.aio channel"


class _Handler(grpc.GenericRpcHandler):
    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"ok")


SERVER = grpc.server(futures.ThreadPoolExecutor(2))
SERVER.add_generic_rpc_handlers((_Handler(),))
PORT = SERVER.add_insecure_port("127.0.0.1:0")
SERVER.start()


async def make() -> Any:
    """Open a channel."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{PORT}")


async def use(client: Any) -> None:
    """Call a method."""
    await client.unary_unary("/shop/ask")(b"?")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
