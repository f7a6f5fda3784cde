"""The command `symphony connect`, as a process: typed into, and in scripts."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import trustme
import typer.main

from support.echo import echo_app
from support.nursery import Program
from support.pages import ROOT, blocks, rows
from support.process import execute, launch, outcome, release
from support.servers import serve_natively
from symphony import Close, Reject, RemoteError, Socket, Symphony
from symphony.cli.connect.parser import COMMANDS
from symphony.cli.main import cli

pytestmark = pytest.mark.timeout(120)

SYMPHONY = (sys.executable, "-W", "error", "-m", "symphony")
CONNECT = (*SYMPHONY, "connect")

PAGE = ROOT / "docs" / "connect.md"

_CODE = re.compile(r"\x1b(?:\[[0-?]*[@-~])")
_COLOR = re.compile(r"\x1b\[(?:3[0-7]|1|2)m")


# What a script does


class Outcome(NamedTuple):
    code: int
    lines: list[str]
    errors: list[str]


@asynccontextmanager
async def piped(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Process | Program]:
    environ = {**os.environ, **(env or {})}
    process = await execute(*CONNECT, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await release(process)


async def script(
    url: str, *lines: str, options: Sequence[str] = (), env: dict[str, str] | None = None
) -> Outcome:
    """Send lines, as `printf ... | symphony connect URL` does."""
    async with piped(url, *options, env=env) as process:
        output, errors = await process.communicate("".join(f"{line}\n" for line in lines).encode())
        assert process.returncode is not None
        return Outcome(process.returncode, output.decode().splitlines(), errors.decode().splitlines())


def event_app() -> Symphony:
    app = Symphony()

    @app.on("say")
    async def say(data: dict[str, str]) -> None:
        await app.everyone.emit("said", data)

    @app.on("sum")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    @app.on("count")
    async def count(to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number

    @app.on("forever")
    async def forever() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @app.on("hang")
    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    @app.on("ask")
    async def ask(socket: Socket, name: str) -> Any:
        return await socket.request(name, {"why": "because"}, timeout=5)

    return app


async def test_each_line_is_sent_and_each_message_is_a_line() -> None:
    async with serve_natively(event_app()) as url:
        result = await script(
            url,
            '{"event":"sum","data":[1,2],"id":7}',
            "",
            '{"event":"count","data":2,"id":8,"credit":1}',
            "/request sum [3,4]",
            '{"event":"sum","data":["x"],"id":9}',
        )
    assert (result.code, result.errors) == (0, [])
    assert sorted(result.lines) == [
        '{"end":8}',
        '{"error":9,"data":{"code":"invalid","message":"Expected `int`, got `str`","retryable":false,'
        '"details":{"path":"$[0]"}}}',
        '{"item":8,"data":1}',
        '{"item":8,"data":2}',
        '{"reply":1,"data":7}',
        '{"reply":7,"data":3}',
    ]


async def test_what_has_no_answer_is_listened_to_for_a_moment() -> None:
    async with serve_natively(event_app()) as url:
        result = await script(url, '{"event":"say","data":{"text":"hi"}}', "/emit sya")
    assert result.code == 0
    assert result.lines[0] == '{"event":"said","data":{"text":"hi"}}'
    assert result.lines[1].startswith('{"event":"error","data":{"code":"not_found"')


async def test_a_script_does_not_need_prompt_toolkit(tmp_path: Path) -> None:
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError")
    async with serve_natively(echo_app()) as url:
        assert await script(url, "hello", env={"PYTHONPATH": str(tmp_path)}) == (0, ["hello"], [])


async def test_messagepack_looks_the_same_to_a_script() -> None:
    async with serve_natively(event_app()) as url:
        result = await script(url, "/request sum [1,2]", options=("--protocol", "msgpack"))
    assert result == (0, ['{"reply":1,"data":3}'], [])


async def test_on_a_raw_connection_lines_are_sent_as_they_are() -> None:
    lines = ["hello", "/close", '{"event":"x"}', "", "  //x"]
    async with serve_natively(echo_app()) as url:
        result = await script(url.removeprefix("ws://"), *lines)
    assert result == (0, lines, [])


async def test_more_lines_than_fit_anywhere_all_come_back_in_order() -> None:
    lines = [f"{number} {'x' * 200}" for number in range(5000)]
    async with serve_natively(echo_app()) as url:
        result = await script(url, *lines)
    assert result == (0, lines, [])


async def test_a_line_that_is_no_json_ends_the_script_with_2() -> None:
    async with serve_natively(echo_app()) as url:
        result = await script(url, "[1,  2]", "nope", "[3]", options=("--json",))
        assert result == (
            2,
            ["[1,2]"],
            ["Line 2: Not sent because it is not JSON: invalid character (byte 4)."],
        )


async def test_with_json_what_comes_is_written_on_one_line() -> None:
    async with serve_natively(echo_app()) as url:
        assert await script(url, '[1,  2.0,"a"]', options=("--json",)) == (0, ['[1,2.0,"a"]'], [])


async def test_the_servers_requests_are_answered_as_the_command_line_says() -> None:
    async with serve_natively(event_app()) as url:
        result = await script(url, '/request ask "name"', options=("--answer", 'name="Ada"'))
        assert result == (0, ['{"request":"name","data":{"why":"because"}}', '{"reply":1,"data":"Ada"}'], [])


async def test_a_request_is_told_from_an_event_whichever_comes_first() -> None:
    """The client does not say which it is; see `Incoming`."""
    app, answers = Symphony(), list[Any]()
    event_first, request_first = app.route("/event"), app.route("/request")

    @event_first.on_connect
    async def emit(socket: Socket) -> None:
        await socket.emit("first")

    @request_first.on_connect
    async def ask(socket: Socket) -> None:
        answers.append(asyncio.ensure_future(socket.request("age", timeout=5)))

    async def go(socket: Socket) -> Any:
        with pytest.raises(RemoteError, match="not_found"):
            await socket.request("name", timeout=5)
        await socket.emit("second")
        return await socket.request("age", timeout=5)

    event_first.on("go")(go)
    request_first.on("go")(go)
    async with serve_natively(app) as url:
        results = [
            await script(f"{url}/{first}", "/request go", options=("--answer", "age=36"))
            for first in ("event", "request")
        ]
    said = [
        '{"request":"name","data":null}',
        '{"event":"second","data":null}',
        '{"request":"age","data":null}',
        '{"reply":1,"data":36}',
    ]
    assert results[0].lines == ['{"event":"first","data":null}', *said]
    assert results[1].lines == ['{"request":"age","data":null}', *said]
    assert {tuple(result.errors) for result in results} == {
        ("The server sent a request 'name', and there is no --answer for it.",)
    }
    assert [await answer for answer in answers] == [36]


async def test_a_request_without_an_answer_is_told_and_the_exit_code_is_1() -> None:
    async with serve_natively(event_app()) as url:
        result = await script(url, "/request hang", options=("--timeout", "0.5"))
    assert (result.code, result.lines, len(result.errors)) == (1, [], 1)
    assert result.errors[0].startswith("Request 1: 'hang' was not answered by ws://127.0.0.1:")


async def test_it_listens_until_a_signal_with_wait_inf() -> None:
    async with serve_natively(event_app()) as url, piped(url, "--wait", "inf") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'/emit say {"text":"hi"}\n')
        process.stdin.close()
        assert await process.stdout.readline() == b'{"event":"said","data":{"text":"hi"}}\n'
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 128 + signal.SIGINT


async def test_it_ends_quietly_when_nobody_reads_its_output() -> None:
    app = Symphony()

    @app.on_connect
    async def talk(socket: Socket) -> None:
        while True:
            await socket.send("more")

    async with serve_natively(app) as url, piped(url, "--wait", "inf") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.readline()
        transport: Any = process.stdout._transport
        transport.close()
        assert await process.stderr.read() == b""
        assert await process.wait() == 0


async def test_what_the_command_line_says_of_the_handshake_is_sent() -> None:
    app = Symphony(subprotocols=["chat.v2"], origins=["https://example.com"])

    @app.on_connect
    async def tell(socket: Socket) -> None:
        handshake = socket.handshake
        seen = (handshake.headers["x-room"], handshake.headers["cookie"], handshake.token, handshake.origin)
        await socket.send([*seen, socket.subprotocol])

    options = (
        "-H",
        "X-Room: lobby",
        "-H",
        "Cookie: a=1",
        "--cookie",
        "b=2",
        "--subprotocol",
        "chat.v2",
    )
    async with serve_natively(app) as url:
        result = await script(
            url, "x", options=(*options, "--origin", "https://example.com"), env={"SYMPHONY_TOKEN": "t0ken"}
        )
    assert result.lines[0] == '["lobby","a=1; b=2","t0ken","https://example.com","chat.v2"]'


# What cannot be


async def test_a_refused_connection_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for options in ((), ("--no-reconnect",)):
        code, lines, errors = await script(f"localhost:{port}", options=options)
        assert (code, lines, len(errors)) == (1, [], 1)
        assert errors[0].startswith(
            f"Error: ws://localhost:{port}/ could not be reached: nothing listens at "
        )


async def test_a_refusal_of_the_server_is_one_line_and_exit_code_1() -> None:
    app = Symphony()
    shop = app.route("/shop")

    @shop.on_connect
    async def enter(socket: Socket) -> None:
        raise Reject("unauthorized", "a token is needed")

    async with serve_natively(app) as url:
        code, lines, errors = await script(f"{url}/absent")
        assert (code, lines, len(errors)) == (1, [], 1)
        assert errors[0].endswith("refused the connection: no WebSocket route for /absent (4404).")
        code, lines, errors = await script(f"{url}/shop")
        assert (code, lines, len(errors)) == (1, [], 1)
        assert errors[0].endswith("refused the connection: a token is needed (4401).")


@pytest.mark.parametrize(
    ("code", "times", "exit_code"), [("elsewhere", 1, 0), ("elsewhere", 5, 0), ("unavailable", 1, 1)]
)
@pytest.mark.parametrize("raw", [False, True])
async def test_who_is_sent_elsewhere_at_first_tries_again_and_others_do_not(
    code: str, times: int, exit_code: int, raw: bool
) -> None:
    """With workers, a room with a home is at one of them."""
    app = Symphony()
    route = app.route("/", events=not raw)
    attempts = iter(range(times))

    @route.on_connect
    async def enter() -> None:
        if next(attempts, None) is not None:
            raise Reject(code, "not here")

    route.on_message(lambda message: message)
    async with serve_natively(app) as url:
        result = await script(url, "hi", options=("--wait", "0"))
    assert (result.code, len(result.errors)) == (exit_code, exit_code)


async def test_a_web_server_that_is_no_websocket_server_is_recognized() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, _, errors = await script(f":{port}/chat")
    assert code == 1
    assert "refused the connection: HTTP 404 Not Found." in errors[0]


async def test_a_certificate_that_nobody_vouches_for_is_refused_but_for_insecure(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    async with serve_natively(echo_app(), ssl_certfile=str(chain), ssl_keyfile=str(key)) as url:
        url = url.replace("127.0.0.1", "localhost")
        code, lines, errors = await script(url, "hello")
        assert (code, lines, len(errors)) == (1, [], 1)
        assert errors[0].endswith(". --insecure accepts any certificate.")
        assert await script(url, "hello", options=("--insecure",)) == (0, ["hello"], [])


def closing_app() -> Symphony:
    app = Symphony()

    @app.on_message
    async def close(socket: Socket, message: str) -> None:
        await socket.send("goodbye")
        code, _, reason = message.partition(" ")
        await socket.close(int(code), reason)

    return app


@pytest.mark.parametrize(
    ("line", "options", "code", "errors"),
    [
        ("1000 bye", (), 0, []),
        (
            "4429 later",
            ("--no-reconnect",),
            1,
            ['Closed by the server (4429: too many, "later"). Connecting again may work.'],
        ),
    ],
)
async def test_a_script_ends_with_the_connection(
    line: str, options: tuple[str, ...], code: int, errors: list[str]
) -> None:
    async with serve_natively(closing_app()) as url:
        assert await script(url, line, options=("--wait", "inf", *options)) == (code, ["goodbye"], errors)


# What is typed


class Typist:
    """A terminal with `symphony connect` in it, and somebody who types and reads.

    Attributes:
        process: The command.
    """

    def __init__(self, master: int, slave: int) -> None:
        self.process: Process | Program
        self._bytes = b""
        self._master = master
        self._slave = slave
        self._seen = 0
        self._came = asyncio.Event()
        self._before = termios.tcgetattr(slave)
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, line: str) -> None:
        self.type(f"{line}\r")

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def sees(self, *texts: str) -> None:
        """Wait until these are on the terminal, one behind the other."""
        for text in texts:
            while (at := self._text().find(text, self._seen)) < 0:
                self._came.clear()
                try:
                    await asyncio.wait_for(self._came.wait(), 30)
                except TimeoutError:
                    raise AssertionError(
                        f"{text!r} does not come; {self._text()[self._seen :]!r} did"
                    ) from None
            self._seen = at + len(text)

    async def ends(self) -> int:
        """Wait for the end; the terminal must be as it was."""
        code = await self.process.wait()
        assert termios.tcgetattr(self._slave) == self._before
        return code

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)

    def take_back(self) -> None:
        """Set the terminal as a shell does when it stops a job."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self._before)

    @property
    def raw(self) -> str:
        """All that the command wrote."""
        return self._bytes.decode(errors="replace")

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def _text(self) -> str:
        return _CODE.sub("", self.raw)

    def _read(self) -> None:
        self._bytes += os.read(self._master, 65536)
        self._came.set()


Open = Callable[..., Any]


# Ctrl+C is a signal only on the terminal of a session. Not as `preexec_fn`: newer
# Pythons warn of that in a process with threads.
@pytest.fixture
def terminal(tmp_path: Path) -> Open:
    """Open a terminal: `async with terminal(url) as typist`."""

    @asynccontextmanager
    async def open(url: str, *options: str, **env: str) -> AsyncIterator[Typist]:
        master, slave = pty.openpty()
        typist = Typist(master, slave)
        typist.resize(80, 24)
        environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environ |= {"TERM": "xterm-256color", "XDG_STATE_HOME": str(tmp_path), **env}
        typist.process = await execute(*CONNECT, url, *options, terminal=slave, env=environ)
        try:
            yield typist
        finally:
            if typist.process.returncode is None:
                typist.process.kill()
                await typist.process.wait()
            await release(typist.process)
            typist.close()

    return open


def closes(app: Symphony) -> asyncio.Queue[Close]:
    """Collect how the sockets of an app are closed."""
    queue: asyncio.Queue[Close] = asyncio.Queue()

    @app.on_disconnect
    async def closed(close: Close) -> None:
        queue.put_nowait(close)

    return queue


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
async def test_lines_are_sent_until_ctrl_c_or_ctrl_d(terminal: Open, key: str) -> None:
    app = echo_app()
    closed = closes(app)
    async with serve_natively(app) as url, terminal(url.removeprefix("ws://")) as typist:
        await typist.sees(f"* Connected to {url} (raw).", "Ctrl+D to quit.", "> ")
        typist.enter("hello")
        await typist.sees("> hello", "< hello", "> ")
        typist.type(key)
        await typist.sees("* Closed.")
        assert await typist.ends() == 0
        assert (await closed.get()).code == 1000
    assert re.search(r"\d\d:\d\d:\d\d\S* \S*<", typist.raw)
    assert _COLOR.search(typist.raw)


async def test_close_sends_code_and_reason(terminal: Open) -> None:
    app = echo_app()
    closed = closes(app)
    async with serve_natively(app) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.enter("/close 4000 so long")
        assert await typist.ends() == 0
        close = await closed.get()
        assert (close.code, close.reason) == (4000, "so long")


async def test_without_colours_there_are_none(terminal: Open) -> None:
    async with serve_natively(echo_app()) as url, terminal(url, NO_COLOR="1") as typist:
        await typist.sees("> ")
        typist.enter("hello")
        await typist.sees("< hello")
        assert not _COLOR.search(typist.raw)


async def test_what_comes_does_not_destroy_what_is_being_typed(terminal: Open) -> None:
    app = Symphony()
    received: asyncio.Queue[str] = asyncio.Queue()
    app.on_message(received.put)
    async with serve_natively(app) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.type("half")
        await typist.sees("half")
        await app.everyone.send("an interruption")
        await typist.sees("< an interruption", "> half")
        typist.resize(40, 10)
        await typist.sees("> half")
        typist.enter(" a line")
        await typist.sees("> half a line")
        assert await received.get() == "half a line"


async def test_it_goes_on_after_it_was_stopped(terminal: Open) -> None:
    """A shell sets the terminal when it stops a job with Ctrl+Z; `fg` then sends SIGCONT."""
    async with serve_natively(echo_app()) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.type("half")
        await typist.sees("half")
        typist.take_back()
        typist.process.send_signal(signal.SIGCONT)
        await typist.sees("> half")
        assert not typist.echoes
        typist.enter(" a line")
        await typist.sees("< half a line")


async def test_what_is_pasted_is_one_message(terminal: Open) -> None:
    async with serve_natively(echo_app()) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.type('\x1b[200~{\r  "text": "日本"\r}\x1b[201~')
        await typist.sees('{ "text": "日本" }')
        typist.type("\r")
        await typist.sees('> { "text": "日本" }', '< { "text": "日本" }')


async def test_requests_streams_and_events_are_typed_as_commands(terminal: Open) -> None:
    async with serve_natively(event_app()) as url, terminal(url) as typist:
        await typist.sees("(symphony.v1.json).", "> ")
        typist.enter("/help")
        await typist.sees("/request EVENT [DATA]", "/stream EVENT [DATA]", "/cancel", "> ")
        typist.enter('/emit say {"text":"hi"}')
        await typist.sees('> say {"text":"hi"}', '< said {"text":"hi"}')
        typist.enter("/request sum [1,2]")
        await typist.sees("> #1 sum [1,2]", "< #1 3 (")
        typist.enter("/stream count 2")
        await typist.sees("> #2 count 2", "< #2 1", "< #2 2", "< #2 (end of 2 items, ")
        typist.enter("/stream forever")
        await typist.sees("> #3 forever", "< #3 1")
        typist.enter("/cancel")
        await typist.sees("> #3 (cancelled)")
        typist.enter("/request count 2")
        await typist.sees("< #4 invalid: 'count' answers with a stream: use /stream")
        typist.enter("/emit say hi")
        await typist.sees('! The data is not JSON. Put text in quotes: "hi"')
        typist.enter("/emti say")
        await typist.sees("! There is no command /emti. Did you mean /emit?")
        typist.type("/req\tsu\t")
        await typist.sees("/request sum")
        typist.enter('["x"]')
        await typist.sees('< #5 invalid: Expected `int`, got `str` {"path":"$[0]"}')


async def test_a_request_of_the_server_is_shown_and_can_be_answered(terminal: Open) -> None:
    async with serve_natively(event_app()) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.enter('/request ask "name"')
        await typist.sees(
            '< name? {"why":"because"}', "> not_found (type /answer name DATA to answer", "< #1 internal"
        )
        typist.enter('/answer name "Ada"')
        typist.enter('/request ask "name"')
        await typist.sees('< name? {"why":"because"}', '> "Ada"', '< #2 "Ada"')


async def test_a_final_close_is_explained_and_ends_it_with_1(terminal: Open) -> None:
    async with serve_natively(closing_app()) as url, terminal(url) as typist:
        await typist.sees("> ")
        typist.enter("4403 members only")
        await typist.sees(
            "< goodbye",
            'Closed by the server (4403: forbidden, "members only"). Connecting again will not help.',
        )
        assert await typist.ends() == 1


async def test_a_refused_connection_leaves_the_terminal_as_it_was(terminal: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with terminal(f":{port}", "--no-reconnect") as typist:
        await typist.sees("Error: ws://", "nothing listens at ")
        assert await typist.ends() == 1


async def test_ctrl_c_ends_it_while_it_still_connects(terminal: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with terminal(f":{port}") as typist:
            await typist.sees(f"* Connecting to ws://127.0.0.1:{port} ...")
            typist.type("\x03")
            assert await typist.ends() == 1


async def test_lines_of_the_session_before_come_back(terminal: Open) -> None:
    async with serve_natively(echo_app()) as url:
        async with terminal(url) as typist:
            await typist.sees("> ")
            typist.enter("remember me")
            await typist.sees("< remember me")
        async with terminal(url) as typist:
            await typist.sees("> ")
            typist.type("\x1b[A")
            await typist.sees("remember me")


async def test_a_terminal_that_can_do_nothing_will_do(terminal: Open) -> None:
    async with serve_natively(echo_app()) as url, terminal(url, TERM="dumb") as typist:
        await typist.sees("Ctrl+D to quit.")
        typist.type("hello\n")
        await typist.sees("< hello")
        typist.type("\x04")
        await typist.sees("Closed.")
        assert await typist.ends() == 0
        assert "\x1b" not in typist.raw


ROOM = """
from symphony import Socket, Symphony

app = Symphony()

@app.on_message
async def echo(message: str) -> str:
    return message
"""


async def test_a_server_that_restarts_is_waited_for(terminal: Open, tmp_path: Path) -> None:
    file = tmp_path / "room.py"
    file.write_text(ROOM)
    run = (*SYMPHONY, "run", str(file), "--port")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(launch(*run, "0"))
        typist = await stack.enter_async_context(terminal(running.url))
        process = await stack.enter_async_context(piped(running.url))
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        await typist.sees("> ")
        typist.type("half")
        await typist.sees("half")
        process.stdin.write(b"before\n")
        assert await process.stdout.readline() == b"before\n"
        running.signal()
        await running.end()

        await typist.sees(
            "* Connection lost (1012: the server restarts). Trying again in ", "(not connected) > half"
        )
        await typist.sees("* Nothing listens at ", " Trying again in ", "(not connected) > half")
        await typist.sees("* Still not connected. Trying again in ", "(not connected) > half")
        typist.enter(" a line")
        await typist.sees("> half a line", "* Not connected. This will be sent after the client reconnects.")
        # A script does not send what it cannot know to arrive.
        told = await process.stderr.readline()
        assert re.fullmatch(
            rb"Connection lost \(1012: the server restarts\)\. Trying again in \d+\.\d s\.\n", told
        )
        process.stdin.write(b"meanwhile\n")

        await stack.enter_async_context(launch(*run, running.url.rpartition(":")[2]))
        await typist.sees("* Reconnected after ", "< half a line", "> ")
        assert await process.stdout.readline() == b"meanwhile\n"
        process.stdin.close()
        _, errors = await process.communicate()
        assert process.returncode == 0
        assert b"Reconnected after " in errors


def talk_app() -> Symphony:
    (block,) = [block for block in blocks(PAGE) if block.title == "talk.py"]
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    return names["app"]


async def test_a_script_joins_a_room_and_publishes() -> None:
    async with serve_natively(talk_app()) as url:
        result = await script(
            f"{url}/talk?user=ann",
            "/join talk:birds",
            '/publish talk:birds said " an owl! "',
            "/publish talk:birds shouted 1",
            '/publish talk:fish said "hi"',
        )
    assert (result.code, len(result.errors)) == (2, 1)
    assert "Line 4: You are not in the room 'talk:fish'." in result.errors[0]
    lines = [re.sub(r'"epoch":"[^"]+"', '"epoch":"e"', line) for line in result.lines]
    lines = [re.sub(r'"message":"[^"]+"', '"message":"..."', line) for line in lines]
    assert lines[:3] == [
        '{"joined":"talk:birds","position":{"epoch":"e","offset":0}}',
        '{"presence":"talk:birds","members":{"ann":{}},"total":1}',
        '{"reply":1,"data":null}',
    ]
    # The program takes answers and publications in tasks of their own.
    assert sorted(lines[3:]) == [
        '{"error":3,"data":{"code":"forbidden",'
        '"message":"...","retryable":false,'
        '"details":{"room":"talk:birds","event":"shouted"}}}',
        '{"event":"said","data":"an owl!","room":"talk:birds","position":{"epoch":"e","offset":1}}',
        '{"reply":2,"data":{"epoch":"e","offset":1}}',
    ]


async def test_a_person_joins_a_room_and_sees_who_is_there(terminal: Open) -> None:
    async with (
        serve_natively(talk_app()) as url,
        terminal(f"{url}/talk?user=ann") as ann,
        terminal(f"{url}/talk?user=bob") as bob,
    ):
        await ann.sees("> ")
        await bob.sees("> ")
        ann.enter("/join talk:birds")
        await ann.sees(
            "> #1 join talk:birds", "< #1 joined talk:birds, after the offset 0", "* talk:birds 1 member: ann"
        )
        ann.type("/publish ta\t")
        await ann.sees("/publish talk:birds")
        ann.enter('said "an owl!"')
        await ann.sees('> #2 talk:birds said "an owl!"', '< talk:birds said "an owl!" (offset 1)')
        bob.enter("/join talk:birds")
        await ann.sees("* talk:birds 2 members: ann, bob")
        await bob.sees("* talk:birds 2 members: ann, bob")
        bob.enter('/publish talk:birds said "where?"')
        await ann.sees('< talk:birds said "where?" (offset 2)')
        ann.enter("/leave talk:birds")
        await ann.sees("> #3 leave talk:birds", "< #3 null (")
        await bob.sees("* talk:birds 1 member: bob")


# What the page says


def page_app() -> Symphony:
    (block,) = [block for block in blocks(PAGE) if block.title == "chat.py"]
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    return names["app"]


def plain(line: str) -> str:
    """Leave out of a line what is different every time."""
    return re.sub(r"\d\d:\d\d:\d\d |[\d.]+ m?s\)", "", line).strip()


# What begins when a line is typed, and nothing that the server causes.
_TYPED = re.compile(r"> /|> (?!not_found)[a-z]|> #\d+ (?:[a-z]|\(cancelled)|[*] (?!Connected|Type)|  /emit ")


async def test_the_session_of_the_page_goes_as_it_is_shown(terminal: Open) -> None:
    (typed,) = [block.text.splitlines() for block in blocks(PAGE) if block.language == "text"]
    _, *shown = next(block.text for block in blocks(PAGE) if block.language == "console").splitlines()
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in shown]
    begins = [at for at, line in enumerate(lines) if _TYPED.match(line)]
    assert len(begins) == len(typed)
    async with serve_natively(page_app()) as url, terminal(f"{url}/chat") as typist:
        typist.resize(120, 40)
        await typist.sees(*(plain(line).replace("ws://127.0.0.1:8080", url) for line in lines[: begins[0]]))
        for line, begin, end in zip(typed, begins, [*begins[1:], len(lines)], strict=True):
            typist.enter(line)
            await typist.sees(*map(plain, lines[begin:end]))
        assert await typist.ends() == 0


async def test_the_scripts_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    (shown,) = [
        block.text for block in blocks(PAGE) if block.not_run is not None and block.language == "console"
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    async with serve_natively(page_app()) as url:
        here = shown.replace("ws://127.0.0.1:8080", url)
        for part in here.removeprefix("$ ").split("\n$ "):
            command, _, printed = part.partition("\n")
            result = await outcome("sh", "-c", command, env={"PATH": path})
            assert (result.output + result.errors).rstrip("\n") == printed.rstrip("\n")


def test_the_page_has_each_option_with_its_default() -> None:
    table = rows(PAGE, "## The options")
    table.pop("option")
    command: Any = cast("Any", typer.main.get_command(cli)).commands["connect"]
    options = {option.opts[0]: option for option in command.params if option.opts[0].startswith("--")}
    options.pop("--help", None)
    cells = {name.partition("`")[0]: first for name, (first, *_) in table.items()}
    assert set(cells) == set(options)
    for name, option in options.items():
        if option.default not in (None, False):
            assert cells[name] == f"`{option.default}`"


def test_the_page_has_each_command() -> None:
    table = rows(PAGE, "## What can be typed")
    commands = {f"{name} {command.arguments}".rstrip(): command.on for name, command in COMMANDS.items()}
    assert {typed: cells[0] for typed, cells in table.items() if typed.startswith("/")} == commands
