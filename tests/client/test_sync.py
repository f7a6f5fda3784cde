"""The blocking client."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from client.rawserver import listen
from support.elsewhere import serving
from symphony import Socket, Symphony
from symphony.client import sync
from symphony.client.inbox import Inbox
from symphony.errors import (
    DisconnectedError,
    QueueFullError,
    RemoteError,
    RequestTimeoutError,
    WrongRouteError,
    WrongThreadError,
)


class Said(msgspec.Struct):
    name: str
    text: str


class Chat:
    """An app, and what happened in it."""

    def __init__(self) -> None:
        self.app = app = Symphony()
        self.got: list[Any] = []
        self.cancelled = threading.Event()
        self.waiting = threading.Event()
        self.left = threading.Event()
        chat, shouting = app.route("/chat"), app.route("/shouting")

        @chat.on("say")
        async def say(data: Any) -> None:
            self.got.append(data)
            app.everyone.emit("said", Said("ann", str(data)))

        @chat.on("sum")
        async def add(data: list[int]) -> int:
            return sum(data)

        @chat.on("burst")
        async def burst(socket: Socket, data: int) -> str:
            for number in range(data):
                socket.emit("number", number)
            return "done"

        @chat.on("bulk")
        async def bulk(socket: Socket, data: int) -> None:
            for number in range(data):
                await socket.emit("big", "x" * 500_000 + str(number))

        @chat.on("sleep")
        async def sleep(data: float) -> None:
            self.waiting.set()
            try:
                await asyncio.sleep(data)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        @chat.on("count")
        async def count(data: int) -> AsyncIterator[int]:
            try:
                for number in range(data):
                    yield number
            finally:
                self.left.set()

        @chat.on("restart")
        async def restart(socket: Socket) -> None:
            await socket.close(1012)

        @chat.on("leave")
        async def leave(socket: Socket) -> None:
            await socket.close(1000, "bye")

        @shouting.on_message
        async def shout(socket: Socket, message: str) -> str | None:
            if message == "leave":
                await socket.close(1000, "bye")
                return None
            return message.upper()


def cut_off(url: str, **options: Any) -> sync.Client:
    """Return an open client that has lost its connection, and waits a minute before it reconnects."""
    client = sync.connect(f"{url}/chat", backoff=60, max_backoff=60, **options).open()
    client._client._reconnector._backoff._uniform = lambda low, high: high
    with pytest.raises(DisconnectedError):
        client.request("restart")
    return client


@pytest.fixture(scope="module")
def chat() -> Iterator[tuple[Chat, str]]:
    chat = Chat()
    with serving(chat.app) as url:
        yield chat, url


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    gc.collect()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("symphony ")]
    for thread in threads:
        # One that was not closed ends a moment later.
        thread.join(10)
    assert [thread for thread in threads if thread.is_alive()] == []


def test_what_a_script_does(chat: tuple[Chat, str]) -> None:
    _, url = chat
    client = sync.connect(f"{url}/chat", protocol="msgpack")
    assert client.state == "new"
    with client as entered:
        assert entered is client
        assert (client.state, client.protocol) == ("open", "symphony.v1.msgpack")
        client.emit("say", "hi")
        assert client.receive("said") == {"name": "ann", "text": "hi"}
        client.emit("say", "again")
        said: Said = client.receive("said", response_type=Said)
        assert said == Said("ann", "again")
        total: int = client.request("sum", [1, 2, 3], response_type=int)
        assert total == 6
        assert list(client.stream("count", 200, response_type=int)) == list(range(200))
    assert client.state == "closed"
    assert client.closed is not None
    assert client.closed.code == 1000
    client.close()
    for use in (lambda: client.emit("say"), lambda: client.request("sum"), lambda: client.receive("said")):
        with pytest.raises(DisconnectedError, match="is closed"):
            use()
    with pytest.raises(DisconnectedError, match="is closed"):
        client.open()


def test_errors_are_those_of_the_async_client(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/chat") as client:
        with pytest.raises(RemoteError) as caught:
            client.request("sum", ["one"])
        assert caught.value.code == "invalid"
        with pytest.raises(RequestTimeoutError):
            client.request("sleep", 60, timeout=0.05)
        with pytest.raises(TypeError):
            client.emit("say", object())
        with pytest.raises(RemoteError, match="does not match"):
            client.request("sum", [1], response_type=str)
        with pytest.raises(ValueError, match="reserved"):
            client.emit("error")
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout must be 0 or more"):
                client.receive("said", timeout=timeout)
        client.emit("say", 1)
        with pytest.raises(RemoteError, match="the event 'said' does not match"):
            client.receive("said", response_type=int)
        with pytest.raises(WrongRouteError):
            client.receive(timeout=1)
    with pytest.raises(RuntimeError, match="was never opened"):
        sync.connect(chat[1]).emit("say")
    with pytest.raises(DisconnectedError, match="404"):
        sync.connect(f"{chat[1]}/nothing").open()


@pytest.mark.parametrize("timeout", [0, 0.01, 0.1])
def test_receive_waits_as_long_as_it_is_told(chat: tuple[Chat, str], timeout: float) -> None:
    with sync.connect(f"{chat[1]}/chat") as client:
        with pytest.raises(TimeoutError, match="No event 'never' arrived"):
            client.receive("never", timeout=timeout)
        client.request("burst", 2)
        assert [client.receive("number", timeout=timeout) for _ in range(2)] == [0, 1]
    with sync.connect(f"{chat[1]}/shouting") as client, pytest.raises(TimeoutError, match="No message"):
        client.receive(timeout=timeout)


def test_raw_messages(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/shouting", raw=True) as client:
        for message in ("a", "b", "c"):
            client.send(message)
        assert [client.receive() for _ in range(3)] == ["A", "B", "C"]
        client.send('"x"')
        assert client.receive() == '"X"'
        client.send("[1, 2]")
        assert client.receive(response_type=list[int]) == [1, 2]
        with pytest.raises(WrongRouteError):
            client.receive("said")
        with pytest.raises(WrongRouteError):
            client.request("sum")
        client.send("leave")
        with pytest.raises(DisconnectedError) as caught:
            client.receive()
        assert (caught.value.code, caught.value.reason) == (1000, "bye")


def test_waiting_ends_with_the_connection(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/chat") as client:
        client.request("burst", 1)
        client.emit("leave")
        with pytest.raises(DisconnectedError) as caught:
            client.receive("never")
        assert caught.value.code == 1000
        # What had arrived can still be taken.
        assert client.receive("number") == 0
        with pytest.raises(DisconnectedError):
            client.receive("number")


def test_it_reconnects(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/chat", backoff=0.01) as client:
        for _ in range(3):
            with pytest.raises(DisconnectedError, match="1012"):
                client.request("restart")
            assert client.request("sum", [4, 5]) == 9


@pytest.mark.parametrize("how", ["close", "with", "loop", "end", "unused"])
def test_a_stream_can_be_left(chat: tuple[Chat, str], how: str) -> None:
    app, url = chat
    app.left.clear()
    with sync.connect(f"{url}/chat") as client:
        stream = client.stream("count", 10**6 if how != "end" else 2)
        if how == "close":
            assert next(stream) == 0
            stream.close()
            assert list(stream) == []
        elif how == "with":
            with stream:
                assert next(stream) == 0
        elif how == "loop":
            for item in stream:
                assert item == 0
                break
            del stream
        elif how == "end":
            assert list(stream) == [0, 1]
            stream.close()
        else:
            stream.close()
            return
        assert app.left.wait(5)


def test_from_several_threads(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/chat") as client, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda number: client.request("sum", [number, 1]), range(200)))
        assert replies == [number + 1 for number in range(200)]
        receiving = [threads.submit(client.receive, "number") for _ in range(6)]
        client.request("burst", 6)
        assert sorted(one.result(5) for one in receiving) == list(range(6))
        streams = threads.map(lambda size: list(client.stream("count", size)), range(1, 9))
        assert [len(items) for items in streams] == list(range(1, 9))


def test_a_wait_that_times_out_loses_no_event(chat: tuple[Chat, str]) -> None:
    """An event that wakes a thread whose time is over goes to the next one."""
    with sync.connect(f"{chat[1]}/chat") as client, ThreadPoolExecutor(4) as threads:

        def patient() -> list[Any]:
            got: list[Any] = []
            while True:
                try:
                    got.append(client.receive("number", timeout=0.002))
                except TimeoutError:
                    if ended.is_set():
                        return got

        ended = threading.Event()
        taking = [threads.submit(patient) for _ in range(4)]
        for _ in range(20):
            client.request("burst", 10)
        ended.set()
        got = [number for one in taking for number in one.result(10)]
        assert sorted(got) == sorted(list(range(10)) * 20)


@contextmanager
def interrupted(when: threading.Event) -> Iterator[None]:
    """Send Ctrl+C to this thread once *when* is set."""

    def work() -> None:
        assert when.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        thread.start()
        yield
    thread.join()


def test_ctrl_c_ends_a_wait_and_cancels_the_handler(
    chat: tuple[Chat, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()
    wait = Inbox.wait

    async def announced(inbox: Inbox, event: str) -> None:
        ready.set()
        await wait(inbox, event)

    monkeypatch.setattr(Inbox, "wait", announced)
    app, url = chat
    app.waiting.clear()
    app.cancelled.clear()
    with sync.connect(f"{url}/chat") as client:
        with interrupted(app.waiting):
            client.request("sleep", 60)
        assert app.cancelled.wait(5)
        with interrupted(ready):
            client.receive("never")
        ready.clear()
        assert client.request("sum", [1]) == 1
    client = sync.connect(f"{url}/chat")
    with interrupted(ready), client:
        client.receive("never")
    assert client.state == "closed"


def test_events_above_the_limit_are_dropped_counted_and_logged(
    chat: tuple[Chat, str], caplog: pytest.LogCaptureFixture
) -> None:
    with sync.connect(f"{chat[1]}/chat", max_queue=10) as client:
        client.request("burst", 10)
        assert client.dropped == 0
        assert client.request("burst", 25) == "done"
        assert client.dropped == 25
        assert [client.receive("number") for _ in range(10)] == list(range(15, 25))
        with pytest.raises(TimeoutError):
            client.receive("number", timeout=0)
        assert "1 received events were dropped so far, the last one 'number'" in caplog.text


@pytest.mark.beyond("client.max_queue_bytes")
def test_bytes_of_events_are_bounded_too(chat: tuple[Chat, str]) -> None:
    """They were bounded by 16 MiB, whatever the option said."""
    with sync.connect(f"{chat[1]}/chat", max_queue_bytes=4 * 1024 * 1024) as client:
        client.request("bulk", 50, timeout=60)
        assert 3_000_000 < client._receiver.inbox.bytes <= 4 * 1024 * 1024
        assert client.dropped == 50 - len(client._receiver.inbox)
        assert client.receive("big").endswith(f"x{client.dropped}")


@pytest.mark.within("client.sync._FLUSH_TIMEOUT")
def test_leaving_sends_what_is_queued() -> None:
    chat = Chat()
    with serving(chat.app) as url:
        client = sync.connect(f"{url}/chat", backoff=0.01)
        with client:
            with pytest.raises(DisconnectedError):
                client.request("restart")
            for number in range(100):
                client.emit("say", number)
        with sync.connect(f"{url}/chat") as other:
            other.request("sum", [])
        assert chat.got == list(range(100))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, SystemExit])
@pytest.mark.beyond("client.sync._FLUSH_TIMEOUT")
def test_leaving_without_a_server_takes_a_bounded_time(
    error: type[BaseException] | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_FLUSH_TIMEOUT", 0.2)
    chat = Chat()
    with serving(chat.app) as url:
        client = cut_off(url)
    with client if error is None else pytest.raises(error), client if error is not None else _nothing():
        client.emit("say", 1)
        client.emit("say", 2)
        if error is not None:
            raise error
    assert "2 messages were never sent" in caplog.text


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def test_a_full_queue_is_an_error() -> None:
    chat = Chat()
    with serving(chat.app) as url:
        client = cut_off(url, max_queue=3)
        for number in range(3):
            client.emit("say", number)
        with pytest.raises(QueueFullError):
            client.emit("say", 3)
        client.close(timeout=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_and_does_not_hang(chat: tuple[Chat, str]) -> None:
    with sync.connect(f"{chat[1]}/chat") as client:
        child = os.fork()
        if not child:
            code = 1
            try:
                for use in (
                    lambda: client.request("sum", [1]),
                    lambda: client.emit("say"),
                    lambda: client.receive("said"),
                    lambda: list(client.stream("count", 1)),
                ):
                    with pytest.raises(WrongThreadError, match="the process that forked this one"):
                        use()
                client.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.request("sum", [2]) == 2


_AT_EXIT = """
import atexit
import sys
import symphony.client.sync

client = symphony.client.sync.connect(sys.argv[1]).open()
stream = client.stream("count", 3)
print(client.request("sum", [1, 2]), next(stream))
atexit.register(lambda: print(client.request("sum", [2, 2])))


class Last:
    # Of the things that sys.modules has, this one is deleted after the threads have ended.
    def __init__(self, client, stream):
        self.client, self.stream = client, stream

    def __del__(self, write=sys.stdout.write):
        client, stream = self.client, self.stream
        for use in (
            lambda: client.request("sum", [1]),
            lambda: client.emit("say", 1),
            lambda: client.send("hi"),
            lambda: client.receive("said"),
            lambda: next(stream),
            lambda: client.stream("count", 1),
            lambda: client.join("room"),
            lambda: client.close(),
        ):
            try:
                use()
            except RuntimeError as error:
                write(f"{error}\\n")
            else:
                write("no error")


sys.modules["last"] = Last(client, stream)
"""


def test_it_does_not_hang_while_python_exits(chat: tuple[Chat, str]) -> None:
    """Daemon threads are frozen then, so that a result would never come."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_EXIT, f"{chat[1]}/chat"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    first, at_exit, *later = done.stdout.splitlines()
    assert (first, at_exit) == ("3 0", "4")
    assert len(later) == 8
    assert all("was used while Python exits" in each for each in later)


@pytest.mark.parametrize("what", ["in a cycle", "closed at exit"])
def test_python_exits_with_an_open_client(what: str, chat: tuple[Chat, str]) -> None:
    program = f"""
import atexit
import symphony.client.sync

class Cycle:
    pass

client = symphony.client.sync.connect("{chat[1]}/chat").open()
print(client.request("sum", [1, 2]))
if {what!r} == "in a cycle":
    cycle = Cycle()
    cycle.client, cycle.itself = client, cycle
else:
    atexit.register(client.close)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "3\n"
    assert "Traceback" not in done.stderr


def test_a_client_that_is_not_closed_warns(chat: tuple[Chat, str]) -> None:
    client = sync.connect(f"{chat[1]}/chat").open()
    assert client.request("sum", [1]) == 1
    with pytest.warns(ResourceWarning, match="was not closed"):
        del client


def test_it_works_beside_a_running_loop(chat: tuple[Chat, str]) -> None:
    """As in a notebook, or in an async view of Django that calls a synchronous function."""

    async def main() -> int:
        with sync.connect(f"{chat[1]}/chat") as client:
            return client.request("sum", [1, 2])

    assert asyncio.run(main()) == 3


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with listen() as server:
        with pytest.raises(DisconnectedError):
            await asyncio.to_thread(sync.connect(server.url, connect_timeout=0.1).open)
