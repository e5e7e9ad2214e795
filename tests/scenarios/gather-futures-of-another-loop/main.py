"""A client object creates its reply futures on its own background loop."""
import asyncio
import threading


class Client:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def request(self, text):
        reply = self.loop.create_future()
        self.loop.call_soon_threadsafe(self.loop.call_later, 0.3, reply.set_result, text.upper())
        return reply


client = Client()


async def question():
    return await asyncio.wait_for(client.request("hello"), 2)


def ask():
    print(asyncio.run(question()))


if __name__ == "__main__":
    ask()
