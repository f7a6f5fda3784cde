"""Clients of event routes, in either codec, that are not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from support.clients import Client, connect
from symphony import Position


class Member:
    """A client of an event route, in one of the codecs."""

    def __init__(self, client: Client, codec: str = "json") -> None:
        self.client = client
        self._codec = msgspec.json if codec == "json" else msgspec.msgpack
        self._text = codec == "json"

    async def say(self, envelope: dict[str, Any]) -> None:
        message = self._codec.encode(envelope)
        await self.client.send(message.decode() if self._text else message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return self._codec.decode(await self.client.recv())

    async def hears(self, *expected: dict[str, Any]) -> None:
        heard = [await self.hear() for _ in expected]
        for found, wanted in zip(heard, expected, strict=True):
            assert {key: found.get(key) for key in wanted} == wanted, heard

    async def join(self, room: str, id: int = 1, **fields: Any) -> Position:
        """Join a room; return the position where its publications begin."""
        await self.say({"join": room, "id": id, **fields})
        joined = await self.hear()
        assert joined["joined"] == room, joined
        await self.hears({"reply": id, "data": None})
        return Position(**joined["position"])


@asynccontextmanager
async def member(url: str, codec: str = "json", path: str = "/") -> AsyncIterator[Member]:
    """Connect a member."""
    async with connect(f"{url}{path}", subprotocols=[f"symphony.v1.{codec}"]) as client:
        yield Member(client, codec)
