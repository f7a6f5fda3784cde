"""SIGKILL, and a new server process at the same address."""

import re

import pytest

from faults.hosts import Host, Subject
from faults.revenant import Revenant
from support.clients import until

# Long enough for a state to be seen, short enough for a test.
QUICK = {"backoff": 0.1, "max_backoff": 0.2}

# A client that waits has lost the connection and knows it.
AWAY = re.compile(r"waiting( connecting waiting)*( connecting)?")
BACK = re.compile(r"waiting connecting( waiting connecting)* open")

pytestmark = pytest.mark.timeout(30)


async def kill(server: Revenant, *subjects: Subject) -> None:
    """Kill the server, and wait until the clients know."""
    await server.kill()
    for subject in subjects:
        await subject.meet("waiting")


async def revive(server: Revenant, *subjects: Subject) -> None:
    """Start the server again, and wait until the clients are back."""
    await server.start()
    for subject in subjects:
        await subject.reach("open")


async def test_the_states_are_told_in_order_and_handlers_go_on(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, **QUICK)
    for life in range(1, 4):
        answer = await subject.request("greet", life)
        assert (answer.how, answer.value) == ("done", "client 0")
        assert subject.heard == list(range(1, life + 1))
        await kill(server, subject)
        # An attempt fails too, at least one.
        await until(lambda: len(subject.when("waiting")) > 1)
        assert AWAY.fullmatch(subject.states)
        await revive(server, subject)
        assert BACK.fullmatch(subject.states)
        assert sorted(subject.moments, key=lambda moment: moment.at) == subject.moments
        subject.forget()
    assert subject.ended is None
    # One connection in each life.
    assert [entry.by for entry in server.journal("connect")] == ["1.1", "2.1", "3.1", "4.1"]


async def test_a_client_may_be_there_before_its_server(host: Host, server: Revenant) -> None:
    await server.kill()
    subject = host.connect(server.url, **QUICK)
    await subject.emits("say", [1, 2])
    asking = subject.request("ask", 3)
    await subject.meet("waiting")
    await subject.emits("say", [4])
    await revive(server, subject)
    assert (await subject.opened).how == "done"
    answer = await asking
    assert (answer.how, answer.value) == ("done", 3)
    await server.noted("say", 3)
    assert server.numbers("say", "ask") == [1, 2, 3, 4]


@pytest.mark.alone
async def test_what_was_under_way_is_not_sent_again_unless_it_may_be(host: Host, server: Revenant) -> None:
    subject = await host.open(f"{server.url}/beside", **QUICK)
    held = subject.request("hold", 1)
    again = [subject.request("hold", number, idempotent=True) for number in (2, 3)]
    await server.noted("hold", 3)
    await kill(server, subject)
    # At once: not when it is back.
    lost = await held
    assert (lost.how, lost.value) == ("DisconnectedError", 1006)
    assert lost.at - subject.when("waiting")[0].at < 0.5
    assert not any(asking.done() for asking in again)
    later = subject.request("hold", 4)
    await revive(server, subject)
    answers = [await asking for asking in [*again, later]]
    assert [(answer.how, answer.value) for answer in answers] == [("done", 2), ("done", 3), ("done", 4)]
    # Again in its place: before what was asked later.
    assert server.numbers("hold") == [1, 2, 3, 2, 3, 4]


async def test_what_is_asked_again_is_asked_only_while_it_has_time(host: Host, server: Revenant) -> None:
    subject = await host.open(f"{server.url}/beside", **QUICK)
    asking = subject.request("hold", 1, idempotent=True, timeout=0.8)
    await server.noted("hold")
    await kill(server, subject)
    assert (await asking).how == "RequestTimeoutError"
    await revive(server, subject)
    assert (await subject.request("hold", 2)).how == "done"
    assert server.numbers("hold") == [1, 2]


async def test_what_is_said_offline_arrives_once_in_order_and_first(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, **QUICK)
    await subject.emits("say", range(10))
    await server.noted("say", 10)
    await kill(server, subject)
    await subject.emits("say", range(10, 200))
    asking = subject.request("ask", 200)
    await subject.emits("say", range(201, 300))
    assert AWAY.fullmatch(subject.states)
    await revive(server, subject)
    await subject.emits("say", range(300, 310))
    answer = await asking
    assert (answer.how, answer.value) == ("done", 200)
    await server.noted("say", 309)
    # Everything before this was handled, so nothing comes twice later.
    assert (await subject.request("ask", 310)).value == 310
    assert server.numbers("say", "ask") == list(range(311))
    assert {entry.by for entry in server.journal("say")} == {"1.1", "2.1"}


async def test_what_has_no_time_left_offline_is_never_sent(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, request_timeout=0.5, **QUICK)
    await kill(server, subject)
    asking = [
        subject.request("ask", 1),
        subject.request("ask", 2, timeout=0.3),
        subject.request("ask", 3, timeout=0.3, idempotent=True),
    ]
    streaming = subject.stream("count", 4)
    for outcome in [await one for one in [*asking, streaming]]:
        assert outcome.how == "RequestTimeoutError"
    assert AWAY.fullmatch(subject.states)
    await revive(server, subject)
    assert (await subject.request("ask", 5, timeout=5)).value == 5
    assert server.numbers("ask") == [5]
    assert server.journal("count") == []


async def test_no_more_waits_than_may_and_none_of_it_is_lost(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, max_queue=5, **QUICK)
    await kill(server, subject)
    await subject.emits("say", range(4))
    asking = subject.request("ask", 4)
    for refused in (await subject.emit("say", 5), await subject.request("ask", 6)):
        assert refused.how == "QueueFullError"
    await revive(server, subject)
    assert (await asking).value == 4
    await subject.emits("say", [7])
    await server.noted("say", 5)
    assert server.numbers("say", "ask") == [0, 1, 2, 3, 4, 7]


async def test_a_stream_breaks_off_behind_its_items_and_one_offline_waits(
    host: Host, server: Revenant
) -> None:
    subject = await host.open(server.url, **QUICK)
    streaming = subject.stream("count", 5)
    await server.noted("count")
    while len(subject.items) < 5:
        await subject.request("ask", 0)
    await kill(server, subject)
    broken = await streaming
    assert (broken.how, broken.value) == ("DisconnectedError", [0, 1, 2, 3, 4])
    waiting = subject.stream("count", 3)
    await revive(server, subject)
    answer = await waiting
    assert (answer.how, answer.value) == ("done", [0, 1, 2])
    assert server.numbers("count") == [5, 3]
