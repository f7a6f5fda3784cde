"""How Chromium loads the client: on demand, in a worker, again after a failure, and from another origin."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from support.chromium import IN_CHROMIUM
from support.servers import serve_natively
from symphony import Symphony

MSGPACK = "**/_symphony/msgpack.js"

pytestmark = IN_CHROMIUM

ASK = """async ([server, protocol]) => {
    const { connect } = await import(`${server}/_symphony/client.js`);
    const client = connect(`${server}/echo`, { protocol, backoff: 0.01 });
    const reply = await client.request("echo", new Uint8Array([1, 2]));
    const said = [client.protocol, String(reply)];
    await client.close();
    return said;
}"""


def echoing(*origins: str) -> Symphony:
    app = Symphony(origins=origins)

    @app.route("/echo").on("echo")
    async def echo(data: Any) -> Any:
        return data

    return app


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    yield page
    await page.close()


async def test_only_who_asks_for_message_pack_loads_it(page: Page) -> None:
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
    async with serve_natively(echoing()) as url:
        http = url.replace("ws", "http", 1)
        await page.goto(http)
        assert await page.evaluate(ASK, [http, "json"]) == ["symphony.v1.json", "AQI="]
        assert "msgpack.js" not in loaded
        assert await page.evaluate(ASK, [http, "msgpack"]) == ["symphony.v1.msgpack", "1,2"]
        assert loaded.count("msgpack.js") == 1


@pytest.mark.parametrize("failure", ["offline", "404"])
async def test_a_module_that_could_not_be_loaded_is_asked_for_again(page: Page, failure: str) -> None:
    failures = 0

    async def fail_twice(route: Route) -> None:
        nonlocal failures
        failures += 1
        if failures > 2:
            await route.continue_()
        elif failure == "offline":
            await route.abort("internetdisconnected")
        else:
            await route.fulfill(status=404)

    await page.route(MSGPACK, fail_twice)
    async with serve_natively(echoing()) as url:
        http = url.replace("ws", "http", 1)
        await page.goto(http)
        assert await page.evaluate(ASK, [http, "msgpack"]) == ["symphony.v1.msgpack", "1,2"]
        assert failures == 3


async def test_a_worker_loads_it_too(page: Page) -> None:
    async with serve_natively(echoing()) as url:
        http = url.replace("ws", "http", 1)
        await page.goto(http)
        said = await page.evaluate(
            """(arguments_) => new Promise((resolve) => {
                const asked = JSON.stringify(arguments_[0]);
                const program = `(${arguments_[1]})(${asked}).then(postMessage, (error) => postMessage(`
                    + "`${error}`));";
                const url = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
                new Worker(url, { type: "module" }).onmessage = ({ data }) => resolve(data);
            })""",
            [[http, "msgpack"], ASK],
        )
        assert said == ["symphony.v1.msgpack", "1,2"]


async def test_a_page_of_another_origin_imports_it_if_it_may_connect(page: Page) -> None:
    """The pages come from a second server, on another port and so of another origin."""
    async with serve_natively(Symphony()) as shop:
        origin = shop.replace("ws", "http", 1)
        async with serve_natively(echoing(origin)) as friendly, serve_natively(echoing()) as strict:
            await page.goto(origin)
            asked = [friendly.replace("ws", "http", 1), "msgpack"]
            assert await page.evaluate(ASK, asked) == ["symphony.v1.msgpack", "1,2"]
            asked = [strict.replace("ws", "http", 1), "msgpack"]
            failed = f"({ASK})({asked}).catch((error) => String(error))"
            async with asyncio.timeout(10):
                assert "Failed to fetch dynamically imported module" in await page.evaluate(failed)
