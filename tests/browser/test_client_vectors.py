"""The vectors of the protocol, and the JavaScript client in Chromium."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from client.scripted import Peer, Server, serve
from support.chromium import IN_CHROMIUM
from support.pages import CLIENT
from support.servers import serve_natively
from symphony import Symphony
from wire.vectors import FOLDER, Ids, decoded, encoded, fits, load, named

FILES = {
    "/symphony.js": CLIENT,
    "/msgpack.js": CLIENT.with_name("msgpack.js"),
    "/vectors.js": Path(__file__).with_name("vectors.js"),
    "/envelopes.json": FOLDER / "envelopes.json",
}
# A page sees neither the answer to a handshake that failed nor, in numbers, whether they are
# integers; and a browser fails what has chosen none of its subprotocols.
CAN = {"bytes", "time", "nan", "int64", "ping envelopes", "rooms"}
SPOKEN = "$spoken"

pytestmark = [*IN_CHROMIUM, pytest.mark.timeout(120)]


async def file(request: Request) -> Response:
    path = FILES.get(request.url.path)
    return FileResponse(path) if path is not None else HTMLResponse("<!doctype html><title>Vectors</title>")


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that has imported the client."""
    # A local server, because browsers let only local pages connect to one.
    app = Symphony(http=Starlette(routes=[Route("/{path:path}", file)]))
    async with serve_natively(app) as url:
        page = await browser.new_page()
        await page.goto(url.replace("ws", "http", 1))
        await page.evaluate("async () => { window.vectors = await import('/vectors.js'); }")
        yield page
        await page.close()


async def test_its_codecs_write_and_read_every_envelope(page: Page) -> None:
    found = await page.evaluate(
        "async () => vectors.envelopes(await (await fetch('/envelopes.json')).json())"
    )
    assert found["problems"] == []
    assert found["checked"] > 100


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_it_holds_every_conversation(page: Page, codec: str) -> None:
    conversations = [
        conversation
        for conversation in load("client.json")["conversations"]
        if set(conversation.get("needs", ())) <= CAN
    ]
    problems: list[str] = []
    for conversation in conversations:
        async with serve() as server:
            try:
                async with asyncio.timeout(15):
                    await Conversation(page, server, codec, conversation).hold()
            except Exception as error:
                problems.append(f"{conversation['name']}: {error!r} {getattr(error, '__notes__', '')}")
    assert problems == []
    assert len(conversations) > 80


class Conversation:
    """One conversation: the server here, and its user in the page."""

    def __init__(self, page: Page, server: Server, codec: str, conversation: dict[str, Any]) -> None:
        self.page = page
        self.server = server
        self.codec = codec
        self.conversation = conversation
        self.ids: Ids = {}
        self.peer: Any = None
        self.beside: list[asyncio.Future[None]] = []
        self.ended_at = 0.0

    async def hold(self) -> None:
        steps = self.conversation["steps"]
        raw = any(step.get("accept", {}).get("subprotocol") == "symphony.raw" for step in steps)
        options = self.conversation.get("options", {})
        await self.page.evaluate(
            "(how) => { window.user = new vectors.User(...how); }",
            [self.server.url, self.codec, options, raw, self.conversation.get("on_open", [])],
        )
        try:
            for step in steps:
                try:
                    await self.step(step)
                except Exception as error:
                    error.add_note(f"at the step {step}")
                    raise
        finally:
            if self.peer is not None:
                self.peer.connection.transport.abort()
            await self.page.evaluate("() => user.close()")
            for task in self.beside:
                task.cancel()
            await asyncio.gather(*self.beside, return_exceptions=True)

    async def step(self, step: dict[str, Any]) -> None:
        what = next(name for name in step if name in SERVER or name in USER)
        if what in USER:
            await self.page.evaluate("([what, it, step]) => user[what](it, step)", [what, step[what], step])
        else:
            await getattr(self, what)(step[what])

    def spoken(self, name: str | None) -> str | None:
        return f"symphony.v1.{self.codec}" if name == SPOKEN else name

    def ends_now(self) -> None:
        self.ended_at = asyncio.get_running_loop().time()

    async def accept(self, how: dict[str, Any]) -> None:
        handshake = await self.server.handshake()
        for offer in how.get("offers", ()):
            assert self.spoken(offer) in handshake.offers
        assert handshake.arrived - self.ended_at >= how.get("not_before", 0)
        peer: Peer = await handshake.accept(self.spoken(how.get("subprotocol", SPOKEN)))
        self.peer = peer

    async def refuse(self, how: dict[str, Any]) -> None:
        await self.server.refuse(how["status"], how.get("headers"))
        self.ends_now()

    async def send(self, frame: dict[str, Any]) -> None:
        await self.peer.say(encoded(named(self.ids, frame), self.codec))

    async def send_text(self, text: str) -> None:
        await self.peer.say(text)

    async def send_binary(self, digits: str) -> None:
        await self.peer.say(bytes.fromhex(digits))

    async def receive(self, frame: dict[str, Any]) -> None:
        came: Any = {"event": "error"}
        while came.get("event") == "error":
            came = decoded(await self.peer.receive_message(), self.codec)
        assert fits(frame, came, self.ids), came

    async def receive_text(self, text: str) -> None:
        assert await self.peer.receive_message() == text

    async def receive_binary(self, digits: str) -> None:
        assert await self.peer.receive_message() == bytes.fromhex(digits)

    async def differ(self, names: list[str]) -> None:
        assert len({self.ids[name] for name in names}) == len(names)

    async def close(self, how: dict[str, Any]) -> None:
        self.ends_now()
        self.beside.append(asyncio.ensure_future(self.peer.close(how["code"], how["reason"])))

    async def drop(self, _: bool) -> None:
        self.ends_now()
        await self.peer.drop()

    async def silence(self, _: bool) -> None:
        self.peer.silence()

    async def closed(self, how: dict[str, Any]) -> None:
        code, reason = await self.peer.closed()
        assert (code, how.get("reason", reason)) == (how["code"], reason)

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SERVER = {
    *("accept", "refuse", "send", "send_text", "send_binary", "receive", "receive_text", "receive_binary"),
    *("differ", "close", "drop", "silence", "closed", "passes"),
}
USER = {
    *("call", "result", "next", "ask", "ends", "raises", "abort", "leave", "handled", "message"),
    *("state", "protocol", "opened", "over"),
    *("joined", "same", "position_of", "members_of", "ended", "publication", "lost"),
}
