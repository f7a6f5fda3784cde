"""One Chromium for all tests, and a port that a server can come back to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from support.ports import free_port

CHROMIUM = Path("/usr/bin/chromium")


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
