"""Tabs in Chromium that chat on two workers: they see each other, and neither notices that one is killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from support.chromium import IN_CHROMIUM
from support.fleets import Fleet, workers

pytestmark = [*IN_CHROMIUM, pytest.mark.timeout(120)]

APP = '''
import os

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from symphony import Identity, Limits, Socket, Symphony

PAGE = """<!doctype html>
<title>Chat</title>
<script type="module">
import { connect } from "/_symphony/client.js";

const stored = (name) => JSON.parse(sessionStorage.getItem(name));
const seen = { members: [], said: stored("said") ?? [], lost: 0, left: 0 };
const client = connect("/chat/" + location.hash.slice(1), { backoff: 0.05, maxBackoff: 0.2 });
const room = await client.join("chat:lobby", { since: stored("position") });
// So that what comes while the page is loaded again is not missed.
sessionStorage.setItem("position", JSON.stringify(room.position));
const show = () => seen.members.push([...room.presence.keys()]);
show();
room.onPresence(show);
room.on("said", (text, { position }) => {
  seen.said.push(text);
  sessionStorage.setItem("said", JSON.stringify(seen.said));
  sessionStorage.setItem("position", JSON.stringify(position));
});
room.onLost(() => seen.lost++);
room.onLeft(() => seen.left++);

async function publish(count) {
  for (let number = 1; number <= count; number++) {
    await room.emit("said", number);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
window.chat = { client, room, seen, publish };
</script>"""


async def page(request):
    return HTMLResponse(PAGE)


app = Symphony(
    http=Starlette(routes=[Route("/", page)]), limits=Limits(drain_time=0.2, finish_timeout=1)
)
rooms = app.rooms("chat:{name}", presence=True, history=1000, client_join=True, grace=60)
chat = app.route("/chat/{user}")


@rooms.on_publish("said")
def said(data: int | str) -> None:
    pass


@chat.on_connect
def enter(socket: Socket, user: str) -> None:
    socket.login(Identity(user, {"name": user.title()}))


@chat.on("where")
def where() -> int:
    return os.getpid()
'''

Enter = Callable[[str], Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "chat_app.py"
    file.write_text(APP)
    async with workers(file, 2) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="session")
async def enter(browser: Browser, fleet: Fleet) -> AsyncIterator[Enter]:
    """Open a tab of a user, which joins the room."""
    profiles: list[BrowserContext] = []
    problems: list[str] = []

    async def open_tab(user: str) -> Page:
        profile = await browser.new_context()
        profiles.append(profile)
        tab = await profile.new_page()
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        await tab.goto(f"{fleet.running.address}/#{user}")
        await ready(tab)
        return tab

    yield open_tab
    for profile in profiles:
        await profile.close()
    assert problems == []


async def ready(tab: Page) -> None:
    await tab.wait_for_function("() => window.chat")


async def reload(tab: Page) -> None:
    await tab.reload()
    await ready(tab)


async def where(tab: Page) -> int:
    """Return the process of the worker that serves a tab."""
    return await tab.evaluate("() => chat.client.request('where', null, { idempotent: true })")


async def away_from(tab: Page, worker: int) -> int:
    """Reload a tab until another worker serves it."""
    for _ in range(30):
        if (found := await where(tab)) != worker:
            return found
        await reload(tab)
    raise AssertionError(f"Only the worker {worker} serves the tab.")


async def shows(tab: Page, *users: str) -> None:
    """Wait until a tab shows these members."""
    await tab.wait_for_function(
        "(users) => String([...chat.room.presence.keys()].sort()) === String(users)", arg=sorted(users)
    )


async def heard(tab: Page, *, count: int) -> None:
    await tab.wait_for_function("(count) => chat.seen.said.length >= count", arg=count)


async def seen(tab: Page) -> dict[str, Any]:
    found = await tab.evaluate("() => chat.seen")
    assert (found["lost"], found["left"]) == (0, 0)
    return found


async def test_a_tab_sees_one_on_another_worker_come_and_go_and_not_its_reload(
    fleet: Fleet, enter: Enter
) -> None:
    ann = await enter("ann")
    worker = await where(ann)
    bob = await enter("bob")
    await shows(ann, "ann", "bob")
    await away_from(bob, worker)
    # What it does not hear while it is reloaded, it gets from the history.
    for number in range(5):
        reloading = asyncio.ensure_future(reload(bob))
        await ann.evaluate("(number) => chat.room.emit('said', number)", number)
        await reloading
    await heard(bob, count=5)
    await shows(bob, "ann", "bob")
    assert (await seen(bob))["said"] == (await seen(ann))["said"] == list(range(5))
    eve = await enter("eve")
    for tab in (ann, bob, eve):
        await shows(tab, "ann", "bob", "eve")
    await eve.evaluate("() => chat.room.leave()")
    for tab in (ann, bob):
        await shows(tab, "ann", "bob")
    members = [set(each) for each in (await seen(ann))["members"]]
    # In this order, each of them once: nobody was away for a moment.
    steps = [step for step, _ in groupby(members)]
    assert steps == [{"ann"}, {"ann", "bob"}, {"ann", "bob", "eve"}, {"ann", "bob"}]


async def test_when_a_worker_is_killed_its_tab_moves_and_misses_nothing_and_nobody_flickers(
    fleet: Fleet, enter: Enter
) -> None:
    ann, bob, eve = await enter("ann"), await enter("bob"), await enter("eve")
    everybody = {"ann", "bob", "eve"}
    tabs = (ann, bob, eve)
    killed = await away_from(bob, await where(ann))
    for tab in tabs:
        await shows(tab, *everybody)
        await tab.evaluate("() => { chat.seen.members = []; }")
    await ann.evaluate("() => { window.publishing = chat.publish(300); }")
    await heard(bob, count=50)
    os.kill(killed, signal.SIGKILL)
    # What it says meanwhile is published once, too.
    saying = asyncio.ensure_future(bob.evaluate("() => chat.room.emit('said', 'bob')"))
    await heard(bob, count=150)
    assert await where(bob) != killed
    assert (await saying)["offset"] > 0
    # The worker of the tab that publishes.
    killed = await where(ann)
    os.kill(killed, signal.SIGKILL)
    await ann.evaluate("() => publishing")
    assert await where(ann) != killed
    for tab in tabs:
        await heard(tab, count=301)
        # Whatever was on its way has arrived.
        await where(tab)
        assert await tab.evaluate("() => chat.room.count()") == 3
        await shows(tab, *everybody)
    said = (await seen(ann))["said"]
    assert [each for each in said if each != "bob"] == list(range(1, 301))
    assert said.count("bob") == 1
    for tab in tabs:
        found = await seen(tab)
        assert found["said"] == said
        assert [set(each) for each in found["members"] if set(each) != everybody] == []
