"""The broker and the presence store in a real Redis and a real Valkey, as the contracts say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from support.redisservers import RedisServer
from symphony.broker.base import Broker
from symphony.broker.engines import presence_beside
from symphony.broker.presence import PresenceStore
from symphony.testing import contracts


@pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
async def test_it_is_a_broker(
    check: Callable[[Broker], Awaitable[None]], empty: RedisServer, connect: Callable[..., Awaitable[Broker]]
) -> None:
    await check(await connect(empty))


@pytest.mark.parametrize("check", contracts.SHARED_BROKER, ids=lambda check: check.__name__)
async def test_processes_share_it(
    check: Callable[[Broker, Broker], Awaitable[None]],
    empty: RedisServer,
    connect: Callable[..., Awaitable[Broker]],
) -> None:
    await check(await connect(empty), await connect(empty))


@pytest.mark.parametrize("check", contracts.PRESENCE, ids=lambda check: check.__name__)
async def test_it_is_a_presence_store(
    check: Callable[[PresenceStore, Callable[[float], Awaitable[None]]], Awaitable[None]],
    empty: RedisServer,
    connect: Callable[..., Awaitable[Broker]],
) -> None:
    async def advance(seconds: float) -> None:
        empty.advance(seconds)

    await check(presence_beside(await connect(empty)), advance)
