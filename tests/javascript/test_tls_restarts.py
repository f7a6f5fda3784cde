"""The JavaScript client in Node, and a TLS server that restarts."""

import asyncio
import socket
import ssl
import struct
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from support.certificates import Certificate
from support.ports import free_port
from support.servers import serve_natively
from symphony import Symphony

pytestmark = pytest.mark.timeout(120)

SCRIPT = Path(__file__).with_name("tls.js")
# How often the client has to meet what answers for the server.
ATTEMPTS = 4


class Front:
    """What answers at the port of the server while it is away."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.attempts = 0
        self.met = asyncio.Event()

    def attempt(self) -> None:
        self.attempts += 1
        if self.attempts == ATTEMPTS:
            self.met.set()

    @asynccontextmanager
    async def saying(self, answer: bytes | None) -> AsyncIterator[None]:
        """Answer each client hello with some bytes; `None`: with a reset."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.attempt()
            await reader.read(1)
            if answer is None:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            else:
                writer.write(answer)
            writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", self.port):
            yield

    @asynccontextmanager
    async def with_certificate(self, certificate: Certificate) -> AsyncIterator[None]:
        """Be a TLS server with a certificate that the client does not trust."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certfile, certificate.keyfile)
        context.sni_callback = lambda *_: self.attempt()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", self.port, ssl=context):
            yield


@asynccontextmanager
async def node(url: str, certificate: Certificate) -> AsyncIterator[Process]:
    """Run the client; it prints `open`, and then a line for each line that it is sent."""
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), url, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=certificate.environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


AWAY: dict[str, Callable[[Front, Certificate], AbstractAsyncContextManager[None]]] = {
    "an alert": lambda front, _: front.saying(b"\x15\x03\x03\x00\x02\x02\x50"),
    "a close": lambda front, _: front.saying(b""),
    "a reset": lambda front, _: front.saying(None),
    "plain HTTP": lambda front, _: front.saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "another certificate": lambda front, other: front.with_certificate(other),
}


@pytest.mark.parametrize("what", AWAY)
async def test_a_client_that_was_connected_comes_back_whatever_answers_meanwhile(
    what: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificate, other = Certificate(tmp_path), Certificate(tmp_path_factory.mktemp("other"))
    port = free_port()
    front = Front(port)
    app = Symphony()

    @app.on("ping")
    async def ping(data: int) -> int:
        return data

    async with node(f"wss://localhost:{port}", certificate) as client:
        async with serve_natively(app, port=port, **certificate.options):
            assert await line(client) == "open"
        async with AWAY[what](front, other):
            await front.met.wait()
        async with serve_natively(app, port=port, **certificate.options):
            assert await line(client) == "open"
            assert client.stdin is not None
            client.stdin.write(b"7\n")
            assert await line(client) == "7"
            client.stdin.close()
            assert await client.wait() == 0
