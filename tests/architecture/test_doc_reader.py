"""The reader of the documentation finds out a page that lies."""

from pathlib import Path

import pytest

from support.pages import Reader, blocks


def fenced(info: str, *lines: str) -> str:
    return "\n".join((f"```{info}", *lines, "```", ""))


_SERVER = fenced(
    "python",
    "from symphony import Symphony",
    "app = Symphony()",
    "@app.on_message",
    "async def answer(message: str) -> str:",
    "    return f'You said: {message}'",
)
_EVENTS = fenced(
    "python",
    "from symphony import Symphony",
    "app = Symphony()",
    "@app.on('double')",
    "async def double(data: int) -> int:",
    "    return 2 * data",
)
_PYTHON = ("import symphony", "client = await symphony.connect('ws://127.0.0.1:8080')")
_JAVASCRIPT = ('import { connect } from "symphony-ws"', 'const client = connect("/")')
_TYPED = 'connect<{ emits: { say: string } }>("/")'
_WSCAT = "$ wscat -c ws://127.0.0.1:8080"
_LIES = {
    "python that does not compile": fenced("python", "async def f(:"),
    "python that raises": fenced("python", "import symphony", "symphony.Sinfonia"),
    "an app that does not start": _SERVER + fenced("python", "@app.on_connect", "def f(x: dict): ..."),
    "a test that fails": fenced("python", "async def test_it():", "    assert 1 == 2"),
    "a test file that fails": fenced('python title="test_it.py"', "def test_it():", "    assert 1 == 2"),
    "another answer than comes": _SERVER + fenced("console", _WSCAT, "> hi", "< hi"),
    "less than comes": _SERVER + fenced("console", _WSCAT, "> hi"),
    "a refusal that is none": _SERVER + fenced("console", _WSCAT, "error: Unexpected server response: 404"),
    "a client before any app": fenced("console", _WSCAT),
    "an address that is not the app's": fenced("sh", "websocat ws://127.0.0.1:9999"),
    "a target that make has not": fenced("sh", "make coffee"),
    "an option that there is not": fenced("sh", "symphony run examples/ws/rooms.py --fast"),
    "a value that an option does not take": fenced("sh", "symphony run examples/ws/rooms.py --port many"),
    "an app that there is not": fenced("sh", "symphony run chat.py"),
    "a script that there is not": fenced("sh", "python chat.py"),
    "a package that was never installed": fenced("sh", "pip install symphony-turbo"),
    "a command that nobody knows": fenced("sh", "frobnicate"),
    "broken JSON": fenced("json", "{'a': 1}"),
    "a language that nobody runs": fenced("nginx", "location / {}"),
    "a block without an end": "```python\n",
    "another print in Python": _EVENTS
    + fenced("python", *_PYTHON, "print(await client.request('double', 2))  # 5"),
    "a print that never comes": _EVENTS + fenced("python", *_PYTHON, "client.on('x', lambda: print(1))  # 1"),
    "a print that was not promised": _EVENTS + fenced("python", *_PYTHON, "print(1)"),
    "a client that fails": _EVENTS + fenced("python", *_PYTHON, "await client.request('treble', 2)"),
    "another print of main()": _EVENTS
    + fenced("python", "_ = 'ws://127.0.0.1:8080'", "async def main():", "    print(1)  # 2"),
    "a client in Python before any app": fenced("python", *_PYTHON),
    "another print in JavaScript": _EVENTS
    + fenced("javascript", *_JAVASCRIPT, "console.log(await client.request('double', 2))  // 5"),
    "JavaScript that fails": _EVENTS + fenced("javascript", *_JAVASCRIPT, "await client.request('treble')"),
    "JavaScript that does not compile": _EVENTS + fenced("javascript", *_JAVASCRIPT, "const x ="),
    "JavaScript that prints what was not promised": _EVENTS
    + fenced("javascript", *_JAVASCRIPT, "console.log(1)"),
    "JavaScript that complains": _EVENTS + fenced("javascript", *_JAVASCRIPT, "console.error('no')"),
    "types that do not fit": fenced("typescript", _JAVASCRIPT[0], f'{_TYPED}.emit("say", 1)'),
    "a subprotocol that is not spoken": _EVENTS + fenced("console", f"{_WSCAT} -s chat"),
    "an address of symphony connect": fenced("sh", "symphony connect ws://127.0.0.1:9999"),
}


@pytest.mark.parametrize("lie", _LIES.values(), ids=_LIES)
async def test_a_page_that_lies_is_found_out(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never comes is not waited for as long as what comes late.
    monkeypatch.setattr("support.pages._PATIENCE", 2.0)
    page = tmp_path / "lie.md"
    page.write_text(lie)
    with pytest.raises((Exception, SystemExit)) as caught:
        await Reader(page, tmp_path, monkeypatch).follow()
    assert "lie.md:" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


async def test_a_part_of_a_file_replaces_what_it_defines_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    changed = ("@app.on_message", "async def answer(message: str) -> str:", "    return 'changed'")
    page.write_text(
        _SERVER.replace("python", 'python title="chat.py"')
        + fenced("console", _WSCAT, "> hi", "< You said: hi")
        + fenced('python title="chat.py"', *changed)
        + fenced("console", _WSCAT, "> hi", "< changed")
    )
    await Reader(page, tmp_path, monkeypatch).follow()


async def test_what_a_page_does_not_run_has_its_reason_right_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("*Not run: needs nginx.*\n\n" + fenced("nginx", "location / {}"))
    await Reader(page, tmp_path, monkeypatch).follow()
    assert [block.not_run for block in blocks(page)] == ["needs nginx."]
