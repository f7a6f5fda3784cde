"""A network that dies without a word, and one that breaks in the middle of words."""

import asyncio
import random
import time
from collections import Counter

import pytest

from faults.hosts import Host, Outcome
from faults.network import Cut, Forwarder
from faults.revenant import Revenant

HEARTBEAT = 0.3
GRACE = 1.0
# Once it was asked, it is not asked again before that has passed, however short the heartbeat.
BOUND = max(HEARTBEAT, GRACE) + GRACE
# For a busy machine.
SLACK = 1.0
MEGABYTE = 1_000_000


@pytest.mark.alone
@pytest.mark.timeout(30)
@pytest.mark.parametrize("uploads", [0, 10])
async def test_a_dead_network_is_noticed_and_lived_through(
    host: Host, server: Revenant, network: Forwarder, uploads: int
) -> None:
    subject = await host.open(
        network.url, heartbeat=HEARTBEAT, connect_timeout=1.0, backoff=0.1, max_backoff=0.1
    )
    await subject.emits("say", [1])
    await server.noted("say")
    network.go_dark()
    dark = time.time()
    for number in range(uploads):
        # More than the kernel takes: there is something to send all the time.
        assert (await subject.emit("upload", "x" * (MEGABYTE + number))).how == "done"
    asking = subject.request("ask", 2)
    noticed = (await subject.reach("waiting")).at
    # What the kernel takes is a sign of life, as long as it does.
    assert GRACE / 2 < noticed - dark < BOUND + (GRACE if uploads else 0) + SLACK
    await subject.emits("say", [3, 4])
    later = subject.request("ask", 5)
    # No attempt gets an answer.
    await subject.meet("connecting")
    subject.forget()
    await subject.meet("waiting")
    network.come_back()
    await subject.reach("open")
    assert (await later).value == 5
    assert (await subject.request("ask", 6)).value == 6
    # With uploads before it, in Python it was not sent yet: then it waited on.
    lost = await asking
    assert (lost.how, lost.value) in (("DisconnectedError", 1006), ("done", 2))
    sent = lost.how == "done"
    assert server.numbers("say", "ask") == [1, *([2] if sent else []), 3, 4, 5, 6]
    assert max(Counter(server.numbers("upload")).values(), default=1) == 1


@pytest.mark.timeout(60)
async def test_a_network_that_breaks_all_the_time_loses_some_and_doubles_nothing(
    host: Host, server: Revenant, network: Forwarder
) -> None:
    chance = random.Random(1)

    def cut() -> Cut:
        # From within the handshake on; often in the middle of a frame.
        way = chance.choice(("up", "up", "down"))
        return way, chance.randint(100, 1500 if way == "up" else 500), chance.choice(("fin", "rst"))

    subject = await host.open(network.url, backoff=0.01, max_backoff=0.03)
    network.next_cut = cut
    network.come_back()
    asked: dict[int, asyncio.Future[Outcome]] = {}
    for number in range(600):
        if number % 6:
            await subject.emits("say", [number])
        else:
            asked[number] = subject.request("ask", number, idempotent=number % 12 == 0, timeout=15)
        # The pace of it; the cuts go by bytes.
        await asyncio.sleep(chance.choice((0, 0, 0.002, 0.01)))
    network.next_cut = lambda: None
    network.come_back()
    outcomes = {number: await asking for number, asking in asked.items()}
    # Idempotent: it may be sent before the client knows of the last cut.
    assert (await subject.request("ask", 600, idempotent=True)).value == 600
    # What has reached it was handled when it has ended.
    await server.stop()

    assert network.cuts >= 10
    asks, says = Counter(server.numbers("ask")), Counter(server.numbers("say"))
    for number, outcome in outcomes.items():
        if outcome.how == "done":
            assert outcome.value == number
            assert asks[number] >= 1
        else:
            assert outcome.how == "DisconnectedError"
        if number % 12 == 0:
            assert outcome.how == "done"
        else:
            assert asks[number] <= 1
    assert max(says.values()) == 1
    # What was under way is lost with a connection, and no more than that.
    assert len(says) > 250
    # In order, but for what was sent again.
    by_connection: dict[int, list[int]] = {}
    for entry in server.journal("say", "ask"):
        if entry.data % 12:
            by_connection.setdefault(int(entry.by.split(".")[1]), []).append(entry.data)
    in_order = [number for _, numbers in sorted(by_connection.items()) for number in numbers]
    assert in_order == sorted(in_order)
