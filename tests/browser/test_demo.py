"""The demo as its user sees it: tabs of a real browser."""

import re
import signal
import time

from playwright.async_api import Browser, expect

from browser.demo import Open, Run, Serve, all_have, line, log, members, room, say, status, typing, unread
from support.chromium import IN_CHROMIUM

pytestmark = IN_CHROMIUM


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
