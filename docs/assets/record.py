"""Record the demo in Chromium, as the animation that the README shows.

`make recording` runs this. It is stop motion: the story acts, then takes a
picture of both windows and says how long to show it. So the result does not
depend on the speed of the machine.
"""

import asyncio
import io
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.async_api import Browser, Page, async_playwright, expect

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "demo" / "app.py"
RESULT = Path(__file__).with_name("demo.webp")
CHROMIUM = Path("/usr/bin/chromium")

WINDOW = {"width": 480, "height": 480}
STAGE = {"width": 1024, "height": 600}
# Where the two pages go in the stage.
PLACES = ((24, 54), (520, 54))
MAX_BYTES = 500_000

# The windows' frames, and a line of a terminal below them.
SCENERY = """
<!doctype html>
<style>
  body {{ margin: 0; width: 1024px; height: 600px; position: relative; background: #26234a; }}
  .window {{
    position: absolute; top: 20px; width: 480px; height: 514px; border-radius: 12px; overflow: hidden;
    font: 13px/34px system-ui, sans-serif; text-align: center;
  }}
  .window::before {{
    content: ""; position: absolute; left: 14px; top: 12px; width: 50px; height: 10px;
    background: radial-gradient(circle, #8884a0 4.5px, transparent 5.5px) 0 0 / 18px 10px;
  }}
  .light {{ left: 24px; background: #e2e1ee; color: #3c3a52; }}
  .dark {{ left: 520px; background: #2f2d42; color: #cfcde0; }}
  pre {{
    position: absolute; left: 24px; right: 24px; bottom: 16px; margin: 0; color: #e6e4ff;
    font: 15px/34px "DejaVu Sans Mono", ui-monospace, monospace;
  }}
  .quiet {{ color: #a9a3ff; }} .good {{ color: #6fd6a3; }} .bad {{ color: #ff9c80; }}
</style>
<div class="window light">{left}</div>
<div class="window dark">{right}</div>
<pre>{terminal}</pre>
"""
PROMPT = '<span class="quiet">$</span> symphony run examples/demo/app.py'
RUNS = f'{PROMPT}   <span class="good">Symphony listens on http://127.0.0.1:8080</span>'
KILLED = f'{PROMPT}   <span class="bad">Killed</span>'


@dataclass
class Film:
    """The pictures so far, and how to take another one."""

    scenery: Page
    pages: tuple[Page, Page]
    terminal: str = RUNS
    pictures: list[Image.Image] = field(default_factory=list)
    milliseconds: list[int] = field(default_factory=list)
    stages: dict[tuple[str, ...], Image.Image] = field(default_factory=dict)

    async def shoot(self, seconds: float) -> None:
        """Take a picture of both pages, and show it for some seconds."""
        picture = (await self._stage()).copy()
        for page, place in zip(self.pages, PLACES, strict=True):
            picture.paste(await _screenshot(page), place, _round_at_the_bottom())
        if self.pictures and self.pictures[-1].tobytes() == picture.tobytes():
            self.milliseconds[-1] += round(seconds * 1000)
        else:
            self.pictures.append(picture)
            self.milliseconds.append(round(seconds * 1000))

    async def _stage(self) -> Image.Image:
        titles = [escape(await page.title()) for page in self.pages]
        key = (*titles, self.terminal)
        if key not in self.stages:
            html = SCENERY.format(left=titles[0], right=titles[1], terminal=self.terminal)
            await self.scenery.set_content(html)
            self.stages[key] = await _screenshot(self.scenery)
        return self.stages[key]

    def save(self, file: Path) -> None:
        """Write the animation."""
        first, *rest = self.pictures
        first.save(
            file,
            save_all=True,
            append_images=rest,
            duration=self.milliseconds,
            loop=0,
            # Flat colours and sharp text: this is smaller than with losses.
            lossless=True,
            quality=60,
            method=4,
        )


async def _screenshot(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(await page.screenshot(animations="allow"))).convert("RGB")


def _round_at_the_bottom() -> Image.Image:
    mask = Image.new("L", (WINDOW["width"], WINDOW["height"]))
    corners = (0, -20, WINDOW["width"] - 1, WINDOW["height"] - 1)
    ImageDraw.Draw(mask).rounded_rectangle(corners, radius=11, fill=255)
    return mask


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    """Run the demo, and kill it at the end."""
    command = (sys.executable, "-m", "symphony", "run", str(APP), "--port", str(port))
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert await server.stdout.readline(), "the demo did not start"
        yield
    finally:
        server.kill()
        await server.wait()


async def join(browser: Browser, port: int, name: str, scheme: str) -> Page:
    """Open the demo in a window, and join under a name."""
    context = await browser.new_context(
        viewport=WINDOW, color_scheme="dark" if scheme == "dark" else "light", locale="en-GB"
    )
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{port}/")
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Join").click()
    await has_status(page, "Connected")
    return page


async def has_status(page: Page, text: str) -> None:
    """Wait until the page shows the state of its connection."""
    await expect(page.get_by_role("status")).to_have_text(text)


async def has_message(page: Page, text: str) -> None:
    """Wait until a message is confirmed."""
    await expect(page.locator(".said:not(.pending) .text").last).to_have_text(text)


async def write(film: Film, page: Page, text: str) -> None:
    """Type a message, a picture for every key, and send it."""
    line = page.get_by_label("Message", exact=True)
    for key in text:
        await line.press_sequentially(key)
        await film.shoot(0.05)
    await line.press("Enter")


async def open_room(page: Page, name: str) -> None:
    """Open a room and wait until the page is in it."""
    await page.get_by_role("navigation").get_by_role("button", name=name).click()
    await expect(page.locator("#log")).to_contain_text(f"You are in the {name}.")


async def play(browser: Browser, port: int) -> Film:
    """Play the story."""
    scenery = await browser.new_page(viewport=STAGE)
    async with serving(port):
        ada = await join(browser, port, "Ada", "light")
        ben = await join(browser, port, "Ben", "dark")
        film = Film(scenery, (ada, ben))
        await film.shoot(0.6)
        await write(film, ada, "Ready to deploy?")
        await has_message(ben, "Ready to deploy?")
        await film.shoot(0.7)
        await write(film, ben, "Go ahead!")
        await has_message(ada, "Go ahead!")
        await film.shoot(0.8)
    film.terminal = KILLED
    for page in film.pages:
        await has_status(page, "Offline, reconnecting")
    await film.shoot(1.0)
    await write(film, ada, "Did it work?")
    await has_status(ada, "Offline, 1 message waiting")
    # A pending message becomes an outline after 0.4 s.
    await ada.wait_for_timeout(500)
    await film.shoot(1.1)
    async with serving(port):
        film.terminal = RUNS
        for page in film.pages:
            await has_status(page, "Connected")
            await has_message(page, "Did it work?")
        await film.shoot(1.3)
        await open_room(ben, "kitchen")
        await film.shoot(0.7)
        await write(film, ada, "Nothing was lost.")
        await expect(ben.get_by_role("button", name="lobby, 1 new")).to_be_visible()
        await film.shoot(1.4)
        await open_room(ben, "lobby")
        await has_message(ben, "Nothing was lost.")
        await film.shoot(1.7)
    return film


async def main() -> None:
    """Record the film, and write it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    expect.set_options(timeout=30_000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        film = await play(browser, port)
        await browser.close()
    film.save(RESULT)
    size = RESULT.stat().st_size
    print(f"{RESULT.name}: {len(film.pictures)} pictures, {sum(film.milliseconds) / 1000} s, {size:,} bytes")
    assert size < MAX_BYTES, f"a page must not load more than {MAX_BYTES:,} bytes for it"


if __name__ == "__main__":
    asyncio.run(main())
