"""A TLS server that restarts: for a moment it answers with an alert, or with another certificate."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import trustme

from client.opened import fast, opened
from client.scripted import Server, serve
from client.test_connecting import QuietLoop, certified
from support.clients import until
from symphony.client import connect
from symphony.errors import DisconnectedError


class Front:
    """What is in front of a TLS server: it relays, or answers handshakes with an alert of OpenSSL."""

    def __init__(self, authority: trustme.CA) -> None:
        self.server_context = certified(authority, "localhost")
        self.server_context.sni_callback = self._choose
        self.certificate: ssl.SSLContext | None = None
        self.alerting: ssl.SSLContext | None = None
        self.attempts = 0
        self.backend = 0

    def _choose(self, socket: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        if self.certificate is not None:
            socket.context = self.certificate

    def answer(self, context: ssl.SSLContext) -> None:
        """Answer from now on with the certificate of a context, or with an alert if it refuses clients."""
        self.attempts = 0
        self.certificate = context
        if context.sni_callback is not None or context.verify_mode is ssl.CERT_REQUIRED:
            self.alerting = context

    def relent(self) -> None:
        """Be what it was before."""
        self.certificate = self.alerting = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        try:
            if self.alerting is not None:
                await alert(self.alerting, reader, writer)
            else:
                there = await asyncio.open_connection("127.0.0.1", self.backend)
                await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))
        finally:
            writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def alert(context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Handshake until OpenSSL refuses, and send its alert, which asyncio's servers do not do."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while True:
        incoming.write(await reader.read(65536))
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
        except ssl.SSLError:
            writer.write(outgoing.read())
            return


@asynccontextmanager
async def restarting() -> AsyncIterator[tuple[Server, Front, trustme.CA, ssl.SSLContext]]:
    """Give a server, its front, its authority, and the context of a client that trusts it."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    front = Front(authority)
    async with serve(ssl=front.server_context) as server:
        front.backend = urlsplit(server.url).port or 0
        listening = await asyncio.start_server(front.connected, "127.0.0.1", 0)
        server.url = f"wss://localhost:{listening.sockets[0].getsockname()[1]}/chat"
        with QuietLoop():
            yield server, front, authority, trusting
        listening.close()


def refusing(description: int) -> Callable[[trustme.CA], ssl.SSLContext]:
    def make(authority: trustme.CA) -> ssl.SSLContext:
        context = certified(authority, "localhost")
        context.sni_callback = lambda socket, name, context: description
        return context

    return make


def that_asks_for_a_certificate(authority: trustme.CA) -> ssl.SSLContext:
    """With TLS 1.3, its alert arrives when the handshake is done for the client."""
    context = certified(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def of_another_host(authority: trustme.CA) -> ssl.SSLContext:
    return certified(authority, "other.example")


def of_another_issuer(authority: trustme.CA) -> ssl.SSLContext:
    return certified(trustme.CA(), "localhost")


def expired(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority.issue_cert("localhost", not_after=yesterday).configure_cert(context)
    return context


ANSWERS: dict[str, tuple[Callable[[trustme.CA], ssl.SSLContext], str]] = {
    "handshake failure": (refusing(ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE), "HANDSHAKE_FAILURE"),
    "internal error": (refusing(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR), "INTERNAL_ERROR"),
    "unrecognized name": (refusing(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME), "UNRECOGNIZED_NAME"),
    "access denied": (refusing(ssl.ALERT_DESCRIPTION_ACCESS_DENIED), "ACCESS_DENIED"),
    "certificate required": (that_asks_for_a_certificate, "CERTIFICATE_REQUIRED"),
    "another host": (of_another_host, "Hostname mismatch"),
    "another issuer": (of_another_issuer, "is not accepted"),
    "expired": (expired, "certificate has expired"),
}


@pytest.mark.parametrize("code", [1012, None], ids=["1012", "cut"])
@pytest.mark.parametrize("what", ANSWERS)
async def test_a_client_that_was_connected_waits_for_the_certificate(
    what: str, code: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    make, says = ANSWERS[what]
    async with restarting() as (server, front, authority, trusting):
        client = connect(server.url, ssl=trusting, **fast)
        peer = await opened(server, client)
        front.answer(make(authority))
        if code is None:
            await peer.drop()
        else:
            await peer.close(code, "restarting")
        await until(lambda: front.attempts >= 3)
        assert client.state in ("waiting", "connecting")
        await client.emit("said", "meanwhile")
        front.relent()
        peer = await server.accept()
        assert await peer.receive() == {"event": "said", "data": "meanwhile"}
        await until(lambda: client.state == "open")
        await client.close()
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # Once, whatever the number of attempts.
    assert len(warned) == 1
    assert says.lower() in warned[0].lower()
    assert "so it tries again" in warned[0]


@pytest.mark.parametrize("what", ANSWERS)
async def test_it_gives_up_after_some_time(what: str) -> None:
    make, says = ANSWERS[what]
    async with restarting() as (server, front, authority, trusting):
        client = connect(server.url, ssl=trusting, give_up_after=0.05, **fast)
        peer = await opened(server, client)
        asking = asyncio.ensure_future(client.request("sum", timeout=30, idempotent=True))
        await peer.receive()
        front.answer(make(authority))
        await peer.drop()
        with pytest.raises(DisconnectedError, match=f"(?i){says}"):
            await asking
        assert (await client.wait_closed()).code == 1015
