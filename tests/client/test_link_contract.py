"""A client over a link that the test makes: the contract in `link.py`, and what goes wrong inside."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.clients import until
from symphony.client.client import Client
from symphony.client.link import Close, DialError, Listener, Offer
from symphony.client.options import Options
from symphony.errors import DisconnectedError, QueueFullError, RefusedError


class FakeLink:
    """The smallest link."""

    def __init__(self, subprotocol: str | None = "symphony.v1.json") -> None:
        self.subprotocol = subprotocol
        self.congested = False
        self.sent: list[str | bytes] = []
        self.listener: Listener | None = None
        self.reading = True
        self.gone = asyncio.Event()

    def start(self, listener: Listener) -> None:
        self.listener = listener

    def send(self, message: str | bytes) -> None:
        self.sent.append(message)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        self.end(Close(code, reason, clean=True))

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self.end, Close(1006, "", clean=False))

    def end(self, close: Close) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.closed(close)
        self.gone.set()

    async def wait_closed(self) -> None:
        await self.gone.wait()


class FakeDial:
    where = "memory:/chat"

    def __init__(self, dial: Callable[[Offer], Any]) -> None:
        self._dial = dial
        self.links: list[FakeLink] = []

    async def __call__(self, offer: Offer) -> FakeLink:
        link = self._dial(offer)
        self.links.append(link)
        return link


def make(dial: Callable[[Offer], Any] = lambda offer: FakeLink(), **options: Any) -> tuple[Client, FakeDial]:
    fake = FakeDial(dial)
    return Client(fake, Options(**{"backoff": 0.0, **options})), fake


async def test_a_client_lives_over_any_link() -> None:
    client, dial = make()
    async with client:
        client.emit("say", 1)
        dial.links[0].listener.received('{"event":"x"}')
        dial.links[0].end(Close(1012, "", clean=True))
        await until(lambda: client.state == "open" and len(dial.links) == 2)
    assert dial.links[0].sent == ['{"event":"say","data":1}']
    assert repr(client) == "<Client memory:/chat closed>"


async def test_what_a_congested_link_does_not_take_waits_and_goes_in_order() -> None:
    client, dial = make(max_queue=3)
    async with client:
        link = dial.links[0]
        link.congested = True
        asking = asyncio.ensure_future(client.request("ask", timeout=0.02))
        await asyncio.sleep(0)
        drained = asyncio.ensure_future(_wait(client.emit("say", 1)))
        client.emit("say", 2)
        with pytest.raises(
            TimeoutError,
            match=r"'ask' was not sent to memory:/chat within 0.02 s: the server reads too slowly",
        ):
            await asking
        client.emit("say", 3)
        assert link.sent == []
        link.congested = False
        link.listener.relieved()
        assert link.sent == [f'{{"event":"say","data":{n}}}' for n in (1, 2, 3)]
        await drained


async def _wait(awaitable: Any) -> None:
    await awaitable


async def test_what_is_new_while_the_server_stops_counts_like_what_is_said_without_a_connection() -> None:
    client, dial = make(max_queue=2)
    client.on("double", lambda data: data * 2)
    async with client:
        link = dial.links[0]
        link.congested = True
        client.emit("say", 1)
        link.listener.received('{"retry":0}')
        # Awaited or not: this connection will never take it.
        await client.emit("say", 2)
        with pytest.raises(QueueFullError, match=r"2 messages are queued .*: the server stops\."):
            await client.emit("say", 3)
        with pytest.raises(QueueFullError):
            await client.request("ask")
        with pytest.raises(QueueFullError):
            await anext(client.stream("ask"))
        link.listener.received('{"event":"double","data":1,"id":1}')
        link.congested = False
        link.listener.relieved()
        await until(lambda: link.sent)
        link.listener.received('{"event":"double","data":2,"id":2}')
        await until(lambda: len(link.sent) == 2)
        assert link.sent == ['{"reply":1,"data":2}', '{"reply":2,"data":4}']
        link.end(Close(1012, "", clean=True))
        await until(lambda: len(dial.links) == 2 and len(dial.links[1].sent) == 2)
        assert dial.links[1].sent == ['{"event":"say","data":1}', '{"event":"say","data":2}']


async def test_a_cancel_goes_behind_what_waits_and_never_to_another_connection() -> None:
    client, dial = make()
    async with client:
        link = dial.links[0]
        asking = asyncio.ensure_future(client.request("ask"))
        await asyncio.sleep(0)
        link.congested = True
        client.emit("say", 1)
        asking.cancel()
        await asyncio.wait((asking,))
        assert len(link.sent) == 1
        link.congested = False
        link.listener.relieved()
        assert link.sent[1:] == ['{"event":"say","data":1}', '{"cancel":1}']
        asking = asyncio.ensure_future(client.request("ask"))
        await asyncio.sleep(0)
        link.congested = True
        client.emit("say", 2)
        asking.cancel()
        await asyncio.wait((asking,))
        link.end(Close(1006, "", clean=False))
        await until(lambda: len(dial.links) == 2 and dial.links[1].sent)
        assert dial.links[1].sent == ['{"event":"say","data":2}']


async def test_a_link_that_is_congested_from_the_start_gets_what_it_takes() -> None:
    def dial(offer: Offer) -> FakeLink:
        link = FakeLink()
        link.congested = True
        return link

    client, links = make(dial)

    @client.on_state
    def use(state: str) -> None:
        if state == "connecting":
            client.emit("say", 1)

    async with client:
        assert links.links[0].sent == []
    # At the end everything goes, congested or not.
    assert links.links[0].sent == ['{"event":"say","data":1}']


async def test_a_dial_that_fails_by_mistake_ends_the_client_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, _ = make(lambda offer: 1 / 0)
    with pytest.raises(DisconnectedError, match="The client of memory:/chat has failed: ZeroDivisionError"):
        await client
    assert client.closed == Close(1011, "", clean=False)
    assert "Traceback" in caplog.text


async def test_a_dial_error_is_told_with_its_cause() -> None:
    def dial(offer: Offer) -> FakeLink:
        raise DialError(4403, "ask her", reason="no", again=False) from KeyError("inside")

    client, _ = make(dial)
    with pytest.raises(RefusedError) as caught:
        await client
    assert (caught.value.code, caught.value.reason) == (4403, "no")
    assert str(caught.value) == "memory:/chat refused the connection: ask her."
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_token_that_is_no_text_is_an_error_of_the_attempt() -> None:
    client, _ = make(token=lambda: 5, connect_timeout=0.05)
    with pytest.raises(
        DisconnectedError, match=r"token\(\) raised TypeError\('a token must be a string, not int'\)"
    ):
        await client


async def test_the_offer_is_what_the_options_say() -> None:
    offers: list[Offer] = []

    def dial(offer: Offer) -> FakeLink:
        offers.append(offer)
        return FakeLink("symphony.v1.msgpack")

    client, _ = make(dial, protocol="msgpack", headers={"a": "b"}, subprotocols=("mine",), token="t")
    async with client:
        assert client.protocol == "symphony.v1.msgpack"
    assert offers[0].headers == {"a": "b"}
    assert list(offers[0].subprotocols) == [
        *("mine", "symphony.limits", "symphony.v1.msgpack"),
        *("symphony.token.dA", "symphony.refuse", "symphony.raw"),
    ]


def test_a_loop_that_ends_under_an_open_client_leaves_nothing() -> None:
    """As with Ctrl+C, or a program that forgets to close."""
    links: list[FakeLink] = []
    began: list[str] = []

    async def wait() -> None:
        began.append("x")
        await asyncio.Event().wait()

    async def forget() -> None:
        client, dial = make()
        await client
        links.extend(dial.links)
        client.on("x", wait)
        links[0].listener.received('{"event":"x"}')
        links[0].listener.received('{"event":"x","id":1}')
        asyncio.ensure_future(client.request("never")).add_done_callback(lambda done: done.cancelled())
        await until(lambda: len(began) == 2 and any("never" in message for message in links[0].sent))

    asyncio.run(forget())
    assert links[0].gone.is_set() or links[0].listener is not None
