"""What the documentation pastes into the console of a browser."""

import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser

from support.chromium import IN_CHROMIUM
from support.pages import ROOT, Block, blocks
from support.process import launch

README = ROOT / "README.md"
SNIPPETS = [
    block
    for page in (README, *sorted((ROOT / "docs").rglob("*.md")))
    for block in blocks(page)
    if block.language == "js"
]

pytestmark = IN_CHROMIUM


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
async def test_a_snippet_talks_to_the_first_server_of_the_readme(
    browser: Browser, snippet: Block, tmp_path: Path
) -> None:
    (source,) = [block.text for block in blocks(README) if block.title == "hello.py"]
    (tmp_path / "hello.py").write_text(source)
    command = (sys.executable, "-m", "symphony", "run", "hello.py", "--port", "0")
    async with launch(*command, cwd=tmp_path) as server:
        page = await browser.new_page()
        await page.goto(server.address)
        pasted = snippet.text.replace("ws://127.0.0.1:8080", server.url)
        async with page.expect_console_message(lambda message: message.type == "log") as logged:
            # A script whose value is a function is called by Playwright, unlike by a console.
            await page.evaluate(f"{pasted}; undefined")
        assert (await logged.value).text == "You said: hi"
        await page.close()
