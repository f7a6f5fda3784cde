"""Redis with TLS: `rediss://` and `rediss+sentinel://`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Certificate
from support.clients import until
from support.redissentinels import RedisSentinel, wait_until
from support.redisservers import RedisServer, redis_binary
from symphony import ConfigurationError, Limits
from symphony.broker.base import History, Record
from symphony.broker.engines import open_broker
from symphony.testing.drafts import data_of, draft

pytestmark = pytest.mark.timeout(60)


def with_tls(certificate: Certificate, folder: Path, port: int) -> tuple[str, ...]:
    """Return the options of a server that has TLS on the next port."""
    return (
        *("--tls-port", str(port + 1), "--tls-replication", "yes"),
        *("--tls-cert-file", certificate.certfile, "--tls-key-file", certificate.keyfile),
        *("--tls-ca-cert-file", str(folder / "authority.pem")),
    )


class TlsServer(RedisServer):
    """A server that has TLS on the next port, for clients with a certificate."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        super().__init__(folder, redis_binary())
        self._certificate = certificate

    def arguments(self, port: int) -> tuple[str, ...]:
        return (*super().arguments(port), *with_tls(self._certificate, self.folder, port))


class TlsSentinel(RedisSentinel):
    """A sentinel that has TLS on the next port."""

    def __init__(self, folder: Path, watched: int, certificate: Certificate) -> None:
        super().__init__(folder / "sentinel", watched, 100_000)
        self._certificate = certificate

    def arguments(self, port: int) -> tuple[str, ...]:
        return (*super().arguments(port), *with_tls(self._certificate, self.folder.parent, port))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.fixture
def tls_server(tmp_path: Path, certificate: Certificate) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path, certificate)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def options(folder: Path, certificate: Certificate) -> str:
    return (
        f"?ssl_ca_certs={folder / 'authority.pem'}"
        f"&ssl_certfile={certificate.certfile}&ssl_keyfile={certificate.keyfile}"
    )


async def publishes_and_hears(url: str) -> None:
    broker = await open_broker(url, Limits())
    heard: list[Record] = []
    try:
        await broker.subscribe("a", heard.append)
        await broker.publish("a", draft(1), History(10))
        await until(lambda: heard)
        assert [data_of(record) for record in heard] == [1]
    finally:
        broker.close()


async def test_both_sides_show_their_certificates(
    tls_server: TlsServer, tmp_path: Path, certificate: Certificate
) -> None:
    url = f"rediss://127.0.0.1:{tls_server.port + 1}/0{options(tmp_path, certificate)}"
    await publishes_and_hears(url)
    # The certificate is for this name, too.
    await publishes_and_hears(url.replace("127.0.0.1", "localhost"))


async def test_a_server_that_is_not_trusted_is_an_error(tls_server: TlsServer) -> None:
    with pytest.raises(ConfigurationError, match="certificate verify failed"):
        await open_broker(f"rediss://ann:hidden@127.0.0.1:{tls_server.port + 1}/0", Limits())


async def test_sentinels_and_servers_have_tls(
    tls_server: TlsServer, tmp_path: Path, certificate: Certificate
) -> None:
    sentinel = TlsSentinel(tmp_path, tls_server.port + 1, certificate)
    try:
        sentinel.start()
        wait_until(lambda: "num-slaves" in sentinel.command("SENTINEL", "MASTER", "mymaster"))
        url = f"rediss+sentinel://127.0.0.1:{sentinel.port + 1}/mymaster{options(tmp_path, certificate)}"
        await publishes_and_hears(url)
    finally:
        sentinel.kill()
