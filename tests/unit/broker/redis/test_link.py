"""One connection to a Redis server, without the server."""

import asyncio
from collections.abc import Iterable

import pytest

from symphony.broker.redis.link import RedisLink


class Silent:
    """A connection on which nothing comes."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = True) -> None: ...

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> object:
        await asyncio.Event().wait()
        return None

    async def disconnect(self, nowait: bool = False) -> None:
        self.ended.set()


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_link_that_is_closed_ends_its_connection_however_early(turns: int) -> None:
    connection, lost = Silent(), []
    link = RedisLink(connection, lambda link, answer: None, lost.append)
    for _ in range(turns):
        await asyncio.sleep(0)
    link.close()
    async with asyncio.timeout(5):
        await connection.ended.wait()
    assert lost == [link]
