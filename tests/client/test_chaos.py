"""Bad days at random: what is promised holds whatever the network does."""

import asyncio
import contextlib
import random
from typing import Any

import pytest

from client.scripted import Handshake, Peer, serve
from symphony.client import connect
from symphony.errors import DisconnectedError, RemoteError, RequestTimeoutError

STEPS = 250


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_sent_twice_and_everything_in_order(seed: int) -> None:
    """One client that says numbers in all ways, and a server that cuts it off in all ways.

    Events and plain requests arrive at most once, in the order they were said
    in. Idempotent requests are answered in the end. Every request ends.
    """
    chance = random.Random(seed)
    events: list[int] = []
    requests: list[int] = []
    said = 0

    async def live(peer: Peer) -> None:
        """Serve one connection, for a while."""
        with contextlib.suppress(Exception):
            for _ in range(chance.randint(0, 40)):
                async with asyncio.timeout(0.1):
                    frame = await peer.receive()
                if "event" not in frame:
                    continue
                if "id" not in frame:
                    events.append(frame["data"])
                    continue
                if frame["event"] == "once":
                    requests.append(frame["data"])
                if chance.random() < 0.8:
                    await peer.send(reply=frame["id"], data=frame["data"])
        match chance.randrange(4):
            case 0:
                await peer.close(chance.choice((1001, 1011, 1012, 1013, 4408, 4503)))
            case 1:
                await peer.drop()
            case 2:
                peer.connection.transport.close()
            case 3:
                await peer.send(retry=0.01)
                await peer.close(1012)

    async def server_life(handshake: Handshake) -> None:
        roll = chance.random()
        if roll < 0.15:
            handshake.refuse(chance.choice((429, 500, 502, 503, 504)))
        elif roll < 0.25:
            handshake.connection.transport.abort()
        elif roll < 0.35:
            await (await handshake.accept("symphony.refuse")).close(4503)
        else:
            await live(await handshake.accept())

    async def run_server() -> None:
        while True:
            with contextlib.suppress(Exception):
                await server_life(await server.handshake())

    async def ask(client: Any, n: int, *, idempotent: bool) -> str:
        name = "again" if idempotent else "once"
        try:
            assert await client.request(name, n, idempotent=idempotent, timeout=8) == n
        except DisconnectedError:
            assert not idempotent
            return "lost"
        except RemoteError as error:
            if error.code != "unavailable" or idempotent:
                raise
            # It has crossed the notice of a server that then closed in order.
            return "refused"
        except RequestTimeoutError:
            # The reply was left out, and the connection stayed.
            return "late"
        return "answered"

    async with serve() as server:
        serving = asyncio.ensure_future(run_server())
        client = connect(server.url, backoff=0.002, max_backoff=0.01)
        asked: list[asyncio.Future[str]] = []
        async with client:
            for _ in range(STEPS):
                said += 1
                match chance.randrange(3):
                    case 0:
                        client.emit("say", said)
                    case 1:
                        asked.append(asyncio.ensure_future(ask(client, said, idempotent=False)))
                    case 2:
                        asked.append(asyncio.ensure_future(ask(client, said, idempotent=True)))
                await asyncio.sleep(chance.choice((0, 0, 0, 0.001, 0.005)))
            outcomes = await asyncio.gather(*asked)
        serving.cancel()
        await asyncio.wait((serving,))
    assert events == sorted(set(events))
    assert requests == sorted(set(requests))
    assert outcomes.count("answered") > len(outcomes) / 4
    assert len(client._core.answers) == 0
    assert len(client._outgoing) == 0
