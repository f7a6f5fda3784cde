"""A server that is killed, stopped and cut off, behind a proxy that answers nonsense meanwhile."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable

import pytest

from faults.hosts import NodeHost, Outcome, Subject
from faults.network import Forwarder
from faults.revenant import Revenant
from support.sizes import size

CLIENTS = size(20, full=500)
SECONDS = size(6, full=60)
# Seconds between what one client says.
PACE = size(100, full=1000) / 1000
NONSENSE = (
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"",
)


@pytest.fixture
async def clients(node: None) -> AsyncIterator[NodeHost]:
    host = await NodeHost.start()
    yield host
    await host.aclose()


async def upset(server: Revenant, network: Forwarder, until: float) -> int:
    """Be hard on the server until then; return how often."""
    chance = random.Random(7)
    loop = asyncio.get_running_loop()
    times = 0
    while loop.time() < until:
        times += 1
        way = chance.choice(("kill", "stop", "cut"))
        if way == "cut":
            network.come_back()
        else:
            await (server.kill() if way == "kill" else server.stop())
            for text in chance.sample(NONSENSE, 3):
                network.answer(text)
                # How long each answer stands.
                await asyncio.sleep(0.1)
            await server.start()
            network.come_back()
        await asyncio.sleep(0.7)
    return times


class Talk:
    """What one client says and asks: numbers, each one higher than the one before."""

    def __init__(self, subject: Subject, number: int) -> None:
        self.subject = subject
        self.first = number * 1_000_000
        self.next = self.first
        self.said: list[int] = []
        self.taken: list[Awaitable[Outcome]] = []
        self.asked: dict[int, asyncio.Future[Outcome]] = {}

    def go_on(self) -> None:
        number = self.next
        self.next += 1
        if number % 5 == 0:
            event = "greet" if number % 10 == 0 else "ask"
            self.asked[number] = self.subject.request(event, number, timeout=120)
        else:
            self.said.append(number)
            self.taken.append(self.subject.emit("say", number))


@pytest.mark.timeout(size(90, full=240))
async def test_nothing_is_doubled_or_out_of_order_and_every_request_ends(
    clients: NodeHost, server: Revenant, network: Forwarder
) -> None:
    subjects = [
        clients.connect(network.url, backoff=0.05, max_backoff=0.5, connect_timeout=5) for _ in range(CLIENTS)
    ]
    for subject in subjects:
        assert (await subject.opened).how == "done"
    talks = [Talk(subject, number) for number, subject in enumerate(subjects)]
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    upsetting = asyncio.ensure_future(upset(server, network, end))
    while not upsetting.done():
        for talk in talks:
            talk.go_on()
            # All of them in one pace, not in one turn.
            await asyncio.sleep(PACE / CLIENTS)
    assert await upsetting >= 3

    # Now all is well, and everything that waits goes out.
    for talk in talks:
        last = await talk.subject.request("ask", talk.next, idempotent=True, timeout=60)
        assert (last.how, last.value) == ("done", talk.next)
    await server.stop()

    came: dict[tuple[int, ...], list[int]] = defaultdict(list)
    counts: Counter[int] = Counter()
    last_ones = {talk.next for talk in talks}
    for entry in server.journal("say", "ask", "greet"):
        if entry.data not in last_ones:
            came[tuple(map(int, entry.by.split(".")))].append(entry.data)
            counts[entry.data] += 1
    assert max(counts.values()) == 1, "something was handled twice"

    by_client: dict[int, list[int]] = defaultdict(list)
    for _, numbers in sorted(came.items()):
        # What was lost was written when a connection broke: there is no gap within one.
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        by_client[numbers[0] // 1_000_000] += numbers
    lost = 0
    for talk in talks:
        numbers = by_client[talk.first // 1_000_000]
        assert numbers == sorted(numbers)
        assert {(await taken).how for taken in talk.taken} == {"done"}
        lost += sum(number not in counts for number in talk.said)
        heard = talk.subject.heard
        assert heard == sorted(set(heard)), "an event of the server came twice, or too late"
        for number, asking in talk.asked.items():
            outcome = await asking
            if outcome.how == "done":
                assert counts[number] == 1
                assert outcome.value in (number, f"client {talk.first // 1_000_000}")
            else:
                assert outcome.how in ("DisconnectedError", "RemoteError"), outcome
        assert talk.subject.ended is None
    said = sum(len(talk.said) for talk in talks)
    print(f"{lost} of {said} events were on their way when a connection broke")
    assert lost < said / 4
