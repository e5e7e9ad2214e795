"""A worker warms a client on its background loop; the command line then uses it on its own loop."""
import asyncio
import http.server
import threading

import httpx


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
client = httpx.AsyncClient(trust_env=False)


async def fetch():
    return (await client.get(url)).text


def main():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    print("worker", asyncio.run_coroutine_threadsafe(fetch(), loop).result())
    print("command", asyncio.run(fetch()))


if __name__ == "__main__":
    main()
