"""A bot opens its HTTP session on a background loop; a report uses the same session on its own."""
import asyncio
import http.server
import threading

import aiohttp


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
session = None


async def start_bot():
    global session
    session = aiohttp.ClientSession()
    async with session.get(url) as answer:
        return await answer.text()


async def report():
    async with session.get(url) as answer:
        return await answer.text()


def main():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    print("bot", asyncio.run_coroutine_threadsafe(start_bot(), loop).result())
    print("report", asyncio.run(report()))


if __name__ == "__main__":
    main()
