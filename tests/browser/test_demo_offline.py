"""The demo while the server or the network is away, and what was said meanwhile: unread messages."""

import re
import signal

import pytest
from playwright.async_api import expect

from browser.demo import Open, Run, Serve, all_have, log, members, room, say, status, unread
from support.chromium import IN_CHROMIUM
from support.process import Running

pytestmark = IN_CHROMIUM


# Bad days


async def stop(running: Running, number: signal.Signals) -> None:
    running.signal(number)
    code, output = await running.end()
    assert (code, output) == (0 if number == signal.SIGTERM else -number, [])


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
