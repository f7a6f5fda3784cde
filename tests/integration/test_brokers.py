"""Every engine, as the contract says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from symphony import Limits
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
