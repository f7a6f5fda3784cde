"""Connecting through HTTP and SOCKS proxies, by option and by environment."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import uvloop

from client.rawserver import listen
from client.test_other_servers import echo
from support.clients import until
from support.proxies import http_proxy, socks_proxy
from symphony.client import connect
from symphony.client.address import parse_url
from symphony.client.link import DialError
from symphony.client.options import _context
from symphony.client.proxies import parse_proxy
from symphony.client.tunnels import Tunnel
from symphony.errors import DisconnectedError

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_every_loop() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ws", "wss", "http", "https", "all", "no", "socks"):
        for spelled in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(spelled, raising=False)


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def named(**options: Any) -> AsyncIterator[tuple[Any, str]]:
    """Give an echo server, and its address by a name that only a proxy knows."""
    async with echo(**options) as server:
        yield server, f"server.test:{urlsplit(server.url).port}"


HOSTS = {"server.test": "127.0.0.1"}


async def echoed(url: str, **options: Any) -> None:
    async with connect(url, raw=True, reconnect=False, **options) as client:
        client.send("hi")
        assert await anext(client) == "hi"


async def failure(url: str, **options: Any) -> DisconnectedError:
    options = {"raw": True, "reconnect": False, **options}
    with pytest.raises(DisconnectedError) as caught:
        await connect(url, **options)
    return caught.value


@on_every_loop()
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5h"])
@pytest.mark.parametrize("user", [None, "ann:s3cret", "ann@home:p:w d"], ids=str)
def test_every_kind_of_proxy(
    new_loop: Any,
    secure: bool,
    kind: str,
    user: str | None,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    async def run() -> None:
        options = {"ssl": server_context(authority, "server.test")} if secure else {}
        context = server_context(authority, "localhost") if kind == "https" else None
        proxied = socks_proxy(HOSTS) if kind == "socks5h" else http_proxy(HOSTS, context=context)
        async with named(**options) as (server, where), proxied as proxy:
            proxy.user = user
            name, _, password = (user or "").partition(":")
            quoted = f"{name}:{password}@".replace("@home", "%40home").replace("p:w d", "p%3Aw%20d")
            host = "localhost" if kind == "https" else "127.0.0.1"
            url = f"{kind}://{quoted if user else ''}{host}:{proxy.port}"
            more = {"ssl": client_context(authority)} if secure else {}
            await echoed(f"{'wss' if secure else 'ws'}://{where}/", proxy=url, **more)
            assert proxy.asked == [where]
            assert server.headers[0]["Host"] == where
            assert "Proxy-Authorization" not in server.headers[0]
            assert all("Sec-WebSocket" not in head for head in proxy.heads)

    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    _context.cache_clear()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run())
    finally:
        _context.cache_clear()


@pytest.mark.parametrize("kind", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_server_by_its_address(kind: str, host: str) -> None:
    async with (
        echo() as server,
        (http_proxy if kind == "http" else socks_proxy)({"::1": "127.0.0.1"}) as proxy,
    ):
        port = urlsplit(server.url).port
        await echoed(f"ws://{host}:{port}/", proxy=f"{kind}://127.0.0.1:{proxy.port}")
        assert proxy.asked == [f"{host if kind == 'http' else host.strip('[]')}:{port}"]


async def test_socks5_resolves_names_here_and_socks5h_at_the_proxy() -> None:
    async with echo() as server, socks_proxy({"localhost": "127.0.0.1", "::1": "127.0.0.1"}) as proxy:
        port = urlsplit(server.url).port
        for kind in ("socks5", "socks5h"):
            await echoed(f"ws://localhost:{port}/", proxy=f"{kind}://127.0.0.1:{proxy.port}")
        assert proxy.asked[0] in (f"127.0.0.1:{port}", f"::1:{port}")
        assert proxy.asked[1] == f"localhost:{port}"


@pytest.mark.parametrize(
    ("secure", "variables"),
    [
        (False, ["ws_proxy"]),
        (False, ["WS_PROXY"]),
        (False, ["http_proxy"]),
        (False, ["HTTP_PROXY"]),
        (False, ["ALL_PROXY"]),
        (False, ["ws_proxy", "http_proxy:bad", "all_proxy:bad"]),
        (False, ["http_proxy", "ALL_PROXY:bad", "https_proxy:bad"]),
        (True, ["wss_proxy"]),
        (True, ["HTTPS_PROXY"]),
        (True, ["https_proxy", "http_proxy:bad", "ws_proxy:bad"]),
        (True, ["wss_proxy", "https_proxy:bad"]),
    ],
    ids=str,
)
async def test_the_environment_names_it(
    secure: bool, variables: list[str], monkeypatch: pytest.MonkeyPatch, authority: trustme.CA
) -> None:
    options = {"ssl": server_context(authority, "server.test")} if secure else {}
    async with named(**options) as (_, where), http_proxy(HOSTS) as proxy:
        for variable in variables:
            name, _, bad = variable.partition(":")
            monkeypatch.setenv(name, "http://127.0.0.1:1" if bad else f"http://127.0.0.1:{proxy.port}")
        more = {"ssl": client_context(authority)} if secure else {}
        await echoed(f"{'wss' if secure else 'ws'}://{where}/", **more)
        assert proxy.asked == [where]
        # The option counts more than the environment.
        error = await failure(f"{'wss' if secure else 'ws'}://{where}/", proxy=False, **more)
        assert "the host 'server.test' is not known" in str(error)


@pytest.mark.parametrize("url", ["127.0.0.1:{}", "http://127.0.0.1:{}", "http://127.0.0.1:{}/"])
async def test_its_url_may_have_no_scheme(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        monkeypatch.setenv("http_proxy", url.format(proxy.port))
        await echoed(f"ws://{where}/")
        assert proxy.asked == [where]


@pytest.mark.parametrize("no_proxy", ["server.test", ".test", "*", "other.test, server.test:{port}"])
async def test_no_proxy_is_obeyed(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=where.split(":")[1]))
        error = await failure(f"ws://{where}/")
        assert "the host 'server.test' is not known" in str(error)
        assert proxy.asked == []
        monkeypatch.setenv("NO_PROXY", "other.test,server.test:1")
        await echoed(f"ws://{where}/")
        assert proxy.asked == [where]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
async def test_this_machine_is_reached_without_the_proxy_of_the_environment(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with echo() as server:
        if host == "127.1.2.3":
            # Nothing listens there, but no proxy is asked.
            error = await failure(server.url.replace("127.0.0.1", host))
            assert "nothing listens at 127.1.2.3" in str(error)
        else:
            await echoed(server.url.replace("127.0.0.1", host))


@pytest.mark.parametrize(
    ("status", "again"), [(502, True), (503, True), (429, True), (403, False), (404, False), (400, False)]
)
async def test_a_proxy_that_refuses(status: int, again: bool) -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        proxy.answer = f"HTTP/1.1 {status} No way\r\nContent-Length: 0\r\n\r\n".encode()
        url = f"http://127.0.0.1:{proxy.port}"
        error = await failure(f"ws://{where}/", proxy=url)
        assert f"the proxy {url} failed: HTTP {status} No way." in str(error)
        await failure(f"ws://{where}/", proxy=url, reconnect=True, connect_timeout=0.5, backoff=0.01)
        assert (len(proxy.asked) > 2) is again


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}", "http://ann:wrong@127.0.0.1:{}", "http://ann@127.0.0.1:{}"]
)
async def test_a_proxy_that_requires_a_user(url: str) -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        proxy.user = "ann:right"
        error = await failure(f"ws://{where}/", proxy=url.format(proxy.port), reconnect=True)
        assert "HTTP 407" in str(error)
        assert "password in its URL" in str(error) or "write them in its URL" in str(error)
        assert "wrong" not in str(error)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "url", ["socks5h://127.0.0.1:{}", "socks5h://ann:wrong@127.0.0.1:{}", "socks5h://ann@127.0.0.1:{}"]
)
async def test_a_socks_proxy_that_requires_a_user(url: str) -> None:
    async with named() as (_, where), socks_proxy(HOSTS) as proxy:
        proxy.user = "ann:right"
        error = await failure(f"ws://{where}/", proxy=url.format(proxy.port))
        assert "user and" in str(error)
        assert "wrong" not in str(error)
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "its rules do not allow it"),
        (4, "the host cannot be reached"),
        (5, "the server refused the connection"),
        (77, "error 77"),
    ],
)
async def test_a_socks_proxy_that_refuses(code: int, words: str) -> None:
    async with named() as (_, where), socks_proxy(HOSTS) as proxy:
        proxy.code = code
        assert words in str(await failure(f"ws://{where}/", proxy=f"socks5h://127.0.0.1:{proxy.port}"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"", "it ended the connection"),
        (b"HTTP/1.1 200", "it ended the connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nextra", "it sent data before the server could"),
        (b"x" * 200_000, "its answer is too long"),
    ],
    ids=["ssh", "nothing", "half", "extra", "long"],
)
@pytest.mark.beyond("client.tunnels._MAX_HEAD_BYTES")
async def test_a_proxy_that_is_not_one(answer: bytes, words: str) -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        proxy.answer = answer
        assert words in str(await failure(f"ws://{where}/", proxy=f"http://127.0.0.1:{proxy.port}"))
    if answer:
        async with socks_proxy(HOSTS) as proxy:
            pass
        assert "nothing listens" in str(
            await failure("ws://a.test/", proxy=f"socks5://127.0.0.1:{proxy.port}")
        )


@pytest.mark.within("client.tunnels._MAX_HEAD_BYTES")
async def test_a_proxy_may_say_much() -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        proxy.fields = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(60))
        await echoed(f"ws://{where}/", proxy=f"http://127.0.0.1:{proxy.port}")


async def test_a_proxy_that_says_nothing() -> None:
    async with listen() as silent:
        port = urlsplit(silent.url).port
        for scheme in ("http", "socks5h"):
            error = await failure("ws://a.test/", proxy=f"{scheme}://127.0.0.1:{port}", connect_timeout=0.2)
            assert f"the proxy {scheme}://127.0.0.1:{port} does not answer" in str(error)


async def test_a_client_comes_back_through_its_proxy() -> None:
    async with named() as (_, where), http_proxy(HOSTS) as proxy:
        client = connect(
            f"ws://{where}/", raw=True, proxy=f"http://127.0.0.1:{proxy.port}", backoff=0.01, max_backoff=0.01
        )
        async with client:
            await proxy.aclose()
            client.send("hi")
            await until(lambda: client.state == "open" and len(proxy.asked) == 2)
            client.send("there")
            async for message in client:
                if message == "there":
                    break
        assert proxy.asked == [where, where]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://proxy:21", "cannot be 'ftp'"),
        ("socks4://proxy:1080", "cannot be 'socks4'"),
        ("http://", "invalid"),
        ("http://proxy:99999", "invalid"),
        (f"socks5://{'u' * 256}@proxy", "at most 255 bytes"),
    ],
)
async def test_a_bad_url_is_refused_without_being_repeated(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=words):
        connect("ws://a.test/", proxy=url)
    monkeypatch.setenv("ALL_PROXY", url.replace("://", "://ann:s3cret@", 1))
    with pytest.raises(ValueError, match="all_proxy in the environment: ") as caught:
        connect("ws://a.test/")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_proxy_that_sends_without_end_does_not_fill_the_memory(scheme: str) -> None:
    """While the name of the server was looked up, all that a proxy sent was kept."""
    async with listen() as flood:
        proxy = parse_proxy(flood.url.replace("ws", scheme))
        _, tunnel = await asyncio.get_running_loop().create_connection(
            lambda: Tunnel(proxy), proxy.host, proxy.port
        )
        peer = await flood.peer()
        for _ in range(300):
            if tunnel.transport.is_reading():
                peer.write(b"\x05" * 100_000)
                await peer.writer.drain()
            await asyncio.sleep(0)
        assert len(tunnel._received) < 64 * 1024 + 256 * 1024
        with pytest.raises(DialError):
            await tunnel.lead_to(parse_url("ws://127.0.0.1/"), "127.0.0.1")
        tunnel.transport.abort()
