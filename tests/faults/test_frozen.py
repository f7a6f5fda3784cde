"""SIGSTOP: a server whose kernel takes everything, and that says nothing; and SIGCONT."""

import asyncio
import time
from collections import Counter

import pytest

from faults.hosts import Host
from faults.revenant import Revenant

HEARTBEAT = 0.3
# What a client gives a server to answer, at the least.
GRACE = 1.0
# Once it was asked, it is not asked again before that has passed, however short the heartbeat.
BOUND = max(HEARTBEAT, GRACE) + GRACE
# For a busy machine.
SLACK = 1.0

pytestmark = [pytest.mark.alone, pytest.mark.timeout(30)]


async def test_a_frozen_server_is_noticed_and_come_back_to_and_nothing_is_sent_twice(
    host: Host, server: Revenant
) -> None:
    subject = await host.open(
        server.url, heartbeat=HEARTBEAT, connect_timeout=1.0, backoff=0.1, max_backoff=0.1
    )
    await subject.emits("say", [1, 2])
    await server.noted("say", 2)
    frozen = time.time()
    server.freeze()
    # On its way, and then nobody knows where.
    await subject.emits("say", [3, 4])
    asking = subject.request("ask", 5)
    again = subject.request("ask", 6, idempotent=True)
    noticed = (await subject.reach("waiting")).at
    assert GRACE / 2 < noticed - frozen < BOUND + SLACK
    lost = await asking
    assert (lost.how, lost.value) == ("DisconnectedError", 1006)
    assert lost.at - noticed < 0.5
    await subject.emits("say", [7, 8])
    later = subject.request("ask", 9)
    # Nobody answers the handshake either: attempts are given up in their time.
    await subject.meet("connecting")
    subject.forget()
    waiting = await subject.meet("waiting")
    assert waiting.at - noticed < 0.1 + 1.0 + SLACK
    server.thaw()
    await subject.reach("open")
    for asked, value in ((again, 6), (later, 9), (subject.request("ask", 10), 10)):
        answer = await asked
        assert (answer.how, answer.value) == ("done", value)
    # What stood in the kernel was handled before.
    await server.noted("left", 1)
    says, asks = Counter(server.numbers("say")), Counter(server.numbers("ask"))
    assert says == {1: 1, 2: 1, 3: says[3], 4: says[4], 7: 1, 8: 1}
    assert max(says[3], says[4], asks[5]) <= 1
    assert 1 <= asks[6] <= 2
    assert asks == {5: asks[5], 6: asks[6], 9: 1, 10: 1}
    last = server.journal("say")[-1].by
    assert [entry.data for entry in server.journal("say", "ask") if entry.by == last] == [6, 7, 8, 9, 10]


async def test_a_server_that_was_frozen_for_less_than_it_may_be_is_kept(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, heartbeat=HEARTBEAT)
    server.freeze()
    asking = subject.request("ask", 1)
    # As long as the fault lasts: there is a ping in it, and not the end.
    await asyncio.sleep(HEARTBEAT + GRACE / 2)
    server.thaw()
    assert (await asking).value == 1
    assert subject.states == ""
    assert len(server.journal("connect")) == 1
