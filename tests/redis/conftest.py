from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.redisclusters import RedisCluster
from support.redissentinels import Replicated
from support.redisservers import RedisServer, redis_binary, valkey_binary
from symphony import Limits
from symphony.broker.base import Broker
from symphony.broker.engines import open_broker

LIMITS = Limits()

Connect = Callable[..., Awaitable[Any]]
Servers = RedisServer | Replicated | RedisCluster


@pytest.fixture(
    scope="session",
    params=["redis", "valkey", "sentinel", "replica", "redis cluster", "valkey cluster"],
)
def clocked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server whose clock can be put forward, one with a replica, or a cluster. Tests share it."""
    folder = tmp_path_factory.mktemp("redis")
    server: Servers
    kind, _, cluster = request.param.partition(" ")
    if kind == "sentinel":
        server = Replicated(folder, clocks=True)
    elif request.param == "replica":
        server = Replicated(folder, clocks=True, options="?ack=replica")
    else:
        binary = redis_binary() if kind == "redis" else valkey_binary()
        if cluster:
            server = RedisCluster(folder, binary, replicas=0, node_timeout=3_600_000, clock=True)
        else:
            server = RedisServer(folder, binary, clock=True)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def empty(clocked: Servers) -> Servers:
    """The same, with nothing in it."""
    clocked.command("FLUSHALL")
    return clocked


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of its own, which may be killed."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), redis_binary())
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisCluster]]:
    """Return what gives a cluster without replicas of `redis` or `valkey`. Tests share it."""
    started: dict[str, RedisCluster] = {}

    def cluster_of(kind: str) -> RedisCluster:
        cluster = started.get(kind)
        if cluster is None:
            binary = redis_binary() if kind == "redis" else valkey_binary()
            # None of its servers fails, however long a test stops it.
            folder = tmp_path_factory.mktemp("cluster")
            cluster = started[kind] = RedisCluster(folder, binary, replicas=0, node_timeout=3_600_000)
            cluster.start()
        cluster.command("FLUSHALL")
        return cluster

    yield cluster_of
    for cluster in started.values():
        cluster.kill()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return what connects to a server."""
    async with AsyncExitStack() as stack:

        async def made(server: Servers, limits: Limits = LIMITS) -> Broker:
            broker = await open_broker(server.url, limits)
            stack.callback(broker.close)
            return broker

        yield made
