"""The demo in a browser: how it is run, and where its page shows what."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from playwright.async_api import Locator, Page, expect

from support.examples import EXAMPLES
from support.process import Running

__all__ = (
    "APP",
    "REFUSED",
    "SOCKETS",
    "Open",
    "Run",
    "Serve",
    "line",
    "log",
    "members",
    "room",
    "say",
    "status",
    "typing",
)

APP = EXAMPLES / "demo" / "app.py"

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


async def all_have(tabs: list[Page], *texts: str) -> None:
    """Check that the tabs show exactly this, all of it said."""
    for tab in tabs:
        await expect(status(tab)).to_have_text("Connected")
        await expect(log(tab).locator(".said:not(.pending) .text")).to_have_text(list(texts))
        await expect(log(tab).locator(".pending, .failed")).to_have_count(0)


def unread(tab: Page, name: str) -> Locator:
    return room(tab, name).locator(".new")
