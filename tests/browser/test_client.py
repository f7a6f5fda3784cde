"""The JavaScript client in Chromium, against Symphony in a process of its own."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from support.chromium import IN_CHROMIUM
from support.clients import until
from support.examples import EXAMPLES
from support.process import Running, launch, start

pytestmark = IN_CHROMIUM

expect.set_options(timeout=15_000)

Serve = Callable[[], AbstractAsyncContextManager[Running]]

APP = '''
import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from symphony import Reject, RemoteError, RequestTimeoutError, Socket, Symphony

app = Symphony()
events = app.route("/events")


def journal(line: object) -> None:
    """Write down what outlives the process."""
    with open("journal", "a") as file:
        print(line, file=file)


@events.on("echo")
async def echo(data: Any) -> Any:
    return data


@events.on("sum")
async def add(numbers: list[int]) -> int:
    return sum(numbers)


@events.on("say")
async def say(data: int) -> None:
    journal(data)


@events.on("tell")
async def tell(socket: Socket, data: Any) -> None:
    socket.emit("told", data)


@events.on("count")
async def count(to: int) -> AsyncIterator[int]:
    number = 0
    try:
        for number in range(1, to + 1):
            yield number
    finally:
        journal(f"count ended at {number} of {to}")


@events.on("stall")
async def stall() -> AsyncIterator[str]:
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        journal("stall ended")


@events.on("hold")
async def hold() -> None:
    journal("hold began")
    try:
        await asyncio.Event().wait()
    finally:
        journal("hold ended")


@events.on("ask")
async def ask(socket: Socket, event: str) -> list[Any]:
    try:
        return ["reply", await socket.request(event, {"a": 1}, timeout=0.5)]
    except RemoteError as error:
        return [error.code, error.message, error.details]
    except RequestTimeoutError:
        return ["timeout"]


@events.on("bye")
async def bye(socket: Socket, code: int) -> None:
    socket.close(code, "as you wish")


guarded = app.route("/guarded")
tokens = {"sesame": "Ali", "swordfish": "Harpo"}


@guarded.on_connect
async def enter(socket: Socket) -> None:
    name = tokens.get(socket.handshake.token or "")
    if name is None:
        raise Reject("unauthorized", "who are you?")
    if name == "Harpo":
        raise Reject("forbidden", "not you")


@guarded.on("who")
async def who(socket: Socket) -> str:
    # Once only.
    return tokens.pop(socket.handshake.token)


@app.route("/raw").on_message
async def repeat(message: str | bytes) -> str | bytes:
    return message
'''


@pytest.fixture
def serve(port: int, tmp_path: Path) -> Serve:
    (tmp_path / "app.py").write_text(APP)
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", "app.py", "--port", str(port))
    return lambda: launch(*command, cwd=tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    await page.close()
    assert problems == []


class Script:
    """JavaScript in a page of the server, with `client`, `states` and `told` at hand."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def __call__(self, body: str, argument: Any = None) -> Any:
        """Run the body of an async function of `it`; return what it returns, or its error as `[name, …]`."""
        return await self.page.evaluate(
            f"""async (it) => {{
                const run = async () => {{ {body} }};
                try {{
                    return await run();
                }} catch (error) {{
                    return [error.name, error.code ?? null, error.reason ?? error.message];
                }}
            }}""",
            argument,
        )

    async def state(self, state: str) -> None:
        """Wait until the client is in a state."""
        await self.page.wait_for_function("(state) => client.state === state", arg=state, polling=10)


async def connected(page: Page, server: Running, path: str = "/events", options: str = "{}") -> Script:
    """Go to the server's page, and make a client there."""
    await page.goto(server.address)
    script = Script(page)
    await script(
        """
        window.symphony = await import("/_symphony/client.js");
        window.states = [];
        window.told = [];
        """
    )
    await script(
        f"""
        window.client = symphony.connect(it, {options});
        client.onState((state) => states.push(state));
        client.on("told", (data) => told.push(data));
        """,
        path,
    )
    return script


async def journal(folder: Path, *lines: str) -> None:
    """Wait until the server has written exactly this."""
    file = folder / "journal"

    def written() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    with suppress(TimeoutError):
        await until(lambda: written() == list(lines), timeout=10)
    assert written() == list(lines)


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_session(serve: Serve, page: Page, tmp_path: Path, protocol: str) -> None:
    async with serve() as server:
        script = await connected(page, server, options=f"{{ protocol: '{protocol}' }}")
        assert await script("return client.request('sum', [1, 2, 3])") == 6
        assert await script("return [client.protocol, client.state, states]") == [
            f"symphony.v1.{protocol}",
            "open",
            ["connecting", "open"],
        ]
        assert await script("return client.request('echo', it)", {"a": [1, None, "žluť 🐎"]}) == {
            "a": [1, None, "žluť 🐎"]
        }
        assert await script("client.emit('tell', 7); await client.request('echo'); return told") == [7]
        assert await script("return client.request('sum', ['x'])") == [
            "RemoteError",
            "invalid",
            "Expected `int`, got `str`",
        ]
        assert await script("return client.request('sya')") == [
            "RemoteError",
            "not_found",
            "no handler for the event 'sya'",
        ]
        size = 600_000
        echoed = "const text = 'x'.repeat(it); return (await client.request('echo', text)) === text"
        assert await script(echoed, size)
        assert await script("await client.close(); return [client.state, client.closed]") == [
            "closed",
            {"code": 1000, "reason": "", "refusal": None},
        ]


async def test_bytes_and_instants_in_messagepack(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, options="{ protocol: 'msgpack' }")
        assert await script(
            """
            const [bytes, date, big] = await client.request(
                "echo", [new Uint8Array([0, 255]), new Date("2026-01-02T03:04:05.678Z"), 2n ** 60n]);
            return [bytes instanceof Uint8Array && [...bytes], date.toISOString(), String(big)];
            """
        ) == [[0, 255], "2026-01-02T03:04:05.678Z", str(2**60)]


async def test_a_raw_route(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, "/raw")
        assert await script(
            """
            client.send("text");
            client.send(new Uint8Array([1, 2]));
            client.send({ a: 1 });
            const came = [];
            for await (const message of client) {
                came.push(typeof message === "string" ? message : [...message]);
                if (came.length === 3) break;
            }
            return [client.protocol, came];
            """
        ) == ["raw", ["text", [1, 2], '{"a":1}']]
        assert await script("return client.request('x')") == [
            "WrongRouteError",
            None,
            "this route is raw and has no requests; use client.send()",
        ]


async def test_streams_come_whole_or_as_far_as_they_are_wanted(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    async with serve() as server:
        script = await connected(page, server)
        assert (
            await script(
                """
                let total = 0;
                for await (const number of client.stream("count", 10000, { credit: 10 })) total += number;
                return total;
                """
            )
            == 50005000
        )
        await journal(tmp_path, "count ended at 10000 of 10000")
        assert (
            await script(
                """
                for await (const number of client.stream("count", 10 ** 9, { credit: 4 })) {
                    if (number === 3) return number;
                }
                """
            )
            == 3
        )
        file = tmp_path / "journal"
        # It was granted again at the second item, and is no further than that allows.
        await page.wait_for_function("client.request('echo').then(() => true)")
        last = file.read_text().splitlines()[-1]
        assert re.fullmatch(r"count ended at [4-7] of 1000000000", last), last
        assert await script("for await (const item of client.stream('sum', [1]));") == [
            "RemoteError",
            "invalid",
            '"sum" answers with a reply: use client.request()',
        ]


async def test_a_signal_cancels_requests_and_streams(serve: Serve, page: Page, tmp_path: Path) -> None:
    async with serve() as server:
        script = await connected(page, server)
        asking = asyncio.ensure_future(
            script(
                """
                window.stop = new AbortController();
                return client.request("hold", null, { signal: stop.signal });
                """
            )
        )
        await journal(tmp_path, "hold began")
        await script("stop.abort()")
        assert (await asking)[0] == "AbortError"
        await journal(tmp_path, "hold began", "hold ended")
        reading = asyncio.ensure_future(
            script(
                """
                window.stop = new AbortController();
                const { signal } = stop;
                for await (const item of client.stream("stall", null, { signal })) window.item = item;
                """
            )
        )
        await page.wait_for_function("window.item === 'first'")
        await script("stop.abort()")
        assert (await reading)[0] == "AbortError"
        await journal(tmp_path, "hold began", "hold ended", "stall ended")
        assert await script("return client.request('hold', null, { signal: AbortSignal.timeout(20) })") == [
            "TimeoutError",
            23,
            "signal timed out",
        ]
        assert (await script("return client.request('hold', null, { timeout: 0.02 })"))[
            0
        ] == "RequestTimeoutError"
        # None of that has hurt the connection.
        assert await script("return [await client.request('sum', [1]), states]") == [
            1,
            ["connecting", "open"],
        ]


async def test_the_server_asks_the_page(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server)
        await script(
            """
            client.on("double", ({ a }) => a * 2);
            client.on("later", async ({ a }) => (await client.request("sum", [a, a])) + a);
            client.on("refuse", () => {
                throw new symphony.Reject("page.busy", "not now", { details: [1] });
            });
            client.on("slow", (data, { signal }) => new Promise((resolve) => {
                signal.onabort = () => { window.given_up = true; resolve() };
            }));
            """
        )
        for event, answer in (
            ("double", ["reply", 2]),
            ("refuse", ["page.busy", "not now", [1]]),
            ("nothing", ["not_found", "no handler for the event 'nothing'", {"event": "nothing"}]),
            ("slow", ["timeout"]),
        ):
            assert await script("return client.request('ask', it)", event) == answer
        assert await script("return window.given_up")


async def test_a_refusal_says_why_and_is_final(serve: Serve, page: Page) -> None:
    async with serve() as server:
        for path, token, refusal in (
            ("/guarded", "''", ["RefusedError", 4401, "who are you?"]),
            ("/guarded", "'swordfish'", ["RefusedError", 4403, "not you"]),
            ("/guarded", "() => 'wrong'", ["RefusedError", 4401, "who are you?"]),
            ("/nowhere", "null", ["RefusedError", 4404, None]),
        ):
            script = await connected(page, server, path, f"{{ token: {token}, backoff: 0 }}")
            name, code, reason = await script("await client.opened")
            assert [name, code, refusal[2] and reason] == refusal
            assert await script("return [client.state, client.closed.code]") == ["closed", code]
            assert (await script("client.emit('x')"))[0] == "DisconnectedError"


async def test_a_token_is_asked_for_anew_at_each_attempt(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, "/guarded", "{ token: 'sesame' }")
        assert await script("return client.request('who')") == "Ali"
        options = """{
            backoff: 0,
            token: async () => {
                window.asked = (window.asked ?? 0) + 1;
                return asked === 1 ? "old" : "sesame";
            },
        }"""
    async with serve() as server:
        script = await connected(page, server, "/guarded", options)
        assert await script("return [await client.request('who'), asked]") == ["Ali", 2]


async def test_the_close_code_decides_whether_it_comes_back(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, options="{ backoff: 0.01 }")
        await script("await client.opened; client.emit('bye', 4503)")
        await page.wait_for_function("states.join() === 'connecting,open,waiting,connecting,open'")
        await script("client.emit('bye', 4000)")
        await script.state("closed")
        assert await script("return client.closed") == {
            "code": 4000,
            "reason": "as you wish",
            "refusal": None,
        }


# Faults


async def test_a_killed_server_is_come_back_to_and_nothing_is_sent_twice(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    async with serve() as server:
        script = await connected(page, server, options="{ backoff: 0.1, maxBackoff: 0.5 }")
        await script("await client.opened; client.emit('say', 1); await client.request('echo')")
        asking = asyncio.ensure_future(script("return client.request('hold')"))
        await journal(tmp_path, "1", "hold began")
        again = asyncio.ensure_future(
            script("return client.request('echo', 'again', { idempotent: true, timeout: 30 })")
        )
        await page.evaluate("0")
        server.signal(signal.SIGKILL)
        await server.end()
        assert await asking == ["DisconnectedError", 1006, ""]
    await script("for (let n = 2; n <= 50; n++) client.emit('say', n)")
    waiting = asyncio.ensure_future(script("return client.request('echo', 'late', { timeout: 30 })"))
    assert (await script("return client.request('echo', 1, { timeout: 0.05 })"))[0] == "RequestTimeoutError"
    async with serve():
        await script.state("open")
        assert await waiting == "late"
        assert await again == "again"
        await script("client.emit('say', 51); await client.request('echo')")
        await journal(tmp_path, "1", "hold began", *map(str, range(2, 52)))
        states = await script("return states.join(' ')")
        assert re.fullmatch(r"connecting open waiting connecting( waiting connecting)* open", states), states
        assert await script(
            "client.emit('tell', 'still here'); await client.request('echo'); return told"
        ) == ["still here"]


async def test_a_server_that_stops_in_order_is_come_back_to_when_it_says_so(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, options="{ backoff: 0.01, maxBackoff: 0.05 }")
        await script("await client.opened; client.onState(() => (window.changed ??= performance.now()))")
        server.signal(signal.SIGTERM)
        assert await server.end() == (0, [])
    async with serve():
        await script.state("open")
        # `Limits.retry_after`.
        waited = await script("return performance.now() - changed")
        assert waited >= 1000


async def test_a_frozen_server_is_noticed_by_the_heartbeat_and_come_back_to(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    async with serve() as server:
        script = await connected(
            page, server, options="{ heartbeat: 0.5, backoff: 0.1, maxBackoff: 0.2, connectTimeout: 1 }"
        )
        await script("await client.opened; client.emit('say', 1); await client.request('echo')")
        server.signal(signal.SIGSTOP)
        asking = asyncio.ensure_future(script("return client.request('echo', null, { timeout: 30 })"))
        # 0.5 s of silence, and 1 s for an answer.
        assert await asking == ["DisconnectedError", 1006, "the server does not answer pings"]
        await script("for (let n = 2; n <= 10; n++) client.emit('say', n)")
        assert await script("return states[2]") == "waiting"
        server.signal(signal.SIGCONT)
        await script.state("open")
        await script("await client.request('echo')")
        await journal(tmp_path, *map(str, range(1, 11)))


async def test_a_network_that_comes_back_ends_a_long_wait(serve: Serve, page: Page, port: int) -> None:
    async with serve() as server:
        # Without the event `online` it would be back in half an hour or so.
        script = await connected(page, server, options="{ backoff: 3600, maxBackoff: 3600 }")
        await script("await client.opened")
    await script.state("waiting")
    await page.context.set_offline(True)
    async with serve():
        await page.context.set_offline(False)
        await script.state("open")
        assert await script("return client.request('sum', [1])") == 1


async def test_a_network_that_goes_is_noticed_before_the_next_heartbeat(serve: Serve, page: Page) -> None:
    async with serve() as server:
        script = await connected(page, server, options="{ heartbeat: 3, backoff: 0.1, maxBackoff: 0.5 }")
        await script("await client.opened")
        server.signal(signal.SIGSTOP)
        await script(
            "window.since = performance.now(); client.onState(() => (window.lost ??= performance.now()))"
        )
        # The page hears of it, asks at once, and gives up after half a heartbeat: else it
        # would do so after one and a half.
        await page.context.set_offline(True)
        await script.state("waiting")
        assert await script("return lost - since") < 3000
        await page.context.set_offline(False)
        server.signal(signal.SIGCONT)
        await script.state("open")


# The page among the examples


def log(page: Page) -> Locator:
    return page.get_by_role("log").locator("p")


async def test_the_page_of_the_examples(browser: Browser, port: int) -> None:
    env = {"PORT": str(port)}
    async with start(EXAMPLES / "clients" / "app.py", env=env) as server:
        pages: list[Page] = []
        problems: list[str] = []
        for name in ("Ada", "Ben"):
            page = await browser.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(f"{server.address}/?name={name}")
            await expect(page.get_by_role("status")).to_have_text(f"{name}, open")
            pages.append(page)
        ada, ben = pages
        await ada.get_by_label("Say").fill("hello, Ben")
        await ada.get_by_role("button", name="Send").click()
        await expect(log(ben)).to_have_text(["Ada: hello, Ben"])
        await ben.get_by_role("button", name="Who is here?").click()
        await expect(log(ben).last).to_have_text("Here: Ada, Ben")
        await ada.get_by_role("button", name="Poll").click()
        await ada.get_by_role("button", name="tea", exact=True).click()
        await ben.get_by_role("button", name="coffee", exact=True).click()
        await expect(log(ada).last).to_have_text('Votes: {"tea":1,"coffee":1}')
        await expect(ada.locator("#ballot")).to_be_hidden()
        await ben.get_by_role("button", name="Recite").click()
        await expect(log(ben).last).to_have_text("Could frame thy fearful symmetry?")
        await expect(ben.get_by_role("button", name="Stop")).to_be_disabled()
        await ben.get_by_role("button", name="Recite").click()
        await expect(log(ben).last).to_have_text("Tyger Tyger, burning bright,")
        await ben.get_by_role("button", name="Stop").click()
        await expect(log(ben).last).to_contain_text("AbortError")
        server.signal(signal.SIGKILL)
        await server.end()
        await expect(ada.get_by_role("status")).not_to_have_text("Ada, open")
        await ada.get_by_label("Say").fill("still there?")
        await ada.get_by_label("Say").press("Enter")
    async with start(EXAMPLES / "clients" / "app.py", env=env):
        await expect(log(ada).last).to_have_text("Ada: still there?")
        await expect(ben.get_by_role("status")).to_have_text("Ben, open")
    for page in pages:
        await page.close()
    assert problems == []
