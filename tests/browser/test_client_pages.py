"""The JavaScript client in pages that come and go, in Chromium, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from support.chromium import IN_CHROMIUM
from support.servers import serve_natively
from symphony import Limits, Reject, Socket, Symphony

pytestmark = IN_CHROMIUM


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    yield page
    await page.close()


def lobby(said: list[Any], gone: asyncio.Event | None = None) -> Symphony:
    """Return an app where one has to join before one may say something."""
    app = Symphony(limits=Limits(max_message_bytes=100_000))
    route = app.route("/lobby")

    @route.on("join")
    async def join(socket: Socket) -> None:
        await socket.join("lobby")

    @route.on("say")
    async def say(socket: Socket, data: Any) -> None:
        if "lobby" not in socket.rooms:
            raise Reject("forbidden", "join first")
        said.append(data if not isinstance(data, str) or len(data) < 100 else len(data))

    @route.on("restart")
    async def restart(socket: Socket) -> None:
        socket.close(1012, "restart")

    @route.on_disconnect
    async def left(socket: Socket) -> None:
        if gone is not None:
            gone.set()

    return app


async def test_what_is_said_offline_comes_after_joining_again(page: Page) -> None:
    """A browser cannot follow `async` functions, so the client has to know its own answers."""
    said: list[Any] = []
    async with serve_natively(lobby(said)) as url:
        await page.goto(url.replace("ws", "http", 1))
        errors = await page.evaluate("""async () => {
            const { connect } = await import("/_symphony/client.js");
            const client = connect("/lobby", { backoff: 0.01 });
            const errors = [];
            client.on("error", ({ code }) => errors.push(code));
            const join = async () => { await client.request("join"); };
            client.onOpen(async () => { await join(); client.emit("say", "hello"); });
            client.onOpen(async ({ request, emit }) => {
                await fetch("/_symphony/client.js");
                await request("join");
                emit("say", "fetched");
            });
            client.emit("say", "early");
            await client.opened;
            const reached = (wanted) => new Promise((resolve) => {
                const off = client.onState((state) => state === wanted && (off(), resolve()));
            });
            const lost = reached("waiting");
            client.emit("restart");
            await lost;
            client.emit("say", "offline");
            await reached("open");
            await client.request("join");
            await client.close();
            return errors;
        }""")
    assert errors == []
    assert said == ["hello", "fetched", "early", "hello", "fetched", "offline"]


async def test_what_is_too_large_fails_before_it_is_sent(page: Page) -> None:
    said: list[Any] = []
    async with serve_natively(lobby(said)) as url:
        await page.goto(url.replace("ws", "http", 1))
        results = await page.evaluate("""async () => {
            const { connect } = await import("/_symphony/client.js");
            const client = connect("/lobby");
            await client.request("join");
            client.emit("say", "x".repeat(99_000));
            const failures = [];
            for (const data of ["x".repeat(100_001), "é".repeat(60_000), { long: "x".repeat(200_000) }]) {
                try { client.emit("say", data); } catch (error) { failures.push(error.name); }
            }
            // Queued, before the client knows what the next server takes.
            const other = connect("/lobby");
            other.request("say", "x".repeat(150_000)).catch((error) => failures.push(error.name));
            await other.request("join");
            await other.close();
            await client.request("join");
            failures.push(client.state);
            await client.close();
            return failures;
        }""")
    assert results == [*["MessageTooLargeError"] * 4, "open"]
    assert said == [99_000]


async def test_a_page_that_is_left_closes_and_comes_back(page: Page) -> None:
    """The events are the page's own: Playwright switches the back/forward cache off."""
    said: list[Any] = []
    gone = asyncio.Event()
    async with serve_natively(lobby(said, gone)) as url:
        await page.goto(url.replace("ws", "http", 1))
        await page.evaluate("""async () => {
            const { connect } = await import("/_symphony/client.js");
            self.client = connect("/lobby");
            client.onOpen(() => client.request("join"));
            await client.opened;
            dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
            client.emit("say", "away");
        }""")
        async with asyncio.timeout(20):
            await gone.wait()
        assert await page.evaluate("client.state") == "waiting"
        assert said == []
        await page.evaluate("""async () => {
            dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
            await client.request("join");
            await client.close();
        }""")
    assert said == ["away"]


RELATIVE = """const { connect } = await import(server + "/_symphony/client.js");
    const client = connect("/lobby");
    await client.request("join");
    report(client.state);
    await client.close();"""


@pytest.mark.parametrize("place", ["page", "blob worker", "frame without a URL"])
async def test_a_relative_url_is_of_the_server_of_the_page(page: Page, place: str) -> None:
    async with serve_natively(lobby([])) as url:
        http = url.replace("ws", "http", 1)
        await page.goto(http)
        state = await page.evaluate(
            """([server, place, program]) => new Promise((resolve) => {
                const body = (report) => `{ const server = ${JSON.stringify(server)};
                    const report = ${report};
                    (async () => { ${program} })().catch((error) => report(String(error))); }`;
                if (place === "page") {
                    self.report = resolve;
                    (0, eval)(body("self.report"));
                } else if (place === "blob worker") {
                    const blob = new Blob([body("postMessage")], { type: "text/javascript" });
                    const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
                    worker.onmessage = ({ data }) => resolve(data);
                } else {
                    self.report = resolve;
                    const frame = document.createElement("iframe");
                    frame.srcdoc = `<script>${body("parent.report")}</` + "script>";
                    document.body.append(frame);
                }
            })""",
            [http, place, RELATIVE],
        )
    assert state == "open"


async def test_a_full_room_lets_a_player_in_when_there_is_a_seat(page: Page) -> None:
    app = Symphony()
    app.rooms("game:{id}", max_members=1)
    route = app.route("/game/{id}")

    @route.on_connect
    async def sit(socket: Socket, id: str) -> None:
        await socket.join(f"game:{id}")

    async with serve_natively(app) as url:
        await page.goto(url.replace("ws", "http", 1))
        states = await page.evaluate("""async () => {
            const { connect } = await import("/_symphony/client.js");
            const first = connect("/game/1");
            await first.opened;
            const second = connect("/game/1", { backoff: 0.01 });
            const states = [];
            const waited = new Promise((resolve) => second.onState((state) => {
                states.push(state);
                if (state === "waiting") resolve();
            }));
            await waited;
            await first.close();
            await second.opened;
            states.splice(1, states.length - 2);
            await second.close();
            return states;
        }""")
    assert states == ["connecting", "open", "closed"]


async def test_a_path_that_is_wrong_is_told_on_the_console(page: Page) -> None:
    async with serve_natively(Symphony()) as url:
        await page.goto(url.replace("ws", "http", 1))
        # Nobody listens there.
        async with page.expect_console_message(lambda message: "symphony: " in message.text) as logged:
            await page.evaluate("""async () => {
                const { connect } = await import("/_symphony/client.js");
                self.client = connect("ws://127.0.0.1:9/chat?secret=1", { backoff: 0.01 });
            }""")
        warning = await logged.value
        assert warning.type == "warning"
        assert "could not connect to ws://127.0.0.1:9/chat: " in warning.text
        assert "mount path" in warning.text
        await page.evaluate("client.close()")


async def test_a_wrong_path_of_a_server_ends_the_client_with_its_error(page: Page) -> None:
    async with serve_natively(lobby([])) as url:
        await page.goto(url.replace("ws", "http", 1))
        failed = await page.evaluate("""async () => {
            const { connect } = await import("/_symphony/client.js");
            const client = connect("/loby");
            const failure = await client.opened.catch((error) => error);
            return [failure.name, failure.code, failure.status, (await client.waitClosed()).code];
        }""")
    assert failed == ["RefusedError", 4404, None, 4404]
