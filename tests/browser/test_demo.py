"""The demo as its user sees it: tabs of a real browser on a process of its own."""

import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from support.process import Running, launch

CHROMIUM = Path("/usr/bin/chromium")
APP = Path(__file__).parents[2] / "examples" / "demo" / "app.py"

pytestmark = [
    # A browser takes its time on a busy machine.
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        not CHROMIUM.exists() and os.environ.get("CI") != "true", reason=f"there is no {CHROMIUM}"
    ),
]

expect.set_options(timeout=15_000)

Open = Callable[[str], Awaitable[Page]]
Serve = Callable[[], AbstractAsyncContextManager[Running]]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def serve(port: int) -> Serve:
    return lambda: launch(
        sys.executable, "-W", "error", "-m", "symphony", "run", str(APP), "--port", str(port)
    )


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def enter(browser: Browser, port: int) -> AsyncIterator[Open]:
    """Open the page in a browser profile of its own and come in under a name."""
    problems: list[str] = []
    strangers: list[str] = []
    origin = f"http://127.0.0.1:{port}/"

    async def open_tab(name: str) -> Page:
        context = await browser.new_context()
        tab = await context.new_page()
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: strangers.append(request.url))
        await tab.goto(origin)
        await tab.get_by_label("Your name").fill(name)
        await tab.get_by_role("button", name="Come in").click()
        await expect(status(tab)).to_have_text("Connected")
        return tab

    yield open_tab
    assert problems == []
    assert {url for url in strangers if not url.startswith((origin, "data:"))} == set()


def status(tab: Page) -> Locator:
    return tab.get_by_role("status")


def log(tab: Page) -> Locator:
    return tab.get_by_role("log")


def members(tab: Page) -> Locator:
    return tab.get_by_role("region", name="Here now").get_by_role("listitem")


def room(tab: Page, name: str) -> Locator:
    return tab.get_by_role("navigation", name="Rooms").get_by_role("button", name=name)


async def say(tab: Page, text: str) -> None:
    await tab.get_by_label("Message", exact=True).fill(text)
    await tab.get_by_label("Message", exact=True).press("Enter")


async def test_two_tabs_talk_to_each_other(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        await say(ada, "hello Ben")
        await expect(log(ben)).to_contain_text("hello Ben")
        await say(ben, "hello Ada")
        await expect(log(ada)).to_contain_text("hello Ada")
        await expect(log(ada).locator(".text")).to_have_text(["hello Ben", "hello Ada"])
        await expect(log(ada).locator(".said b")).to_have_text(["You", "Ben"])
        await expect(log(ben).locator(".text")).to_have_text(["hello Ben", "hello Ada"])


async def test_tabs_see_each_other_come_and_go(serve: Serve, enter: Open) -> None:
    async with serve():
        ada = await enter("Ada")
        await expect(members(ada)).to_have_text([re.compile(r"Ada \(you\)")])
        ben = await enter("Ben")
        await expect(log(ada)).to_contain_text("Ben came in.")
        await expect(members(ada)).to_have_text([re.compile(r"Ada \(you\)"), re.compile("Ben")])
        await expect(members(ben)).to_have_text([re.compile("Ada"), re.compile(r"Ben \(you\)")])
        await expect(room(ada, "lobby")).to_have_accessible_name("lobby, 2 here")
        await ben.close()
        await expect(log(ada)).to_contain_text("Ben left.")
        await expect(members(ada)).to_have_text([re.compile(r"Ada \(you\)")])
        await expect(room(ada, "lobby")).to_have_accessible_name("lobby, 1 here")


async def test_what_is_said_in_one_room_stays_there(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben, eve = await enter("Ada"), await enter("Ben"), await enter("Eve")
        await room(ben, "kitchen").click()
        await expect(log(ben)).to_contain_text("You are in the kitchen.")
        await expect(log(ada)).to_contain_text("Ben left.")
        await expect(room(ben, "kitchen")).to_have_attribute("aria-current", "true")
        await say(ada, "only for the lobby")
        await expect(log(eve)).to_contain_text("only for the lobby")
        await room(eve, "kitchen").click()
        await expect(log(ben)).to_contain_text("Eve came in.")
        await say(eve, "only for the kitchen")
        # Ben has all that was sent before this, and Ada what is sent after it.
        await expect(log(ben)).to_contain_text("only for the kitchen")
        await expect(log(ben)).not_to_contain_text("only for the lobby")
        await room(eve, "lobby").click()
        await expect(log(ada)).to_contain_text("Eve left.Eve came in.")
        await expect(log(ada)).not_to_contain_text("only for the kitchen")


async def test_who_comes_later_reads_what_was_said(serve: Serve, enter: Open) -> None:
    async with serve():
        ada = await enter("Ada")
        await say(ada, "is anybody here?")
        await expect(log(ada)).to_contain_text("is anybody here?")
        ben = await enter("Ben")
        await expect(log(ben)).to_contain_text("is anybody here?")


async def test_markup_is_shown_as_it_was_written(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("<i>Ada</i>"), await enter("Ben")
        text = "<img src=x onerror='document.title=1'> & <b>bold</b>"
        await say(ada, text)
        await expect(log(ben).locator(".text")).to_have_text(text)
        await expect(log(ben).locator(".said b")).to_have_text("<i>Ada</i>")
        assert await ben.locator("#chat img, #chat i").count() == 0


async def test_a_restart_of_the_server_is_survived(serve: Serve, enter: Open) -> None:
    async with serve() as running:
        ada, ben = await enter("Ada"), await enter("Ben")
        for tab in (ada, ben):
            await room(tab, "garden").click()
            await expect(log(tab)).to_contain_text("You are in the garden.")
        await say(ada, "before")
        await expect(log(ben)).to_contain_text("before")
        running.signal(signal.SIGTERM)
        assert await running.end() == (0, [])
    for tab in (ada, ben):
        await expect(status(tab)).to_have_text("Connection lost, trying again…")
        await expect(tab.get_by_role("button", name="Send")).to_be_disabled()
    async with serve():
        for tab in (ada, ben):
            await expect(status(tab)).to_have_text("Connected")
            await expect(members(tab)).to_have_count(2)
        await say(ben, "after")
        await expect(log(ada).locator(".text")).to_have_text(["before", "after"])
        await expect(room(ada, "garden")).to_have_attribute("aria-current", "true")


async def test_on_a_phone_nothing_is_out_of_view(serve: Serve, enter: Open) -> None:
    """The line to write in was below the edge of the screen there."""
    async with serve():
        ada = await enter("Ada")
        await ada.set_viewport_size({"width": 390, "height": 700})
        for number in range(12):
            await say(ada, f"line {number} " + "and so on " * 20)
        await expect(log(ada)).to_contain_text("line 11")
        await expect(log(ada).locator(".text").last).to_be_in_viewport(ratio=1)
        await expect(ada.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
        for name in ("lobby", "library"):
            await expect(room(ada, name)).to_be_in_viewport(ratio=1)
        # Writing scrolls what is cut off into view, so it has to be asked for, too.
        cut_off = await ada.get_by_role("main").evaluate("it => it.scrollHeight - it.clientHeight")
        assert cut_off == 0
