"""Which hosts a server answers for, and what a request may say about that."""

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.raw import Response, dial, handshake
from symphony import Symphony


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("page")


def served(**options: Any) -> Symphony:
    app = Symphony(http=Starlette(routes=[Route("/page", page)]), **options)
    app.mount("/mounted", Starlette(routes=[Route("/page", page)]))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    return app


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", *lines, "", "")).encode()


async def answered(url: str, request: bytes) -> Response:
    async with await dial(url) as client:
        await client.send(request)
        return await client.response()


PAGES = ("/page", "/mounted/page", "/_symphony/client.js")


async def statuses(url: str, host: str) -> list[int]:
    origin = f"http://{host}"
    found = [(await answered(url, handshake(host=host, origin=origin))).status]
    found += [(await answered(url, get(path, f"Host: {host}"))).status for path in PAGES]
    return found


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "x"]
)
async def test_a_server_on_a_loopback_address_answers_for_this_machine_only(
    native, complaints, monkeypatch, host: str
):
    """DNS rebinding: a page of evil.example, which now resolves to 127.0.0.1, has the
    origin of the request's host. So it was let in, and read what a developer's server sent.
    """
    # Otherwise only the first test within a second is told.
    monkeypatch.setattr("symphony.complaints._EVERY", 0.0)
    async with native(served()) as url:
        assert await statuses(url, f"{host}:8080") == [403] * 4
        response = await answered(url, handshake(host=host))
        assert f'hosts=[\\"{host}\\"]' in response.body.decode()
        assert "--proxy-headers" in complaints[-1]
        assert f'Symphony(hosts=["{host}"])' in complaints[-1]
        complaints.clear()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:1", "127.0.0.1:65535"])
async def test_a_server_on_a_loopback_address_answers_for_localhost(native, host: str):
    async with native(served()) as url:
        assert await statuses(url, host) == [101, 200, 200, 200]


@pytest.mark.parametrize(
    ("hosts", "host", "is_allowed"),
    [
        (["example.com"], "example.com", True),
        (["example.com"], "localhost", False),
        (["*.example.com"], "a.example.com:8080", True),
        (["*.example.com"], "example.com", False),
        (["*"], "evil.example", True),
        ([], "localhost", False),
    ],
)
async def test_listed_hosts_are_the_only_ones(
    native, complaints, hosts: Sequence[str], host: str, is_allowed: bool
):
    async with native(served(hosts=hosts)) as url:
        assert await statuses(url, host) == ([101, 200, 200, 200] if is_allowed else [403] * 4)
        complaints.clear()


async def test_behind_a_trusted_proxy_any_host_is_taken_unless_they_are_listed(native, complaints):
    async with native(served(), proxy_headers=True) as url:
        assert await statuses(url, "example.com") == [101, 200, 200, 200]
    async with native(served(hosts=["example.com"]), proxy_headers=True) as url:
        assert await statuses(url, "example.com") == [101, 200, 200, 200]
        assert await statuses(url, "example.org") == [403] * 4
        complaints.clear()


async def test_a_server_on_all_addresses_takes_any_host(native):
    async with native(served(), host="0.0.0.0") as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert await statuses(url, "anything.example") == [101, 200, 200, 200]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Host: localhost", "Host: localhost"),
        ("Host: localhost", "Host: evil.example"),
        ("Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"),
        ("Host: localhost", "Origin: http://localhost", "Origin: http://localhost"),
    ],
)
async def test_a_request_that_names_its_host_or_origin_not_once_is_400(
    native, path: str, lines: tuple[str, ...]
):
    upgrade = (
        handshake(path, host=None).removesuffix(b"\r\n") + "".join(f"{line}\r\n" for line in lines).encode()
    )
    async with native(served()) as url:
        assert (await answered(url, get(path, *lines))).status == 400
        assert (await answered(url, upgrade + b"\r\n")).status == 400


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/page", 200),
        ("http://LOCALHOST:80/page", 200),
        ("http://evil.example/page", 400),
        ("http://localhost:81/page", 400),
        ("http://localhost@evil.example/page", 400),
        ("http://evil.example/page?http://localhost", 400),
    ],
)
async def test_an_absolute_target_agrees_with_the_host(native, target: str, status: int):
    async with native(served()) as url:
        assert (await answered(url, get(target, "Host: localhost"))).status == status
        upgraded = await answered(url, handshake(target))
        assert upgraded.status == (101 if status == 200 else 400)


async def test_http_1_0_needs_no_host(native):
    """Health checks of load balancers speak it. Browsers do not."""
    async with native(served()) as url:
        assert (await answered(url, b"GET /page HTTP/1.0\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    ("entry", "origin", "is_allowed"),
    [
        ("file://", "file://", True),
        ("file://", "null", False),
        ("app://.", "app://.", True),
        ("app://.", "app://-", False),
        ("tauri://localhost", "tauri://localhost", True),
        ("http://localhost:*", "http://localhost:5173", True),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "https://localhost:5173", False),
        ("http://localhost:*", "http://localhost.evil.example:5173", False),
        ("https://*.example.com:*", "https://a.example.com:8443", True),
        ("http://[::1]:*", "http://[::1]:3000", True),
    ],
)
async def test_origins_of_desktop_apps_and_of_every_port_can_be_listed(
    native, complaints, entry: str, origin: str, is_allowed: bool
):
    async with native(served(origins=[entry])) as url:
        response = await answered(url, handshake(host="127.0.0.1", origin=origin))
        assert response.status == (101 if is_allowed else 403)
        complaints.clear()
