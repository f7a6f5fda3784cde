"""The demo with two processes, as `make demo PROCESSES=2` serves it, and while these are killed."""

import os
import signal

import pytest
from playwright.async_api import Page, expect

from browser.demo import APP, Open, all_have, log, members, room, say, status
from support.chromium import IN_CHROMIUM
from support.fleets import workers

pytestmark = [*IN_CHROMIUM, pytest.mark.timeout(120)]


async def shown(tab: Page) -> list[str]:
    return await log(tab).locator(".text").all_text_contents()


async def test_two_processes_serve_one_chat(port: int, enter: Open) -> None:
    async with workers(APP, 2, "--port", str(port)):
        tabs = [await enter(name) for name in ("Ada", "Ben", "Cleo", "Dan")]
        for number, tab in enumerate(tabs):
            await say(tab, f"line {number}")
            await all_have(tabs, *(f"line {n}" for n in range(number + 1)))
            await expect(members(tab)).to_have_count(4)
            await expect(room(tab, "lobby")).to_have_accessible_name("lobby, 4 here")
        # Whatever process it meets.
        await tabs[0].reload()
        await all_have(tabs, *(f"line {n}" for n in range(4)))
        await room(tabs[3], "garden").click()
        await expect(log(tabs[0])).to_contain_text("Dan left.")
        for tab in tabs[:3]:
            await expect(room(tab, "lobby")).to_have_accessible_name("lobby, 3 here")
        await expect(room(tabs[0], "garden")).to_have_accessible_name("garden, 1 here")


async def test_when_the_processes_are_killed_nothing_is_lost_or_shown_twice_and_nobody_leaves(
    port: int, enter: Open
) -> None:
    async with workers(APP, 2, "--port", str(port)) as fleet:
        tabs = [await enter(name) for name in ("Ada", "Ben", "Cleo", "Dan")]
        for tab in tabs:
            await expect(members(tab)).to_have_count(4)
        notes = [await log(tab).locator(".note").all_text_contents() for tab in tabs]
        for number, pid in enumerate(fleet.first):
            os.kill(pid, signal.SIGKILL)
            for tab in tabs:
                await say(tab, f"{number}: {tabs.index(tab)}")
            for tab in tabs:
                await expect(status(tab)).to_have_text("Connected")
                await expect(log(tab).locator(".said:not(.pending)")).to_have_count(4 * number + 4)
        # Those that were on another process were never offline.
        for tab, before in zip(tabs, notes, strict=True):
            now = await log(tab).locator(".note").all_text_contents()
            assert {*now[len(before) :]} <= {"You are back."}
            await expect(members(tab)).to_have_count(4)
        lines = await shown(tabs[0])
        assert sorted(lines) == [f"{number}: {n}" for number in range(2) for n in range(4)]
        await all_have(tabs, *lines)
