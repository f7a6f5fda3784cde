"""The vectors of `protocol/vectors/` that concern a client."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import symphony.errors
from client.scripted import Handshake, Peer, Server, serve
from support.clients import until
from symphony.client import Client, Position, Room, connect
from symphony.client.backoff import UNAUTHORIZED, Backoff, answer_comes_back, comes_back
from symphony.errors import Reject
from symphony.protocol.subprotocols import token_subprotocol
from symphony.testing import Clock
from wire.vectors import Ids, decoded, encoded, fits, load, named, plain, same

CLOSING = load("closing.json")
# "ping envelopes": this client sends pings of WebSocket.
CANNOT = {"ping envelopes"}
SPOKEN = "$spoken"
RECORDED = ("said", "noticed", "message", "error")


def named_cases(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases if not CANNOT & set(case.get("needs", ()))]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("conversation", named_cases(load("client.json")["conversations"]))
async def test_a_conversation(conversation: dict[str, Any], codec: str) -> None:
    async with serve() as server:
        run = Conversation(server, codec, conversation.get("options", {}), conversation.get("on_open", ()))
        run.clock = Clock.of_running_loop() if conversation.get("clock") else None
        try:
            for step in conversation["steps"]:
                try:
                    await run.step(step)
                except BaseException as error:
                    error.add_note(f"at the step {step}")
                    raise
        finally:
            await run.end()


class Conversation:
    """One conversation under way: server, client and its user."""

    def __init__(
        self, server: Server, codec: str, options: Mapping[str, Any], on_open: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.server = server
        self.codec = codec
        given = {"backoff": 0.01, "max_backoff": 0.05, **options}
        if "tokens" in given:
            given["token"] = iter(given.pop("tokens")).__next__
        self.client: Client = connect(server.url, protocol=codec, **given)
        # The handle of the room, or None for a handler of the client; the event; the data.
        self.handled: asyncio.Queue[tuple[Room | None, str, Any]] = asyncio.Queue()
        self.raw = False
        self.rooms: dict[str, Room] = {}
        self.iterations: dict[str, Any] = {}
        self.on_open = on_open
        self.register()
        self.begun = asyncio.Event()
        self.client.on_state(lambda state: self.begun.set())
        self.opening = asyncio.ensure_future(self.open())
        self.peer: Peer | None = None
        self.ids: Ids = {}
        self.tasks: dict[str, asyncio.Future[Any]] = {}
        self.streams: dict[str, Any] = {}
        self.beside: list[asyncio.Future[Any]] = []
        self.ended_at = 0.0
        self.clock: Clock | None = None

    def register(self) -> None:
        client = self.client
        for name in RECORDED:

            def record(data: Any, name: str = name) -> None:
                self.handled.put_nowait((None, name, data))

            client.on(name, record)
        client.on("name", lambda: "Ada")
        client.on("double", lambda data: data * 2)
        client.on("nothing", lambda: None)

        @client.on("refuse")
        def refuse(data: Any) -> None:
            raise Reject("test.refused", "no", details=data)

        @client.on("crash")
        def crash() -> None:
            raise ZeroDivisionError

        @client.on("slow")
        async def slow() -> None:
            await asyncio.Event().wait()

        @client.on("ask_back")
        async def ask_back(data: Any) -> Any:
            return await client.request("echo", data)

        if self.on_open:

            @client.on_open
            async def opened() -> None:
                for call in self.on_open:
                    await self.call(call)
                    if "as" in call:
                        await self.tasks[call["as"]]

        self.record = client._core.dispatch.handlers.of("message")[0].function

    async def open(self) -> BaseException | None:
        try:
            await self.client
        except symphony.errors.DisconnectedError as error:
            return error
        return None

    async def end(self) -> None:
        await self.client.close()
        self.opening.cancel()
        for task in (*self.tasks.values(), *self.beside):
            task.cancel()
        await asyncio.gather(self.opening, *self.tasks.values(), *self.beside, return_exceptions=True)

    async def step(self, step: dict[str, Any]) -> None:
        if "call" in step:
            await self.begun.wait()
            return await self.call(step)
        for name, does in (
            ("accept", self.accept),
            ("send", lambda envelope: self.peer.say(encoded(named(self.ids, envelope), self.codec))),
            ("send_text", lambda text: self.peer.say(text)),
            ("send_binary", lambda digits: self.peer.say(bytes.fromhex(digits))),
            ("receive", self.receive),
            ("receive_text", self.receive_raw),
            ("receive_binary", lambda digits: self.receive_raw(bytes.fromhex(digits))),
            ("close", self.close),
            ("drop", lambda _: self.drop()),
            ("closed", self.closed),
            ("result", lambda name: self.result(name, step["value"])),
            ("next", lambda name: self.next(name, step["value"])),
            ("ends", self.ends),
            ("raises", lambda name: self.raises(name, step["error"])),
            ("leave", self.leave),
            ("handled", lambda name: self.handles(step.get("room"), name, step["data"])),
            ("lost", lambda name: self.handles(name, "lost", step["position"])),
            ("joined", lambda name: self.joined(name, step)),
            ("ended", lambda name: self.ended(name, step["error"])),
            ("publication", lambda name: self.publication(name, step)),
            ("message", self.message),
            ("state", lambda state: until(lambda: self.client.state == state)),
            ("opened", self.opened),
            ("passes", self.passes),
        ):
            if name in step:
                await does(step[name])  # pyright: ignore
                return None
        match step:
            case {"refuse": {"status": status, **more}}:
                body = json.dumps(more["body"]).encode() if "body" in more else b""
                await self.server.refuse(status, more.get("headers"), body)
                self.ended_at = asyncio.get_running_loop().time()
            case {"differ": names}:
                assert len({self.ids[name] for name in names}) == len(names)
            case {"silence": True}:
                self.peer.silence()
            case {"same": names}:
                assert len({id(await self.wait(self.tasks[name])) for name in names}) == 1
            case {"position_of": name, "value": value}:
                await until(lambda: same(value, of_position(self.rooms[name].position)))
            case {"members_of": name, "value": value, "total": total}:
                presence = self.rooms[name].presence

                def is_shown() -> bool:
                    found = dict(presence) if presence.is_known else None
                    return (
                        found == value and list(found or ()) == list(value or ()) and presence.total == total
                    )

                await until(is_shown)
            case {"ask": name}:
                self.ask(name)
            case {"abort": name}:
                task = self.tasks.pop(name)
                task.cancel()
                await asyncio.wait((task,))
            case {"protocol": protocol}:
                assert self.client.protocol == self.spoken(protocol)
            case {"over": over}:
                found = self.client.closed
                assert found is not None
                assert found.code == over["code"]
                assert found.reason == over.get("reason", found.reason)
                if "refusal" in over:
                    self.is_refusal(found.refusal, over["refusal"])
            case _:
                raise AssertionError(step)
        return None

    def spoken(self, name: str | None) -> str | None:
        return f"symphony.v1.{self.codec}" if name == SPOKEN else name

    # The server's

    async def accept(self, how: dict[str, Any]) -> None:
        handshake: Handshake = await self.server.handshake()
        for offer in how.get("offers", ()):
            assert self.spoken(offer) in handshake.offers
        if "not_before" in how:
            assert handshake.arrived - self.ended_at >= how["not_before"]
        choice = self.spoken(how.get("subprotocol", SPOKEN))
        self.raw = choice is None or choice == "symphony.raw"
        if self.raw:
            self.client.off("message", self.record)
        self.peer = await handshake.accept(choice)

    async def receive(self, envelope: dict[str, Any]) -> None:
        came: Any = {"event": "error"}
        while came.get("event") == "error":
            came = decoded(await self.peer.receive_message(), self.codec)
        assert fits(envelope, came, self.ids), came

    async def receive_raw(self, message: str | bytes) -> None:
        assert await self.peer.receive_message() == message

    async def close(self, close: dict[str, Any]) -> None:
        self.ended_at = asyncio.get_running_loop().time()
        self.beside.append(asyncio.ensure_future(self.peer.close(close["code"], close["reason"])))

    async def drop(self) -> None:
        self.ended_at = asyncio.get_running_loop().time()
        await self.peer.drop()

    async def closed(self, close: dict[str, Any]) -> None:
        code, reason = await self.peer.closed()
        assert code == close["code"]
        assert reason == close.get("reason", reason)

    # The user's

    async def call(self, step: dict[str, Any]) -> None:
        client, data, options = self.client, plain(step.get("data")), step.get("options", {})
        match step["call"]:
            case "emit" | "send" as verb:
                arguments = (step["event"], data) if verb == "emit" else (data,)
                if "raises" in step:
                    with pytest.raises(getattr(symphony.errors, step["raises"]["type"])):
                        getattr(client, verb)(*arguments)
                else:
                    getattr(client, verb)(*arguments)
            case "request":
                self.tasks[step["as"]] = asyncio.ensure_future(client.request(step["event"], data, **options))
            case "stream":
                self.streams[step["as"]] = client.stream(step["event"], data, **options)
                self.ask(step["as"])
            case "join":
                join = self.join(step["as"], step["room"], options, iterate=step.get("iterate", False))
                self.tasks[step["as"]] = asyncio.ensure_future(join)
            case "publish":
                publication = self.publish(step["room"], step["event"], data, options)
                self.tasks[step["as"]] = asyncio.ensure_future(publication)
            case "history":
                self.tasks[step["as"]] = asyncio.ensure_future(self.history(step["room"], options))
            case "count":
                self.tasks[step["as"]] = asyncio.ensure_future(self.rooms[step["room"]].count())
            case "leave":
                self.tasks[step["as"]] = asyncio.ensure_future(self.rooms[step["room"]].leave())
            case "close":
                arguments = [step[name] for name in ("code", "reason") if name in step]
                self.beside.append(asyncio.ensure_future(client.close(*arguments)))
        # What was called begins when the loop gets its turn.
        await asyncio.sleep(0)

    async def join(self, name: str, room: str, options: dict[str, Any], *, iterate: bool) -> Room:
        options = dict(options)
        if isinstance(options.get("since"), dict):
            options["since"] = Position(**options["since"])
        handle = await self.client.join(room, **options)
        known = handle in self.rooms.values()
        self.rooms[name] = handle
        if iterate:
            self.iterations[name] = aiter(handle)
        elif not known:
            for event in ("said", "noticed", "snapshot"):

                def record(data: Any, event: str = event) -> None:
                    self.handled.put_nowait((handle, event, data))

                handle.on(event, record)

            @handle.on_lost
            def lost(position: Position) -> None:
                self.handled.put_nowait((handle, "lost", of_position(position)))

        return handle

    async def publish(self, room: str, event: str, data: Any, options: dict[str, Any]) -> Any:
        return of_position(await self.rooms[room].emit(event, data, **options))

    async def history(self, room: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        options = dict(options)
        if "before" in options:
            options["before"] = Position(**options["before"])
        return [
            {
                "event": each.event,
                "data": each.data,
                "position": of_position(each.position),
                "replaces": of_position(each.replaces),
            }
            for each in await self.rooms[room].history(**options)
        ]

    async def joined(self, name: str, expected: dict[str, Any]) -> None:
        room = await self.wait(asyncio.shield(self.tasks[name]))
        if "position" in expected:
            assert same(expected["position"], of_position(room.position))
        if "recovered" in expected:
            assert room.recovered is expected["recovered"]

    async def ended(self, name: str, expected: dict[str, Any]) -> None:
        await until(lambda: self.rooms[name].ended is not None)
        self.fails(self.rooms[name].ended, {"type": "RemoteError", **expected})

    async def publication(self, name: str, expected: dict[str, Any]) -> None:
        came = await self.wait(anext(self.iterations[name]))
        assert came.event == expected["event"]
        assert same(plain(expected["data"]), came.data)
        assert same(expected["position"], of_position(came.position))
        assert same(expected.get("replaces"), of_position(came.replaces))

    async def result(self, name: str, value: Any) -> None:
        assert same(plain(value), await self.wait(self.tasks[name]))

    def ask(self, name: str) -> asyncio.Future[Any]:
        if name not in self.tasks:
            self.tasks[name] = asyncio.ensure_future(anext(self.streams[name]))
        return self.tasks[name]

    async def next(self, name: str, value: Any) -> None:
        asked = self.ask(name)
        del self.tasks[name]
        assert same(plain(value), await self.wait(asked))

    async def ends(self, name: str) -> None:
        if name in self.iterations:
            with pytest.raises(StopAsyncIteration):
                await self.wait(anext(self.iterations[name]))
            return
        with pytest.raises(StopAsyncIteration):
            await self.wait(self.ask(name))
        del self.tasks[name]

    async def raises(self, name: str, expected: dict[str, Any]) -> None:
        asked = self.ask(name) if name in self.streams else self.tasks[name]
        if name in self.iterations:
            asked = anext(self.iterations[name])
        error = await self.wait(asyncio.gather(asked, return_exceptions=True))
        self.fails(error[0], expected)

    async def leave(self, name: str) -> None:
        if name in self.tasks:
            asked = self.tasks.pop(name)
            asked.cancel()
            await asyncio.wait((asked,))
        await self.streams[name].aclose()

    async def handles(self, room: str | None, name: str, data: Any) -> None:
        handle, handled, came = await self.wait(self.handled.get())
        assert (handle, handled) == (self.rooms[room] if room else None, name)
        assert same(plain(data), came)

    async def message(self, message: Any) -> None:
        assert await self.wait(anext(self.client)) == plain(message)

    async def opened(self, expected: dict[str, Any]) -> None:
        self.fails(await self.wait(asyncio.shield(self.opening)), expected)

    async def passes(self, seconds: float) -> None:
        await (asyncio.sleep(seconds) if self.clock is None else self.clock.advance(seconds))

    @staticmethod
    async def wait(awaitable: Any) -> Any:
        async with asyncio.timeout(5):
            return await awaitable

    @staticmethod
    def fails(error: Any, expected: dict[str, Any]) -> None:
        expected = dict(expected)
        assert isinstance(error, getattr(symphony.errors, expected.pop("type"))), error
        if "refusal" in expected:
            Conversation.is_refusal(error.refusal, expected.pop("refusal"))
        for name, value in expected.items():
            assert same(plain(value), getattr(error, name)), (name, error)

    @staticmethod
    def is_refusal(error: Any, expected: dict[str, Any] | None) -> None:
        if expected is None:
            assert error is None
        else:
            Conversation.fails(error, {"type": "RemoteError", **expected})


def of_position(position: Position | None) -> dict[str, Any] | None:
    return None if position is None else {"epoch": position.epoch, "offset": position.offset}


@pytest.mark.parametrize("vector", CLOSING["close_codes"], ids=lambda vector: str(vector["code"]))
def test_a_close_code(vector: dict[str, Any]) -> None:
    assert then(vector["code"], comes_back(vector["code"])) == vector["then"]


@pytest.mark.parametrize("vector", CLOSING["http_statuses"], ids=lambda vector: str(vector["status"]))
def test_an_http_status(vector: dict[str, Any]) -> None:
    status = vector["status"]
    assert then(4000 + status, answer_comes_back(status)) == vector["then"]


def then(code: int, again: bool) -> str:
    if code == UNAUTHORIZED:
        return "new token"
    return "comes back" if again else "stays away"


@pytest.mark.parametrize("vector", CLOSING["delays"], ids=str)
def test_a_delay(vector: dict[str, Any]) -> None:
    for bound in (0, 1):
        backoff = Backoff(
            vector["backoff"], vector["max_backoff"], lambda low, high, bound=bound: (low, high)[bound]
        )
        for _ in range(vector["failed"]):
            backoff.next()
        if vector["retry"] is not None:
            backoff.hint(vector["retry"])
        assert backoff.next() == pytest.approx((vector["from"], vector["to"])[bound])


@pytest.mark.parametrize("vector", load("handshake.json")["tokens"], ids=lambda vector: vector["token"])
def test_a_token(vector: dict[str, Any]) -> None:
    assert token_subprotocol(vector["token"]) == vector["subprotocol"]


def test_every_refusal_of_the_vectors_is_one_that_this_client_offers_to_hear() -> None:
    offers = {"symphony.v1.json", "symphony.v1.msgpack", "symphony.raw", "symphony.refuse"}
    for vector in load("handshake.json")["refusals"]:
        others = {offer for offer in vector["offers"] if not offer.startswith("symphony.token.")}
        assert others <= offers
