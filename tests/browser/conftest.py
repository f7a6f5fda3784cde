"""One Chromium for all tests, a port that a server can come back to, and the demo."""

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, WebSocket, async_playwright, expect

from browser.demo import APP, REFUSED, SOCKETS, Open, Run, Serve, status
from support.chromium import CHROMIUM
from support.examples import load
from support.ports import free_port
from support.process import launch
from support.servers import serve_natively


@pytest.fixture
def port() -> int:
    return free_port()


# Playwright belongs to one event loop, so every test here runs on the session's. Starting
# Chromium takes longer than most of them; each opens contexts of its own, and closes them.
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture
def run(port: int) -> Run:
    """Run the demo in a process, which can be stopped, frozen and killed."""
    return lambda: launch(
        sys.executable, "-W", "error", "-m", "symphony", "run", str(APP), "--port", str(port)
    )


@pytest.fixture
def serve(port: int) -> Serve:
    """Serve the demo from the test's own process, which costs much less."""
    return lambda: serve_natively(load("demo/app.py").app, port=port)


@pytest_asyncio.fixture(loop_scope="session")
async def enter(browser: Browser, port: int) -> AsyncIterator[Open]:
    """Give a way to open tabs; *sent* collects what such a tab sends."""
    problems: list[str] = []
    strangers: list[str] = []
    profiles: list[BrowserContext] = []
    origin = f"http://127.0.0.1:{port}/"

    def is_expected(text: str) -> bool:
        # The client warns while the server is away, and about what it refuses.
        return bool(REFUSED.search(text)) or text.startswith("symphony: ")

    async def open_tab(name: str, sent: list[str] | None = None) -> Page:
        context = await browser.new_context()
        profiles.append(context)
        tab = await context.new_page()
        await tab.add_init_script(SOCKETS)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda said: None if is_expected(said.text) else problems.append(said.text))
        tab.on("request", lambda request: strangers.append(request.url))

        def watch(connection: WebSocket) -> None:
            if sent is not None:
                connection.on("framesent", lambda frame: sent.append(str(frame)))

        tab.on("websocket", watch)
        await tab.goto(origin)
        await tab.get_by_label("Your name").fill(name)
        await tab.get_by_role("button", name="Join").click()
        await expect(status(tab)).to_have_text("Connected")
        return tab

    yield open_tab
    for profile in profiles:
        await profile.close()
    assert problems == []
    assert {url for url in strangers if not url.startswith((origin, "data:"))} == set()
