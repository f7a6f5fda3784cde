"""SIGTERM: a server that says goodbye, and when to come back."""

import asyncio

import pytest

from faults.hosts import Host
from faults.revenant import RETRY, Revenant

pytestmark = [pytest.mark.alone, pytest.mark.timeout(30)]


async def test_a_client_comes_back_when_the_server_has_asked_it_to(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, backoff=0.05, max_backoff=0.05)
    answer = await subject.request("greet", 1)
    assert (answer.how, answer.value) == ("done", "client 0")
    await server.stop()
    waiting = await subject.reach("waiting")
    await subject.emits("say", [2, 3])
    await server.start()
    await subject.reach("open")
    # The new server was there long before.
    assert subject.states == "waiting connecting open"
    assert RETRY < subject.when("connecting")[0].at - waiting.at < RETRY + 0.05 + 0.5
    assert (await subject.request("greet", 4)).value == "client 0"
    assert subject.heard == [1, 4]
    assert server.numbers("say") == [2, 3]
    # The notice was for that one time.
    subject.forget()
    await server.kill()
    waiting = await subject.meet("waiting")
    await server.start()
    await subject.reach("open")
    assert subject.when("connecting")[0].at - waiting.at < RETRY


async def test_it_closes_with_1012(host: Host, server: Revenant) -> None:
    # To whom any end is the last, it shows.
    subject = await host.open(server.url, reconnect=False)
    await server.stop()
    await subject.reach("closed")
    assert subject.ended is not None
    assert subject.ended[0] == 1012


async def test_what_is_under_way_is_answered_before(host: Host, server: Revenant) -> None:
    """Its handlers have their time, and what they do not finish is answered: to be asked again later."""
    subject = await host.open(f"{server.url}/beside", backoff=0.05, max_backoff=0.05)
    asking = subject.request("hold", 1)
    again = subject.request("hold", 2, idempotent=True)
    streaming = subject.stream("tick", 3)
    await server.noted("hold", 2)
    await server.noted("tick")
    await server.stop()
    outcome = await asking
    assert (outcome.how, outcome.value) == ("RemoteError", "unavailable")
    ended = await streaming
    assert (ended.how, ended.value) == ("RemoteError", [0, 1, 2])
    await server.start()
    await subject.reach("open")
    assert subject.states == "waiting connecting open"
    # What does no harm twice is not refused, but asked of the next server.
    assert (await again)[:2] == ("done", 2)
    assert (await subject.request("hold", 3)).value == 3
    assert (await subject.stream("tick", 3)).value == [0, 1, 2]
    assert server.numbers("hold") == [1, 2, 2, 3]


async def test_what_is_said_to_a_server_that_stops_is_done_by_the_next(host: Host, server: Revenant) -> None:
    """Between its notice and its close it takes nothing more, and the client keeps what is new."""
    subject = await host.open(f"{server.url}/beside", backoff=0.05, max_backoff=0.05)
    holding = subject.request("hold", 1)
    await server.noted("hold")
    stopping = asyncio.ensure_future(server.stop())
    # Until it has heard the notice, the answer is that there is no such event.
    while (await subject.request("nothing", 0, timeout=0.1)).value == "not_found":
        pass
    await subject.emits("say", [1, 2])
    asking = subject.request("hold", 2)
    again = subject.request("hold", 3, idempotent=True)
    streaming = subject.stream("tick", 3)
    await stopping
    assert (await holding).value == "unavailable"
    await server.start()
    assert (await asking)[:2] == ("done", 2)
    assert (await again)[:2] == ("done", 3)
    assert (await streaming).value == [0, 1, 2]
    await subject.reach("open")
    assert server.numbers("say") == [1, 2]
    assert server.numbers("hold") == [1, 2, 3]
