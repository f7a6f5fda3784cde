"""A client in Python.

Run the server, `python examples/clients/app.py`, then this, as often as you like:
`python examples/clients/python_client.py Ada "hello, all"`. Ctrl+C ends it. Stop the
server and start it again, and see how the client comes back.
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

    # What the server may send: events, and requests, which are answered by what their
    # handler returns. Registered before the client opens, so that it misses nothing.
    @client.on("said")
    def said(data: Said) -> None:
        print(f"{data.name}: {data.text}", flush=True)

    @client.on("vote")
    def vote(poll: Poll) -> str:
        print(f"{poll.question} {poll.options[0]}!", flush=True)
        return poll.options[0]

    # "connecting", "open", "waiting" when the connection was lost, or "closed" for good.
    @client.on_state
    def show(state: str) -> None:
        print(f"({state})", flush=True)
        if state == "closed":
            ended.set()

    async with client:
        try:
            await tour(client, texts)
        except DisconnectedError as error:
            # In the midst of it. The client comes back all the same.
            print(error, flush=True)
        await ended.wait()
    if client.closed is not None and client.closed.code != 1000:
        raise DisconnectedError(f"Closed for good: {client.closed.code} {client.closed.reason}")


async def tour(client: Client, texts: tuple[str, ...]) -> None:
    # Requests have replies, of the type that is asked for.
    present = await client.request("who", response_type=list[str])
    print("here:", ", ".join(present), flush=True)

    # Events have none. Without a connection they wait for the next.
    for text in texts:
        client.emit("say", {"text": text})

    poll = Poll("Tea or coffee?", ["tea", "coffee"])
    votes = await client.request("poll", poll, response_type=dict[str, int])
    print("votes:", votes, flush=True)

    # A stream is iterated over. Leaving the loop early ends it at the server, too.
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
