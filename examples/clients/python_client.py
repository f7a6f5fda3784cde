"""A client in Python.

Run the server with `python examples/clients/app.py`. Then run one or more of these:
`python examples/clients/python_client.py Ada "hello, all"`. Stop one with Ctrl+C. If
you restart the server, the client reconnects automatically.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlencode

from symphony import Client, DisconnectedError, connect

URL = os.environ.get("URL", "ws://127.0.0.1:8080/chat")


@dataclass
class Said:
    name: str
    text: str


@dataclass
class Poll:
    question: str
    options: list[str]


async def main(name: str, *texts: str) -> None:
    client = connect(f"{URL}?{urlencode({'name': name})}")
    ended = asyncio.Event()

    # Handlers for events and requests from the server. The return value of a handler
    # answers a request. Register them before the client opens, so that it misses nothing.
    @client.on("said")
    def said(data: Said) -> None:
        print(f"{data.name}: {data.text}", flush=True)

    @client.on("vote")
    def vote(poll: Poll) -> str:
        print(f"{poll.question} {poll.options[0]}!", flush=True)
        return poll.options[0]

    # "connecting", "open", "waiting" to reconnect, or "closed" permanently.
    @client.on_state
    def show(state: str) -> None:
        print(f"({state})", flush=True)
        if state == "closed":
            ended.set()

    async with client:
        try:
            await tour(client, texts)
        except DisconnectedError as error:
            # The connection was lost during the tour. The client reconnects anyway.
            print(error, flush=True)
        await ended.wait()
    if client.closed is not None and client.closed.code != 1000:
        raise DisconnectedError(f"Closed permanently: {client.closed.code} {client.closed.reason}")


async def tour(client: Client, texts: tuple[str, ...]) -> None:
    # A request waits for a reply of the given type.
    present = await client.request("who", response_type=list[str])
    print("here:", ", ".join(present), flush=True)

    # An event has no reply. While the client is not connected, events are queued.
    for text in texts:
        client.emit("say", {"text": text})

    poll = Poll("Tea or coffee?", ["tea", "coffee"])
    votes = await client.request("poll", poll, response_type=dict[str, int])
    print("votes:", votes, flush=True)

    # Iterate over a stream. If you leave the loop early, the stream ends on the server.
    async for line in client.stream("recite", response_type=str):
        print(" ", line, flush=True)
        if line.endswith(";"):
            break


if __name__ == "__main__":
    try:
        asyncio.run(main(*(sys.argv[1:] or ["Ada"])))
    except KeyboardInterrupt:
        print("Bye!")
    except DisconnectedError as error:
        sys.exit(str(error))
