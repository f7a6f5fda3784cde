"""Every engine, as the contract says."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from symphony import BrokerUnavailableError, Limits
from symphony.broker.base import Broker
from symphony.broker.engines import open_broker, serve
from symphony.broker.ipc import ServedBroker
from symphony.broker.ipc import serve as serve_engine
from symphony.testing import contracts

LIMITS = Limits()

Connect = Callable[[], Awaitable[Broker]]


def served(kind: str) -> ServedBroker:
    if kind == "ipc over TCP":
        return serve_engine(lambda: open_broker("memory://", LIMITS), tcp=True)
    return serve("memory://", LIMITS)


@pytest.fixture(params=["memory", "ipc", "ipc over TCP"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Return what makes a broker; all of them have the same store."""
    kind: str = request.param
    async with AsyncExitStack() as stack:
        url = f"{kind}://"
        if kind.startswith("ipc"):
            server = served(kind)
            stack.callback(server.close)
            url = server.url

        async def made() -> Broker:
            broker = await open_broker(url, LIMITS)
            stack.callback(broker.close)
            return broker

        yield made


@pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
async def test_it_is_a_broker(check: Callable[[Broker], Awaitable[None]], connect: Connect) -> None:
    await check(await connect())


@pytest.mark.parametrize("connect", ["ipc", "ipc over TCP"], indirect=True)
@pytest.mark.parametrize("check", contracts.SHARED_BROKER, ids=lambda check: check.__name__)
async def test_processes_share_it(
    check: Callable[[Broker, Broker], Awaitable[None]], connect: Connect
) -> None:
    await check(await connect(), await connect())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Unix sockets have owners and modes")
def test_only_its_user_can_reach_the_socket_and_nothing_is_left_of_it() -> None:
    server = serve("memory://", LIMITS)
    path = Path(urlsplit(server.url).path)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        server.close()
    assert not path.parent.exists()


async def test_a_process_of_another_user_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("memory://", LIMITS)
    uid = os.getuid()
    # Both ends compare with the user of their own process.
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    try:
        with pytest.raises(BrokerUnavailableError):
            await open_broker(server.url, Limits(publish_timeout=0.2))
    finally:
        monkeypatch.undo()
        server.close()
    assert "another user" in caplog.text
