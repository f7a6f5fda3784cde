"""The demo as its user sees it: tabs of a real browser on a process of its own."""

import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, WebSocket, expect

from support.examples import load
from support.process import Running, launch
from support.servers import serve_natively

CHROMIUM = Path("/usr/bin/chromium")
APP = Path(__file__).parents[2] / "examples" / "demo" / "app.py"

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    # A browser takes its time on a busy machine.
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        not CHROMIUM.exists() and os.environ.get("CI") != "true", reason=f"there is no {CHROMIUM}"
    ),
]

expect.set_options(timeout=15_000)


class Open(Protocol):
    """Open the page in a browser profile of its own and come in under a name."""

    def __call__(self, name: str, sent: list[str] | None = None) -> Awaitable[Page]: ...


Run = Callable[[], AbstractAsyncContextManager[Running]]
Serve = Callable[[], AbstractAsyncContextManager[str]]

# Remembers the page's connections, so that a test can hurt them.
SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...how) {
    super(...how);
    window.sockets.push(this);
  }
};
"""
# What a browser says of itself in the console while the server is away.
REFUSED = re.compile(
    r"^WebSocket connection to '.*' failed: |^Failed to load resource: net::ERR_CONNECTION_REFUSED"
)


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

    async def open_tab(name: str, sent: list[str] | None = None) -> Page:
        context = await browser.new_context()
        profiles.append(context)
        tab = await context.new_page()
        await tab.add_init_script(SOCKETS)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda said: problems.append(said.text) if not REFUSED.search(said.text) else None)
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


def status(tab: Page) -> Locator:
    return tab.get_by_role("status")


def log(tab: Page) -> Locator:
    return tab.get_by_role("log")


def typing(tab: Page) -> Locator:
    return tab.locator("#typing")


def line(tab: Page) -> Locator:
    return tab.get_by_label("Message", exact=True)


def members(tab: Page) -> Locator:
    return tab.get_by_role("region", name="Here now").get_by_role("listitem")


def room(tab: Page, name: str) -> Locator:
    return tab.get_by_role("navigation", name="Rooms").get_by_role("button", name=name)


async def say(tab: Page, text: str) -> None:
    await line(tab).fill(text)
    await line(tab).press("Enter")


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
        await expect(log(ada)).to_contain_text("Ben joined.")
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
        await expect(log(ben)).to_contain_text("Eve joined.")
        await say(eve, "only for the kitchen")
        # Ben has all that was sent before this, and Ada what is sent after it.
        await expect(log(ben)).to_contain_text("only for the kitchen")
        await expect(log(ben)).not_to_contain_text("only for the lobby")
        await room(eve, "lobby").click()
        await expect(log(ada)).to_contain_text("Eve left.Eve joined.")
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
        assert await ben.locator("#chat :is(main, #people) :is(img, i, b b)").count() == 0


async def test_a_message_of_ones_own_is_shown_at_once_and_once(run: Run, enter: Open) -> None:
    async with run() as running:
        ada = await enter("Ada")
        running.signal(signal.SIGSTOP)
        await say(ada, "is this on?")
        await expect(log(ada).locator(".text")).to_have_text(["is this on?"])
        await expect(log(ada).locator(".pending")).to_have_count(1)
        running.signal(signal.SIGCONT)
        await expect(log(ada).locator(".pending")).to_have_count(0)
        await expect(log(ada).locator(".text")).to_have_text(["is this on?"])


# Who types


async def test_tabs_see_that_somebody_types_until_he_pauses(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben, eve = await enter("Ada"), await enter("Ben"), await enter("Eve")
        await line(ada).press_sequentially("h")
        for tab in (ben, eve):
            await expect(typing(tab)).to_have_text("Ada is typing…")
        await line(ben).press_sequentially("h")
        await expect(typing(eve)).to_have_text("Ada and Ben are typing…")
        await expect(typing(ada)).to_have_text("Ben is typing…")
        for tab in (ada, ben, eve):
            await expect(typing(tab)).to_have_text("")
        assert await line(ada).input_value() == "h"


async def test_what_was_typed_is_typed_no_more_when_it_is_said_or_its_author_goes(
    serve: Serve, enter: Open
) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        # From here on it would be seen for ever.
        await ben.evaluate("window.setTimeout = () => 0")
        for leave in (lambda: line(ada).press("Enter"), room(ada, "garden").click):
            await line(ada).press_sequentially("hello")
            await expect(typing(ben)).to_have_text("Ada is typing…")
            await leave()
            await expect(typing(ben)).to_have_text("")


async def test_typing_is_told_once_a_second_at_most_and_never_kept(serve: Serve, enter: Open) -> None:
    async with serve():
        sent: list[str] = []
        since = time.monotonic()
        ada, ben = await enter("Ada", sent), await enter("Ben")
        await line(ada).press_sequentially("to be or not to be, that is the question", delay=40)
        await expect(typing(ben)).to_have_text("Ada is typing…")
        told = [frame for frame in sent if '"typing"' in frame]
        assert 1 <= len(told) <= time.monotonic() - since + 1
        eve = await enter("Eve")
        await expect(log(eve)).to_contain_text("You are in the lobby.")
        await expect(typing(eve)).to_have_text("")


async def test_typing_is_not_told_later_when_there_is_no_connection(serve: Serve, enter: Open) -> None:
    sent: list[str] = []
    async with serve():
        ada = await enter("Ada", sent)
    await expect(status(ada)).to_have_text("Offline, reconnecting")
    await line(ada).press_sequentially("anybody?")
    async with serve():
        await line(ada).press("Enter")
        await expect(status(ada)).to_have_text("Connected")
        await expect(log(ada).locator(".pending")).to_have_count(0)
    assert not [frame for frame in sent if '"typing"' in frame]


# Bad days


async def stop(running: Running, number: signal.Signals) -> None:
    running.signal(number)
    code, output = await running.end()
    assert (code, output) == (0 if number == signal.SIGTERM else -number, [])


async def all_have(tabs: list[Page], *texts: str) -> None:
    """Check that the tabs show exactly this, all of it said."""
    for tab in tabs:
        await expect(status(tab)).to_have_text("Connected")
        await expect(log(tab).locator(".said:not(.pending) .text")).to_have_text(list(texts))
        await expect(log(tab).locator(".pending, .failed")).to_have_count(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_the_server_is_survived_without_a_reload_and_nothing_typed_meanwhile_is_lost(
    run: Run, enter: Open, number: signal.Signals
) -> None:
    async with run() as running:
        ada, ben = await enter("Ada"), await enter("Ben")
        for tab in (ada, ben):
            await tab.evaluate("window.neverReloaded = true")
            await room(tab, "garden").click()
            await expect(log(tab)).to_contain_text("You are in the garden.")
        await say(ada, "before")
        await all_have([ada, ben], "before")
        await stop(running, number)
    for tab in (ada, ben):
        await expect(status(tab)).to_have_text("Offline, reconnecting")
    for n in range(5):
        await say(ada, f"Ada's {n}")
        await say(ben, f"Ben's {n}")
    await expect(status(ada)).to_have_text("Offline, 5 messages waiting")
    await expect(log(ada).locator(".text")).to_have_text(["before", *(f"Ada's {n}" for n in range(5))])
    async with run():
        for tab in (ada, ben):
            await expect(status(tab)).to_have_text("Connected")
            await expect(log(tab).locator(".text")).to_have_count(11)
            await expect(members(tab)).to_have_count(2)
            await expect(room(tab, "garden")).to_have_attribute("aria-current", "true")
        shown = await log(ada).locator(".text").all_text_contents()
        for name in ("Ada", "Ben"):
            assert [text for text in shown if name in text] == [f"{name}'s {n}" for n in range(5)]
        await say(ben, "after")
        await all_have([ada, ben], *shown, "after")
        assert shown[0] == "before"
        # Who comes now knows what this server knows.
        eve = await enter("Eve")
        await room(eve, "garden").click()
        await all_have([eve], *shown[1:], "after")
        for tab in (ada, ben):
            assert await tab.evaluate("window.neverReloaded")
            await expect(log(tab)).not_to_contain_text("Something went wrong")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_on_its_way_when_the_server_stopped_arrives_once(
    run: Run, enter: Open, number: signal.Signals
) -> None:
    """A server that stops in order may have said it, refused it, or not heard it any more."""
    async with run() as running:
        ada, ben = await enter("Ada"), await enter("Ben")
        running.signal(signal.SIGSTOP)
        for text in ("one", "two", "three"):
            await say(ada, text)
        # The tab has sent them; the server has not read them.
        await expect(status(ada)).to_have_text("Connected")
        running.signal(number)
        if number == signal.SIGTERM:
            running.signal(signal.SIGCONT)
        await running.end()
        await expect(status(ada)).to_contain_text("Offline")
        await say(ada, "four")
    async with run():
        await all_have([ada, ben], "one", "two", "three", "four")


async def test_what_was_said_before_an_answer_was_lost_is_not_said_again(serve: Serve, enter: Open) -> None:
    """The server has said it, but its author does not know: then he asks once more."""
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        # From here on Ada's tab hears nothing: what she says arrives all the same.
        await ada.evaluate("""() => {
            window.sockets.at(-1).onmessage = null;
        }""")
        await say(ada, "hello?")
        await expect(log(ben).locator(".text")).to_have_text(["hello?"])
        await expect(log(ada).locator(".pending")).to_have_count(1)
        await ada.evaluate("window.sockets.at(-1).close(4408)")
        await all_have([ada, ben], "hello?")
        await say(ada, "there you are")
        await all_have([ada, ben], "hello?", "there you are")


async def test_one_can_go_on_through_the_rooms_without_a_connection(run: Run, enter: Open) -> None:
    async with run() as running:
        ada, ben, eve = await enter("Ada"), await enter("Ben"), await enter("Eve")
        await room(eve, "kitchen").click()
        await expect(log(eve)).to_contain_text("You are in the kitchen.")
        await stop(running, signal.SIGKILL)
        await expect(status(ada)).to_contain_text("Offline")
        await say(ada, "to the lobby")
        await room(ada, "kitchen").click()
        await say(ada, "to the kitchen")
        await expect(log(ada).locator(".text")).to_have_text(["to the kitchen"])
    async with run():
        await all_have([ada, eve], "to the kitchen")
        await all_have([ben], "to the lobby")
        await expect(members(eve)).to_have_count(2)
        await expect(room(ben, "lobby")).to_have_accessible_name("lobby, 1 here")
        await room(ada, "lobby").click()
        await all_have([ada], "to the lobby")


async def test_who_comes_back_with_the_others_does_not_come_in(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
    for tab in (ada, ben):
        await expect(status(tab)).to_contain_text("Offline")
    async with serve():
        for tab in (ada, ben):
            await expect(log(tab)).to_contain_text("You are back.")
            await expect(members(tab)).to_have_count(2)
        await say(ada, "on we go")
        await all_have([ben], "on we go")
        await expect(log(ada).locator(".note")).to_have_text(
            ["You are in the lobby.", "Ben joined.", "You are back."]
        )


async def test_a_tab_that_is_loaded_again_is_who_it_was(run: Run, enter: Open) -> None:
    async with run() as running:
        ada, ben = await enter("Ada"), await enter("Ben")
        await room(ada, "library").click()
        await say(ada, "psst")
        await all_have([ada], "psst")
        await ada.reload()
        await all_have([ada], "psst")
        await expect(log(ada).locator(".said b")).to_have_text("You")
        await expect(members(ada)).to_have_text([re.compile(r"Ada \(you\)")])
        await expect(room(ben, "library")).to_have_accessible_name("library, 1 new, 1 here")
        await stop(running, signal.SIGKILL)
    async with run():
        await expect(status(ada)).to_have_text("Connected")
        await ada.reload()
        # A new server has heard nothing yet.
        await expect(log(ada)).to_contain_text("You are in the library.")
        await all_have([ada])


async def test_the_browser_asks_before_it_drops_what_waits(serve: Serve, enter: Open) -> None:
    async with serve():
        ada = await enter("Ada")
    await expect(status(ada)).to_contain_text("Offline")
    await say(ada, "wait for me")
    async with ada.expect_event("dialog") as asked:
        await ada.evaluate("setTimeout(() => location.reload())")
    dialog = await asked.value
    assert dialog.type == "beforeunload"
    await dialog.dismiss()
    async with serve():
        await all_have([ada], "wait for me")


async def test_a_name_that_the_server_refuses_is_asked_for_again(serve: Serve, enter: Open) -> None:
    async with serve():
        ada = await enter("Ada")
        await ada.evaluate("sessionStorage.setItem('name', 'x'.repeat(30))")
        await ada.reload()
        await expect(status(ada)).to_contain_text("Disconnected: ")
        await expect(status(ada)).to_contain_text("Reload the page.")
        await expect(ada.get_by_role("button", name="Send")).to_be_disabled()
        await ada.reload()
        await expect(ada.get_by_label("Your name")).to_be_visible()


# Unread messages


def unread(tab: Page, name: str) -> Locator:
    return room(tab, name).locator(".new")


async def test_a_message_in_another_room_is_counted_there_until_the_room_is_opened(
    serve: Serve, enter: Open
) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        await room(ben, "kitchen").click()
        await say(ben, "tea is ready")
        await expect(unread(ada, "kitchen")).to_have_text("1")
        await expect(ada.locator("#announcement")).to_have_text("New messages in the kitchen.")
        await say(ben, "and cake")
        await expect(unread(ada, "kitchen")).to_have_text("2")
        await expect(room(ada, "kitchen")).to_have_accessible_name("kitchen, 2 new, 1 here")
        await expect(ada).to_have_title("(2) lobby · Symphony chat")
        # Neither what you say nor what you see is unread.
        await expect(log(ben).locator(".pending")).to_have_count(0)
        await expect(ben).to_have_title("kitchen · Symphony chat")
        await room(ada, "kitchen").click()
        await expect(log(ada)).to_contain_text("and cake")
        await expect(unread(ada, "kitchen")).to_have_text("")
        await expect(ada).to_have_title("kitchen · Symphony chat")
        await expect(ada.locator("#announcement")).to_have_text("")
        await room(ada, "lobby").click()
        await say(ben, "come back")
        # What was read stays read.
        await expect(unread(ada, "kitchen")).to_have_text("1")


async def test_who_comes_for_the_first_time_has_nothing_unread(serve: Serve, enter: Open) -> None:
    async with serve():
        ada = await enter("Ada")
        await room(ada, "garden").click()
        await say(ada, "it rains")
        await all_have([ada], "it rains")
        ben = await enter("Ben")
        await expect(log(ben)).to_contain_text("You are in the lobby.")
        await expect(unread(ben, "garden")).to_have_text("")
        await say(ada, "it still rains")
        await expect(unread(ben, "garden")).to_have_text("1")


async def test_unread_messages_stay_unread_when_the_page_is_reloaded(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        await room(ben, "library").click()
        await say(ben, "psst")
        await expect(unread(ada, "library")).to_have_text("1")
        await ada.reload()
        await expect(unread(ada, "library")).to_have_text("1")
        await room(ada, "library").click()
        await expect(log(ada)).to_contain_text("psst")
        await room(ada, "lobby").click()
        await expect(log(ada)).to_contain_text("You are in the lobby.")
        await ada.reload()
        await expect(log(ada)).to_contain_text("You are in the lobby.")
        await expect(unread(ada, "library")).to_have_text("")


async def test_what_was_said_elsewhere_while_a_page_was_offline_is_unread(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        await room(ben, "kitchen").click()
        await expect(log(ben)).to_contain_text("You are in the kitchen.")
        # Ada's connection is deaf and then lost; meanwhile there is a message.
        await ada.evaluate("""() => {
            window.sockets.at(-1).onmessage = null;
        }""")
        await say(ben, "who is there?")
        await all_have([ben], "who is there?")
        await expect(unread(ada, "kitchen")).to_have_text("")
        await ada.evaluate("window.sockets.at(-1).close(4408)")
        await expect(unread(ada, "kitchen")).to_have_text("1")


# What the page is told while its tab is in the background.
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_the_title_counts_what_is_said_while_the_tab_is_hidden(serve: Serve, enter: Open) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("Ben")
        await ada.evaluate(HIDE, True)
        await say(ben, "in the lobby")
        await expect(ada).to_have_title("(1) lobby · Symphony chat")
        await room(ben, "garden").click()
        await say(ben, "in the garden")
        await expect(ada).to_have_title("(2) lobby · Symphony chat")
        await ada.evaluate(HIDE, False)
        await expect(ada).to_have_title("(1) lobby · Symphony chat")
        await expect(unread(ada, "lobby")).to_have_text("")
        await expect(unread(ada, "garden")).to_have_text("1")


# Windows of all sizes


async def test_by_keyboard_alone_one_can_join_and_write_and_change_the_room(
    serve: Serve, browser: Browser, port: int
) -> None:
    async with serve():
        tab = await browser.new_page()
        await tab.goto(f"http://127.0.0.1:{port}/")
        # The name is selected, so typing replaces it.
        await tab.keyboard.type("Ada")
        await tab.keyboard.press("Enter")
        await expect(status(tab)).to_have_text("Connected")
        await tab.keyboard.type("by hand")
        await tab.keyboard.press("Enter")
        await all_have([tab], "by hand")
        for name in ("library", "garden", "kitchen"):
            # Backwards from the line: the log, then the rooms.
            await expect(line(tab)).to_be_focused()
            for _ in range({"library": 2, "garden": 3, "kitchen": 4}[name]):
                await tab.keyboard.press("Shift+Tab")
            await expect(room(tab, name)).to_be_focused()
            assert await room(tab, name).evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
            await tab.keyboard.press("Enter")
            await expect(log(tab)).to_contain_text(f"You are in the {name}.")


# 320 x 256 is also a screen of 1280 x 1024 at a zoom of 400% (WCAG 2.2, 1.4.10).
SIZES = ((320, 256), (320, 568), (375, 667), (641, 800), (768, 1024), (1001, 700), (1280, 800))
PARTS = ("nav", "#people", "main", "#log", "#write", "header")
# How far the page and its parts can be scrolled sideways.
SIDEWAYS = """(parts) => [document.documentElement, ...parts.map((part) => document.querySelector(part))]
  .map((it) => it.scrollWidth - it.clientWidth)"""

BUTTONS = """() => [...document.querySelectorAll("#chat button")]
  .flatMap((it) => [it.offsetWidth, it.offsetHeight])"""


async def test_everything_can_be_reached_in_a_window_of_any_size_without_scrolling_sideways(
    serve: Serve, enter: Open
) -> None:
    async with serve():
        ada, ben = await enter("Ada"), await enter("W" * 24)
        await room(ben, "kitchen").click()
        await say(ben, "out of sight")
        await expect(unread(ada, "kitchen")).to_have_text("1")
        await room(ben, "lobby").click()
        await say(ben, "https://example.org/" + "long/" * 40)
        await expect(log(ada)).to_contain_text("long/")
        await expect(members(ada)).to_have_count(2)
        for width, height in SIZES:
            await ada.set_viewport_size({"width": width, "height": height})
            assert max(await ada.evaluate(SIDEWAYS, PARTS)) <= 0
            for target in (
                *(room(ada, name) for name in ("lobby", "kitchen", "garden", "library")),
                unread(ada, "kitchen"),
                members(ada).last,
                line(ada),
                ada.get_by_role("button", name="Send"),
            ):
                await target.scroll_into_view_if_needed()
                await expect(target).to_be_in_viewport(ratio=1)
            # A finger must be able to hit each button (WCAG 2.2, 2.5.8).
            assert min(await ada.evaluate(BUTTONS)) >= 24


async def test_the_first_screen_fits_into_320_pixels(serve: Serve, browser: Browser, port: int) -> None:
    async with serve():
        tab = await browser.new_page(viewport={"width": 320, "height": 480})
        await tab.goto(f"http://127.0.0.1:{port}/")
        root = "document.documentElement"
        assert await tab.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
        await expect(tab.get_by_role("button", name="Join")).to_be_in_viewport(ratio=1)
        # The mark was loaded, and is decoration to a screen reader.
        mark = tab.locator("#welcome img")
        await expect(mark).to_have_js_property("naturalWidth", 128)
        await expect(mark).to_have_attribute("alt", "")


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
