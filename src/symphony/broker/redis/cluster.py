"""The shards of a Redis Cluster or a Valkey Cluster, and which of them has which slot."""

from __future__ import annotations

import asyncio
import random
from binascii import crc_hqx
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from symphony.broker.redis.commands import packed
from symphony.broker.redis.dialing import Connected, connect, connect_to_server, cut
from symphony.broker.redis.shards import Shard
from symphony.broker.redis.target import Address, Target, shown_address
from symphony.errors import BrokerUnavailableError, ConfigurationError
from symphony.tasks import start

__all__ = ("Cluster", "Slots", "slot_of")

_SLOTS: Final = 16_384
# How long one server may take to answer. There are others.
_PATIENCE: Final = 1.0
# Between two attempts to find out which server has which slot.
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


def slot_of(name: str) -> int:
    """Return the slot of a key or a channel: that of its hash tag, if it has one."""
    start = name.find("{")
    end = name.find("}", start + 1)
    if -1 < start < end - 1:
        name = name[start + 1 : end]
    # CRC16 in the variant XMODEM.
    return crc_hqx(name.encode(), 0) % _SLOTS


class Slots(NamedTuple):
    """What a server says of its cluster.

    Attributes:
        masters: The address of the server that has each slot; `None`: none.
        nodes: The addresses of all servers.
    """

    masters: list[Address | None]
    nodes: list[Address]

    @classmethod
    def of(cls, answer: Any, host: str, *, tls: bool) -> Slots:
        """Parse the answer to CLUSTER SHARDS.

        Args:
            answer: The answer.
            host: The host that was asked: servers that do not know theirs have the same.
            tls: Whether the ports for TLS are wanted.
        """
        masters: list[Address | None] = [None] * _SLOTS
        nodes: list[Address] = []
        for shard in map(_fields, answer):
            ranges = shard[b"slots"]
            for node in map(_fields, shard[b"nodes"]):
                port = node.get(b"tls-port" if tls else b"port")
                if port is None:
                    continue
                named = (node.get(b"endpoint") or node.get(b"ip") or b"").decode()
                address = (host if named in ("", "?") else named, int(port))
                nodes.append(address)
                if node[b"role"] == b"master" and node[b"health"] == b"online":
                    for first, last in zip(ranges[::2], ranges[1::2], strict=True):
                        masters[int(first) : int(last) + 1] = [address] * (int(last) - int(first) + 1)
        return cls(masters, nodes)


class Cluster:
    """The servers of a cluster. See `Shards`.

    Args:
        target: Where some of them are, and who connects.
        timeout: How many seconds the first look may take.
    """

    is_cluster = True

    def __init__(self, target: Target, *, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._shards: dict[Address, Shard] = {}
        self._slots: list[Shard | None] = [None] * _SLOTS
        self._nodes: list[Address] = []
        self._hints: dict[Address, None] = {}
        self._why = "it does not answer"
        self._watchers: list[Callable[[], object]] = []
        self._is_wanted = False
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def slot_of(self, name: str) -> int:
        """See `Shards.slot_of`."""
        return slot_of(name)

    def shard_of(self, slot: int) -> Shard | None:
        """See `Shards.server_of`."""
        return self._slots[slot]

    def all(self) -> Collection[Shard]:
        """See `Shards.all`."""
        return self._shards.values()

    def watch(self, *, looked: Callable[[], object], moved: Callable[[], object]) -> None:
        """See `Shards.watch`."""
        self._watchers.append(looked)

    def look(self, hint: Address | None = None) -> None:
        """See `Shards.look`."""
        if hint is not None and hint[0] not in ("", "?"):
            self._hints[hint] = None
        self._is_wanted = True
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = start(self._look())

    async def connect(self) -> None:
        """See `Shards.connect`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._find(again=False)
        except TimeoutError:
            raise BrokerUnavailableError(
                f"The broker {self._target.shown} cannot be reached: {self._why}"
            ) from None

    def close(self) -> None:
        """See `Shards.close`."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        pause = _PAUSE
        while self._is_wanted:
            self._is_wanted = False
            await self._find(again=True)
            for looked in self._watchers:
                looked()
            if None in self._slots:
                # A replica is about to take over, unless someone has forgotten a slot.
                self._is_wanted = True
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                pause = _PAUSE
            # When many slots move, not for each of them.
            await asyncio.sleep(pause)

    async def _find(self, *, again: bool) -> None:
        while True:
            for address in self._candidates():
                try:
                    async with asyncio.timeout(_PATIENCE):
                        slots = await self._slots_at(address)
                except (OSError, RedisError, LookupError, TypeError, ValueError) as error:
                    self._why = str(error) or "it does not answer"
                except ConfigurationError as error:
                    if not again:
                        raise
                    self._why = str(error)
                else:
                    if any(slots.masters):
                        self._take(slots)
                        return
                    self._why = f"{shown_address(address)} knows no server with slots"
            await asyncio.sleep(_PAUSE)

    def _candidates(self) -> Iterator[Address]:
        """Give whom to ask, each once: one of them may not know yet what has changed."""
        hints, self._hints = self._hints, {}
        nodes = random.sample(self._nodes, len(self._nodes))
        return iter(dict.fromkeys(chain(hints, nodes, self._target.addresses)))

    async def _slots_at(self, address: Address) -> Slots:
        connection = await connect(self._target.at(address))
        try:
            await connection.send_packed_command([packed("CLUSTER", "SHARDS")], check_health=False)
            answer = await connection.read_response(disable_decoding=True)
        except NoPermissionError as error:
            raise ConfigurationError(f"The broker {self._target.shown} refuses this user: {error}") from error
        except ResponseError as error:
            if "cluster support disabled" not in str(error):
                raise
            raise ConfigurationError(
                f"The broker {self._target.shown}: {shown_address(address)} is not a server of a cluster. "
                f"Write {self._target.at(address)._replace(cluster=False).shown}."
            ) from error
        finally:
            await cut(connection)
        return Slots.of(answer, address[0], tls=self._target.tls)

    def _take(self, slots: Slots) -> None:
        before = self._shards
        self._shards = {
            address: before.get(address) or self._shard_at(address)
            for address in dict.fromkeys(slots.masters)
            if address is not None
        }
        self._slots = [None if address is None else self._shards[address] for address in slots.masters]
        self._nodes = slots.nodes

    def _shard_at(self, address: Address) -> Shard:
        async def dial() -> Connected:
            try:
                async with asyncio.timeout(_PATIENCE):
                    return (await connect_to_server(self._target.at(address))).connection
            except BaseException:
                # Another one may have taken its place. Also if the caller has a shorter patience.
                self.look()
                raise

        return Shard(f"{self._target.shown} at {shown_address(address)}", dial)


def _fields(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
