"""The ways to a server: redirects, Unix sockets, and several addresses of one host."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from client.rawserver import RawPeer, listen
from client.test_other_servers import echo
from support.servers import serve_natively
from symphony import Symphony
from symphony.client import connect, reaching
from symphony.client.options import _context
from symphony.errors import DisconnectedError


async def failure(url: str, **options: Any) -> DisconnectedError:
    with pytest.raises(DisconnectedError) as caught:
        await connect(url, **{"raw": True, "reconnect": False, **options})
    return caught.value


def redirect(peer: RawPeer, location: str, status: int = 302) -> None:
    peer.write(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/there?a=b", "/there?a=b"),
        ("there", "/from/there"),
        ("http://{host}/x", "/x"),
        ("ws://{host}/x#part", "/x"),
        ("//{host}/x", "/x"),
    ],
)
async def test_a_redirect_within_the_origin_is_followed(status: int, location: str, target: str) -> None:
    async with listen() as server:
        host = urlsplit(server.url).netloc
        client = connect(f"ws://{host}/from/here", raw=True, token="t", headers={"Cookie": "a=1"})
        opening = asyncio.ensure_future(client._open())
        first = await server.peer()
        await first.read_request()
        redirect(first, location.format(host=host), status)
        second = await server.accept(None)
        await opening
        assert second.request.split(" ")[1] == target
        assert (second.header("authorization"), second.header("cookie")) == ("Bearer t", "a=1")
        # It is not remembered: the next connection begins at the URL of the program.
        second.cut()
        third = await server.accept(None)
        assert third.request.split(" ")[1] == "/from/here"
        third.cut()
        await client.close()


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}/",
        "ws://localhost:{port}/",
        "ws://example.com/",
        "//evil.test/x",
        "https://evil.test:{port}/",
        "ws://ann:secret@127.0.0.1:{port}/",
        "ftp://127.0.0.1:{port}/",
        "mailto:ann@example.com",
        "http://[/",
        "",
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(location: str) -> None:
    """It would carry the token and the cookies to a server that the program did not name."""
    async with listen() as server, listen() as other:
        port, elsewhere = urlsplit(server.url).port, urlsplit(other.url).port
        failing = asyncio.ensure_future(failure(server.url, token="t", headers={"Cookie": "a=1"}))
        peer = await server.peer()
        await peer.read_request()
        redirect(peer, location.format(port=port, other=elsewhere))
        error = await failing
        assert "HTTP 302" in str(error)
        assert other.peers.empty()
        assert server.peers.empty()


@pytest.mark.within("client.redirects.MAX_REDIRECTS")
@pytest.mark.beyond("client.redirects.MAX_REDIRECTS")
async def test_redirects_are_bounded() -> None:
    async with listen() as server:
        failing = asyncio.ensure_future(failure(server.url))
        for at in range(6):
            peer = await server.peer()
            await peer.read_request()
            redirect(peer, f"/{at}")
        assert "it redirected more than 5 times" in str(await failing)
        assert server.peers.empty()
        client = connect(server.url, raw=True)
        opening = asyncio.ensure_future(client._open())
        for at in range(5):
            peer = await server.peer()
            await peer.read_request()
            redirect(peer, f"/{at}")
        peer = await server.accept(None)
        await opening
        peer.cut()
        await client.close()


async def test_ws_may_be_redirected_to_wss_but_not_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _context.cache_clear()
    try:
        async with listen() as plain, echo(ssl=context) as secure:
            there = secure.url.replace("ws://127.0.0.1", "https://localhost")
            opening = asyncio.ensure_future(
                connect(plain.url.replace("127.0.0.1", "localhost"), raw=True, token="t")._open()
            )
            peer = await plain.peer()
            await peer.read_request()
            redirect(peer, there)
            client = await opening
            client.send("hi")
            assert await anext(client) == "hi"
            assert secure.headers[0]["Authorization"] == "Bearer t"
            await client.close()
    finally:
        _context.cache_clear()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with listen(context) as secured, listen() as plain:
        failing = asyncio.ensure_future(failure(secured.url.replace("127.0.0.1", "localhost"), ssl=trusting))
        peer = await secured.peer()
        await peer.read_request()
        redirect(peer, plain.url.replace("127.0.0.1", "localhost"))
        assert "HTTP 302" in str(await failing)
        assert plain.peers.empty()


@pytest.mark.usefixtures("each_loop")
async def test_a_unix_socket(tmp_path: Path) -> None:
    app = Symphony()
    route = app.route("/chat")

    @route.on("sum")
    async def add(data: list[int]) -> int:
        return sum(data)

    path = str(tmp_path / "app.sock")
    async with serve_on(app, path):
        async with connect("ws://localhost/chat", unix=path) as client:
            assert await client.request("sum", [1, 2]) == 3
        error = await failure("ws://localhost/nothing", unix=path, raw=False)
        assert "404" in str(error)
    for missing in (path, str(tmp_path / "never.sock"), str(tmp_path)):
        error = await failure("ws://localhost/chat", unix=missing)
        assert f"unix:{missing}" in str(error)


@asynccontextmanager
async def serve_on(app: Symphony, path: str) -> AsyncIterator[None]:
    """Serve on a Unix socket, by way of a TCP port."""
    async with serve_natively(app) as url:
        port = urlsplit(url).port

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, out = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, out), pump(there, writer))
            out.close()
            writer.close()

        server = await asyncio.start_unix_server(forward, path)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()
            Path(path).unlink(missing_ok=True)  # noqa: ASYNC240


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.write_eof()


@pytest.mark.parametrize("options", [{"proxy": "http://127.0.0.1:1"}, {"proxy": "socks5://127.0.0.1:1"}])
async def test_a_unix_socket_has_no_proxy(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not reached through a proxy"):
        connect("ws://localhost/", unix="/x", **options)


Info = tuple[int, int, int, str, Any]


def v4(address: str, port: int) -> Info:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


def v6(address: str, port: int) -> Info:
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))


def resolving_to(monkeypatch: pytest.MonkeyPatch, infos: Sequence[Info]) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> Sequence[Info]:
        return infos

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("dead", [1, 2, 5])
async def test_addresses_that_refuse_are_skipped(dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with echo() as server:
        port = urlsplit(server.url).port or 0
        refusing = [v6("::1", port), *(v4(f"127.0.0.{at}", port) for at in range(2, 6))][:dead]
        resolving_to(monkeypatch, [*refusing, v4("127.0.0.1", port)])
        async with connect(f"ws://many.test:{port}/", raw=True) as client:
            client.send("hi")
            assert await anext(client) == "hi"
        resolving_to(monkeypatch, refusing)
        assert "nothing listens at many.test" in str(await failure(f"ws://many.test:{port}/"))


async def test_an_address_that_does_not_answer_does_not_delay_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that loses IPv6 packets made each attempt wait for 2 s."""
    async with echo() as server:
        port = urlsplit(server.url).port or 0
        loop = asyncio.get_running_loop()
        connecting, asked = loop.sock_connect, []
        silent = loop.create_future()

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            asked.append(address[0])
            if address[0] != "127.0.0.1":
                await silent
            await connecting(sock, address)

        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        monkeypatch.setattr(reaching, "_HEAD_START", 0.01)
        resolving_to(
            monkeypatch,
            [v6("fd00::a", port), v6("fd00::b", port), v4("127.0.0.1", port), v4("127.0.0.9", port)],
        )
        async with connect(f"ws://many.test:{port}/", raw=True) as client:
            client.send("hi")
            assert await anext(client) == "hi"
        # The families take turns (RFC 8305 §4).
        assert asked == ["fd00::a", "127.0.0.1"]
        silent.cancel()


async def test_giving_up_leaves_no_attempt_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    silent = loop.create_future()
    socks: list[socket.socket] = []

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        socks.append(sock)
        await silent

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    monkeypatch.setattr(reaching, "_HEAD_START", 0.01)
    resolving_to(monkeypatch, [v4("127.0.0.1", 9), v4("127.0.0.2", 9), v4("127.0.0.3", 9)])
    error = await failure("ws://many.test:9/", connect_timeout=0.1)
    assert "many.test:9 does not answer" in str(error)
    assert len(socks) == 3
    await asyncio.sleep(0)
    assert [sock.fileno() for sock in socks] == [-1, -1, -1]


def link_local() -> str | None:
    """Return an address of this machine that needs a zone."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        digits, _, _, scope, _, name = line.split()
        if scope == "20":
            address = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
            return f"{address}%{name}"
    return None


@pytest.mark.usefixtures("each_loop")
@pytest.mark.parametrize("spelled", ["%25", "%"])
async def test_an_ipv6_address_with_a_zone(spelled: str) -> None:
    scoped = link_local()
    if scoped is None:
        pytest.skip("this machine has no link-local address")
    hosts: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(reader, writer)
        await peer.accept(None)
        hosts.append(peer.header("host"))
        writer.close()

    info = socket.getaddrinfo(scoped, 0, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(socket.AF_INET6)
    sock.bind(info[4])
    server = await asyncio.start_server(handle, sock=sock)
    port = sock.getsockname()[1]
    url = f"ws://[{scoped.replace('%', spelled)}]:{port}/"
    try:
        client = await connect(url, raw=True, reconnect=False)
        with pytest.raises(DisconnectedError):
            await anext(client)
        await client.close()
        assert hosts == [f"[{scoped.partition('%')[0]}]:{port}"]
        assert "is not known" in str(await failure(url.replace(scoped.partition("%")[2], "nosuch0")))
    finally:
        server.close()
