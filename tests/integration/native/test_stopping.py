"""Servers that are told to stop, from outside and by their own handlers."""

import asyncio
import signal
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from support.process import Running, launch, start
from support.raw import CLOSE, Frame, RawClient, close, connect, dial, frame, handshake, text

# The event loop here is the client's; the server chooses its own.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

Write = Callable[..., Path]

HEAD = """
import asyncio
from symphony import Close, Limits, Socket, Symphony

app = Symphony(limits=Limits(**{limits!r}))


def say(*words: object) -> None:
    print(*words, flush=True)


@app.on_startup
async def start() -> None:
    app.state.left = 0


@app.on_disconnect
async def leave(close: Close) -> None:
    app.state.left += 1


@app.on_shutdown
async def stop() -> None:
    say("left", app.state.left)
"""
TAIL = """
app.run(port=0, log_level="error")
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an app file: `write(body, finish_timeout=1)`."""

    def write(body: str, **limits: object) -> Path:
        file = tmp_path / "app.py"
        file.write_text(HEAD.format(limits={"notice_time": None, **limits}) + textwrap.dedent(body) + TAIL)
        return file

    return write


async def ended(server: Running) -> tuple[int, list[str]]:
    async with asyncio.timeout(10):
        return await server.end()


RAISING = """
    import time

    def cancel() -> None:
        raise asyncio.CancelledError

    def interrupt() -> None:
        raise KeyboardInterrupt

    def leave_python() -> None:
        raise SystemExit(3)

    @app.on_message
    async def handle(message: str) -> str:
        how, _, when = message.partition(" ")
        if when == "late":
            await asyncio.sleep(0.01)
        if how in globals():
            globals()[how]()
        return message
"""


@pytest.mark.parametrize("when", ["at once", "late"])
async def test_a_cancelled_handler_harms_nobody(write: Write, when: str):
    """`CancelledError` is not an `Exception`: picows let it through and killed the
    connection, and the event loop its callback.
    """
    async with start(write(RAISING)) as server:
        async with connect(server.url) as client, connect(server.url) as other:
            for _ in range(3):
                await client.send(text(f"cancel {when}"))
                assert '"internal"' in str(await client.message())
                await client.send(text("next"))
                assert await client.message() == "next"
            await other.send(text("alive"))
            assert await other.message() == "alive"
            await client.send(close())
            assert (await client.frame()).code == 1000
            await other.send(close())
            assert (await other.frame()).code == 1000
        server.signal()
        assert await ended(server) == (0, ["left 2"])


@pytest.mark.parametrize("when", ["at once", "late"])
@pytest.mark.parametrize("how", ["interrupt", "leave_python"])
async def test_a_handler_that_ends_python_stops_the_server_in_order(write: Write, how: str, when: str):
    """`KeyboardInterrupt` out of a handler ended in picows, which closed that one
    connection; out of a task it ended the event loop, and all others with it.
    """
    async with start(write(RAISING)) as server:
        async with connect(server.url) as client, connect(server.url) as other:
            await client.send(text(f"{how} {when}"))
            for each in (client, other):
                last = (await each.frame(), await each.frame()) if each is client else (await each.frame(),)
                assert last[-1].code == 1012
                await each.send(close(1012))
                assert await each.at_end()
        assert await ended(server) == (0, ["left 2"])


async def test_it_stops_also_where_a_shell_ignores_the_interrupt(write: Write):
    """A shell script starts what ends in `&` with SIGINT ignored. The log said that the server stops,
    and it went on.
    """
    ignoring = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    async with start(write(ignoring + textwrap.dedent(RAISING))) as server:
        async with connect(server.url) as client:
            await client.send(text("interrupt late"))
            frames = [await client.frame()]
            while frames[-1].opcode != CLOSE:
                frames.append(await client.frame())
            assert frames[-1].code == 1012
        assert await ended(server) == (0, ["left 1"])


async def test_two_handlers_that_end_python_are_one_wish_to_stop(write: Write):
    """Each raised a signal, and the second was taken for the impatience of a user."""
    async with start(write(RAISING)) as server:
        async with connect(server.url) as one, connect(server.url) as two, connect(server.url) as three:
            for _ in range(2):
                await one.send(text("interrupt late"))
                await two.send(text("leave_python late"))
            for client in (one, two, three):
                frames = [await client.frame()]
                while frames[-1].opcode != CLOSE:
                    frames.append(await client.frame())
                assert frames[-1].code == 1012
                await client.send(close(1012))
                assert await client.at_end()
        assert await ended(server) == (0, ["left 3"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_running_handlers_finish_before_their_client_is_sent_away(write: Write, number: signal.Signals):
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> str:
        socket.send("begun")
        await asyncio.sleep(0.5)
        say("finished", message)
        return message
    """
    async with start(write(body)) as server:
        async with connect(server.url) as client:
            await client.send(text("a"), text("b"))
            assert await client.message() == "begun"
            server.signal(number)
            assert await client.message() == "a"
            # What was read already is handled; what was not is the client's to send again.
            frames = [await client.frame()]
            while frames[-1].opcode != CLOSE:
                frames.append(await client.frame())
            assert frames[-1].code == 1012
            assert [each.payload for each in frames[:-1]] == [b"begun", b"b"]
            await client.send(close(1012))
            assert await client.at_end()
        assert await ended(server) == (0, ["finished a", "finished b", "left 1"])


async def test_a_handler_that_does_not_finish_is_cut_off_at_the_limit(write: Write):
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> None:
        socket.send("begun")
        try:
            await asyncio.sleep(3600)
        finally:
            say("cut off")
    """
    async with start(write(body, finish_timeout=0.3)) as server:
        async with connect(server.url) as client:
            await client.send(text("a"))
            assert await client.message() == "begun"
            server.signal()
            frames = [await client.frame()]
            while frames[-1].opcode != CLOSE:
                frames.append(await client.frame())
            assert frames[-1].code == 1012
            await client.send(close(1012))
        assert await ended(server) == (0, ["cut off", "left 1"])


async def test_a_second_signal_does_not_wait_for_handlers(write: Write):
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> None:
        socket.send("begun")
        await asyncio.sleep(3600)
    """
    async with start(write(body, finish_timeout=60)) as server:
        async with connect(server.url) as busy, connect(server.url) as idle:
            await busy.send(text("a"))
            assert await busy.message() == "begun"
            server.signal()
            assert (await idle.frame()).code == 1012
            server.signal()
            assert await busy.at_end()
        assert await ended(server) in ((-15, []), (143, []))


async def test_a_handler_that_will_not_be_cancelled_does_not_break_the_stop(write: Write):
    """Waiting for it timed out inside the shutdown, which then ended half way, without
    the app's own shutdown handlers, and with exit code 1.
    """
    body = """
    import time

    @app.on_message
    async def work(socket: Socket, message: str) -> None:
        socket.send("begun")
        begun = time.monotonic()
        while time.monotonic() < begun + 1.8:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                say("not now")
    """
    async with start(write(body, finish_timeout=0.2, drain_time=0.2, close_timeout=0.2)) as server:
        async with connect(server.url) as client:
            await client.send(text("a"))
            assert await client.message() == "begun"
            server.signal()
            code, lines = await ended(server)
        assert code == 0
        assert lines[:2] == ["not now", "not now"]
        assert "left 0" in lines


async def test_a_stopping_server_takes_nobody_new(write: Write):
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> str:
        socket.send("begun")
        await asyncio.sleep(0.5)
        return message
    """
    async with start(write(body)) as server:
        async with await dial(server.url) as late, connect(server.url) as client:
            await client.send(text("a"))
            assert await client.message() == "begun"
            server.signal()
            # Stopped listening is how anyone can see that the stop has begun.
            async with asyncio.timeout(5):
                while True:
                    try:
                        probe = await dial(server.url)
                    except OSError:
                        break
                    await probe.aclose()
                    await asyncio.sleep(0.01)
            await late.send(handshake())
            response = await late.response()
            assert response.status == 503
            assert response.headers["retry-after"] == "1"
            assert await client.message() == "a"
            assert (await client.frame()).code == 1012
            await client.send(close(1012))
        assert await ended(server) == (0, ["left 1"])


@pytest.mark.parametrize("offer", [None, "symphony.refuse"])
async def test_refused_clients_that_stay_do_not_outlive_the_server(write: Write, offer: str | None):
    """They have no session, so the stop did not see them: what they did after the event loop
    was closed raised in the server.
    """
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> str:
        socket.send("begun")
        await asyncio.sleep(0.3)
        return message
    """
    command = (sys.executable, "-W", "error", str(write(body, close_timeout=30)))
    async with launch(*command, stderr=asyncio.subprocess.PIPE) as server:
        crowd = [await dial(server.url) for _ in range(20)]
        async with connect(server.url) as client:
            await client.send(text("a"))
            assert await client.message() == "begun"
            server.signal()
            await client.message()
            for late in crowd:
                await late.send(handshake(sec_websocket_protocol=offer))
                assert (await late.response()).status == 503
            assert (await client.frame()).code == 1012
            await client.send(close(1012))
        assert await ended(server) == (0, ["left 1"])
        assert await server.errors() == []
        for late in crowd:
            await late.aclose()


async def test_outboxes_are_flushed_before_the_server_stops(write: Write):
    body = """
    @app.on_message
    async def work(socket: Socket, message: str) -> None:
        socket.send(b"x" * 5_000_000)
        say("sent")
    """
    async with start(write(body, max_outbox_bytes=10_000_000)) as server:
        async with connect(server.url, buffer=8192) as client:
            await client.send(text("a"))
            assert await server.line() == "sent"
            server.signal()
            assert await client.frame() == Frame(2, b"x" * 5_000_000)
            assert (await client.frame()).code == 1012
            await client.send(close(1012))
            assert await client.at_end()
        assert await ended(server) == (0, ["left 1"])


async def test_a_client_in_the_middle_of_its_handshake_does_not_hold_up_a_stop(write: Write):
    body = """
    @app.on_connect
    async def enter() -> None:
        say("connecting")
        await asyncio.sleep(3600)
    """
    async with start(write(body, finish_timeout=0.2, drain_time=0.2, close_timeout=0.2)) as server:
        async with await dial(server.url) as half, await dial(server.url) as waiting:
            await half.send(b"GET / HTTP/1.1\r\n")
            await waiting.send(handshake())
            assert await server.line() == "connecting"
            server.signal()
            code, lines = await ended(server)
        assert code == 0
        assert lines == ["left 1"]


async def test_a_failed_client_that_does_not_go_does_not_hold_up_a_stop(write: Write):
    async with start(write("", close_timeout=0.5)) as server, connect(server.url) as client:
        await client.send(frame(3))
        assert (await client.frame()).code == 1002
        server.signal()
        assert await ended(server) == (0, ["left 1"])


STAY = """
    async def stay() -> None:
        say("hangs")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
"""
HANGING = {
    "a thread": """
    import time

    @app.on_message(thread=True)
    def hang(message: str) -> None:
        say("hangs")
        time.sleep(60)
    """,
    "a handler that swallows its cancellation": """
    @app.on_message
    async def hang(message: str) -> None:
        await stay()
    """
    + STAY,
    "a background task that swallows its cancellation": """
    @app.on_message
    async def hang(message: str) -> None:
        app.background(stay())
    """
    + STAY,
    "the event loop": """
    import time

    @app.on_message
    async def hang(message: str) -> None:
        say("hangs")
        time.sleep(60)
    """,
    "a loop without an end": """
    @app.on_message
    async def hang(message: str) -> None:
        say("hangs")
        while True:
            pass
    """,
    "a thread of the program": """
    import threading, time

    @app.on_message
    async def hang(message: str) -> None:
        threading.Thread(target=time.sleep, args=(60,)).start()
        say("hangs")
    """,
    "a shutdown handler": """
    @app.on_message
    async def hang(message: str) -> None:
        say("hangs")

    @app.on_shutdown
    async def stay() -> None:
        await asyncio.sleep(3600)
    """,
    "the lifespan of a mount": """
    async def site(scope, receive, send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(3600)

    app.mount("/site", site)

    @app.on_message
    async def hang(message: str) -> None:
        say("hangs")
    """,
    "an HTTP request": """
    async def site(scope, receive, send) -> None:
        if scope["type"] == "http":
            say("hangs")
            await asyncio.sleep(3600)

    app.mount("/site", site)
    """,
}
SHORT = {"finish_timeout": 0.2, "close_timeout": 0.2, "drain_time": 0.2, "shutdown_timeout": 0.6}


async def make_it_hang(server: Running, client: RawClient, other: RawClient) -> None:
    await client.send(text("hang"))
    await other.send(b"GET /site HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert await server.line() == "hangs"


@pytest.mark.parametrize("what", HANGING)
@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
async def test_a_second_signal_ends_the_process_whatever_hangs(
    write: Write, what: str, signals: tuple[signal.Signals, signal.Signals]
):
    """A thread that slept kept the process, for as many signals as one liked to send."""
    async with start(write(HANGING[what])) as server:
        async with connect(server.url) as client, await dial(server.url) as other:
            await make_it_hang(server, client, other)
            for number in signals:
                server.signal(number)
                # Two that are pending at once are one, and nothing that hangs says when it has
                # seen the first.
                await asyncio.sleep(0.3)
            code, _ = await ended(server)
        assert code in (-signals[1], 128 + signals[1])


@pytest.mark.beyond("shutdown_timeout")
@pytest.mark.parametrize("what", HANGING)
async def test_one_signal_ends_the_process_in_its_time_whatever_hangs(write: Write, what: str):
    async with start(write(HANGING[what], **SHORT)) as server:
        async with connect(server.url) as client, await dial(server.url) as other:
            await make_it_hang(server, client, other)
            server.signal()
            code, _ = await ended(server)
        assert code in (0, 1)


@pytest.mark.beyond("shutdown_timeout")
@pytest.mark.parametrize(
    ("begin", "thread"),
    [
        ("threading.Thread(target=time.sleep, args=(60,), name='crunch').start()", "crunch"),
        ("timer = threading.Timer(60, print); timer.name = 'later'; timer.start()", "later"),
        ("ThreadPoolExecutor(thread_name_prefix='pool').submit(time.sleep, 60)", "pool_0"),
    ],
)
async def test_threads_that_hold_up_the_end_of_the_program_are_named(write: Write, begin: str, thread: str):
    """Python 3.12 waits for them and starts no thread in that time, as one that writes this line would be."""
    body = f"""
    import threading, time
    from concurrent.futures import ThreadPoolExecutor

    @app.on_startup
    async def work() -> None:
        {begin}
    """
    async with launch(sys.executable, "-W", "error", str(write(body, **SHORT)), stderr=PIPE) as server:
        server.signal()
        code, _ = await ended(server)
        assert code == 1
        [line] = await server.errors()
    assert " ERROR symphony.transport: The stop took longer than " in line
    assert line.endswith(f"Threads that still run: {thread}.")


@pytest.mark.within("shutdown_timeout")
async def test_a_shutdown_that_takes_its_time_is_waited_for(write: Write):
    body = """
    @app.on_shutdown
    async def last() -> None:
        await asyncio.sleep(0.3)
        say("last")
    """
    async with start(write(body)) as server:
        server.signal()
        assert await ended(server) == (0, ["last", "left 0"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_supervisor_passes_on_the_first_signal_and_ends_at_the_second(
    write: Write, number: signal.Signals
):
    file = write(HANGING["a thread"])
    file.write_text(file.read_text().removesuffix(TAIL))
    command = (sys.executable, "-m", "symphony", "run", str(file), "--port", "0", "--reload")
    async with launch(*command) as server:
        async with connect(server.url) as client:
            await client.send(text("hang"))
            assert await server.line() == "hangs"
            server.signal(number)
            # Two that are pending at once are one, and the supervisor does not say that it has
            # seen the first.
            await asyncio.sleep(0.5)
            server.signal(number)
            # The output ends with the last of the two processes.
            code, _ = await ended(server)
        assert code == 128 + number


async def test_a_signal_that_is_ignored_stays_ignored(write: Write):
    """`nohup` starts a program that way."""
    body = """
    import signal

    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @app.on_message
    async def answer(message: str) -> str:
        return message
    """
    async with start(write(body)) as server:
        server.signal(signal.SIGHUP)
        async with connect(server.url) as client:
            await client.send(text("hi"))
            assert await client.message() == "hi"
        server.signal()
        assert await ended(server) == (0, ["left 1"])


async def test_a_program_goes_on_after_its_server(write: Write):
    file = write("", **SHORT)
    file.write_text(file.read_text() + "import time; time.sleep(3); say('goes on')")
    async with start(file) as server:
        server.signal()
        assert await ended(server) == (0, ["left 0", "goes on"])
