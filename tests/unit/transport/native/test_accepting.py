"""What accept(2) reports, and whether the server goes on."""

import asyncio
import errno
import os
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from support.clients import until
from symphony.limits import Limits
from symphony.stats import Stats
from symphony.transport.native.accepting import Doorman, Listener
from symphony.transport.native.crowd import Crowd, Place


class Failing(socket.socket):
    """A listening socket whose next calls of accept(2) report errors."""

    failures: list[int]

    def accept(self) -> Any:
        if self.failures:
            number = self.failures.pop()
            raise OSError(number, os.strerror(number))
        return super().accept()


class App:
    limits = Limits()
    stats = Stats()


def listen(failures: list[int], connected: asyncio.Event) -> Listener:
    class Connected(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            connected.set()
            transport.abort()

    bound = Failing()
    bound.failures = failures
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    bound.setblocking(False)
    app: Any = App()
    return Listener(bound, Doorman(Crowd(None), app, lambda _: False), lambda _: Connected(), None)


@pytest.mark.parametrize(
    "number",
    [
        errno.EPROTO,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.ECONNRESET,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ECONNABORTED,
    ],
)
async def test_the_server_accepts_the_next_connection_after_an_error(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    connected = asyncio.Event()
    listener = listen([number] * 3, connected)
    _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    async with asyncio.timeout(10):
        await connected.wait()
    writer.close()
    listener.close()
    await listener.wait_closed()
    lines = [record.getMessage() for record in caplog.records if record.name == "symphony.transport"]
    # A client that has left before it was accepted is no fault.
    assert len(lines) == (number != errno.ECONNABORTED)
    assert all(os.strerror(number) in line for line in lines)


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
async def test_a_listening_socket_that_is_gone_ends_it(number: int, caplog: pytest.LogCaptureFixture) -> None:
    listener = listen([number], asyncio.Event())
    _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    async with asyncio.timeout(10):
        await listener.wait_closed()
    writer.close()
    with pytest.raises(OSError, match=os.strerror(number)):
        await listener._accepting
    assert "The server stopped accepting connections." in caplog.text


@pytest.mark.parametrize("clients", [1, 2, 5])
async def test_a_connection_that_is_accepted_as_the_server_stops_is_answered(clients: int) -> None:
    """Its client may have sent a handshake. Without an answer, it would not know that it may come again."""
    loop = asyncio.get_running_loop()

    class Closing(Doorman):
        def admit(self, host: str | None) -> Place | None:
            loop.call_soon(listener.close)
            return super().admit(host)

    class Answering(asyncio.Protocol):
        def __init__(self, place: Place) -> None:
            self._place = place

        def connection_made(self, transport: Any) -> None:
            transport.write(b"503")
            transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._place.leave()

    app: Any = App()
    crowd = Crowd(None)
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    with ExitStack() as stack:
        address = bound.getsockname()
        crowding = [stack.enter_context(socket.create_connection(address)) for _ in range(clients)]
        listener = Listener(bound, Closing(crowd, app, lambda _: False), Answering, None)
        async with asyncio.timeout(10):
            await listener.wait_closed()
            await listener.connected()
        await until(lambda: crowd.total == 0)
        for client in crowding:
            client.settimeout(10)
            assert client.recv(3) == b"503"


class OnAllAddresses(socket.socket):
    """A listening socket that says that it listens on all addresses."""

    def getsockname(self) -> Any:
        return "0.0.0.0", super().getsockname()[1]


@pytest.mark.parametrize("kind", [socket.socket, OnAllAddresses])
async def test_a_connection_knows_the_addresses_of_both_ends(kind: type[socket.socket]) -> None:
    places: list[Place] = []
    connected = asyncio.Event()

    class Connected(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            connected.set()
            transport.abort()

    def protocol(place: Place) -> asyncio.BaseProtocol:
        places.append(place)
        return Connected()

    app: Any = App()
    bound = kind()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    bound.setblocking(False)
    listener = Listener(bound, Doorman(Crowd(None), app, lambda _: False), protocol, None)
    _, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
    async with asyncio.timeout(10):
        await connected.wait()
    assert places[0].client == writer.get_extra_info("sockname")
    assert places[0].server == writer.get_extra_info("peername")
    writer.close()
    listener.close()
    await listener.wait_closed()


async def test_a_protocol_that_cannot_be_made_costs_its_connection_only() -> None:
    app: Any = App()
    crowd = Crowd(None)
    failures: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def protocol(place: Place) -> asyncio.BaseProtocol:
        raise MemoryError

    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = Listener(bound, Doorman(crowd, app, lambda _: False), protocol, None)
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
    assert [type(failure) for failure in failures] == [MemoryError] * 2
    assert crowd.total == 0
    listener.close()
    await listener.wait_closed()
