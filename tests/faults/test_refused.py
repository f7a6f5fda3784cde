"""Ends for good: refusals that no other attempt would change, and tokens that are old."""

import pytest

from faults.hosts import Host, Outcome
from faults.revenant import Revenant
from support.clients import until

QUICK = {"backoff": 0.05, "max_backoff": 0.1}
FINAL = {"unauthorized": 4401, "forbidden": 4403, "not_found": 4404}

# The second is one of the first.
DISCONNECTED = ("DisconnectedError", "RefusedError")

pytestmark = pytest.mark.timeout(30)


def disconnected(outcome: Outcome) -> int:
    """Return the code that it has failed with."""
    assert outcome.how in DISCONNECTED
    return outcome.value


@pytest.mark.parametrize("code", FINAL)
async def test_a_refusal_at_first_is_the_end(host: Host, server: Revenant, code: str) -> None:
    server.tell("refuse", code)
    subject = host.connect(server.url, **QUICK)
    asking = subject.request("ask", 1)
    opened = await subject.opened
    assert (opened.how, opened.value) == ("RefusedError", FINAL[code])
    await subject.reach("closed")
    assert subject.ended == (FINAL[code], "by order")
    assert disconnected(await asking) == FINAL[code]
    # Nothing is left that could try again.
    await host.idle()
    assert len(server.journal("connect")) == 1


@pytest.mark.parametrize("code", FINAL)
async def test_a_refusal_on_coming_back_is_the_end(host: Host, server: Revenant, code: str) -> None:
    subject = await host.open(server.url, token="a token that never changes", **QUICK)
    server.tell("refuse", code)
    await server.kill()
    await subject.meet("waiting")
    asking = subject.request("ask", 1)
    streaming = subject.stream("count", 1)
    await subject.emits("say", [2])
    await server.start()
    await subject.reach("closed")
    assert subject.ended == (FINAL[code], "by order")
    for outcome in (await asking, await subject.request("ask", 3), await subject.emit("say", 4)):
        assert disconnected(outcome) == FINAL[code]
    assert (await streaming).how in DISCONNECTED
    assert " open" not in subject.states
    await host.idle()
    # One at the first server, one at the second.
    assert len(server.journal("connect")) == 2
    assert server.journal("say", "ask", "count") == []


async def test_an_old_token_is_replaced_by_a_new_one(host: Host, server: Revenant) -> None:
    server.tell("token", "new")
    subject = await host.open(server.url, tokens=["old", "new"], **QUICK)
    assert subject.asked == server.numbers("connect") == ["old", "new"]


async def test_a_token_is_asked_for_at_each_attempt(host: Host, server: Revenant) -> None:
    tokens = [f"token {number}" for number in range(100)]
    subject = await host.open(server.url, tokens=tokens, **QUICK)
    assert subject.asked == ["token 0"]
    await server.kill()
    # Some attempts fail.
    await subject.meet("waiting")
    await until(lambda: len(subject.asked) >= 4)
    await server.start()
    await subject.reach("open")
    assert subject.asked == tokens[: len(subject.asked)]
    assert len(subject.when("connecting")) == len(subject.asked) - 1
    assert server.numbers("connect") == ["token 0", subject.asked[-1]]


@pytest.mark.alone
async def test_a_token_that_has_grown_old_while_the_server_was_away(host: Host, server: Revenant) -> None:
    subject = await host.open(server.url, tokens=["first", "old", "new"], **QUICK)
    server.tell("token", "new")
    # It asks to be left alone until it is there again: no attempt fails.
    await server.stop()
    await server.start()
    await subject.reach("open")
    assert subject.states == "waiting connecting waiting connecting open"
    assert subject.asked == server.numbers("connect") == ["first", "old", "new"]


async def test_a_second_old_token_is_the_end(host: Host, server: Revenant) -> None:
    server.tell("token", "new")
    subject = host.connect(server.url, tokens=["old", "older", "new"], **QUICK)
    opened = await subject.opened
    assert (opened.how, opened.value) == ("RefusedError", 4401)
    await subject.reach("closed")
    assert subject.ended == (4401, "the token is old")
    await host.idle()
    assert subject.asked == server.numbers("connect") == ["old", "older"]
