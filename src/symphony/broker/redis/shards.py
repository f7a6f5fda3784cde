"""The servers of a broker: one that has everything, or several that have a part of it each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, cast

from redis.exceptions import MovedError

from symphony.broker.redis.dialing import Dial, Source
from symphony.broker.redis.target import Address

__all__ = ("OneShard", "Shard", "Shards", "new_place")


class Shard:
    """A server that has all of the keys, or a part of them.

    Args:
        where: What it is called in messages.
        dial: Connects to it.
    """

    __slots__ = ("dial", "where")

    def __init__(self, where: str, dial: Dial) -> None:
        self.where = where
        self.dial = dial


class Shards(Protocol):
    """The shards of a broker. All keys and channels with one hash tag are in one *slot*.

    Attributes:
        is_cluster: Whether a slot may move from one server to another. Channels are then those of
            sharded publish/subscribe.
    """

    is_cluster: bool

    def slot_of(self, name: str) -> int:
        """Return the slot of a key or a channel."""
        ...

    def shard_of(self, slot: int) -> Shard | None:
        """Return the shard that has a slot; `None`: that is not known at this moment."""
        ...

    def all(self) -> Collection[Shard]:
        """Return all shards that have slots."""
        ...

    def watch(self, *, looked: Callable[[], object], moved: Callable[[], object]) -> None:
        """Be told of changes.

        Args:
            looked: Called each time after it was found out which shard has which slot.
            moved: Called when the connections to a shard have to be made anew.
        """
        ...

    def look(self, hint: Address | None = None) -> None:
        """Find out again which shard has which slot.

        Args:
            hint: A server that knows; `None`: any.
        """
        ...

    async def connect(self) -> None:
        """Find it out for the first time.

        Raises:
            BrokerUnavailableError: No server answers.
            ConfigurationError: The servers cannot be used.
        """
        ...

    def close(self) -> None:
        """Stop, because the app has stopped."""
        ...


def new_place(error: MovedError) -> Address:
    """Return host and port of the server that has a slot."""
    return cast("str", error.host), error.port  # pyright: ignore[reportUnknownMemberType]


class OneShard:
    """A server that has everything. See `Shards`.

    Args:
        source: Connects to it.
    """

    is_cluster = False

    def __init__(self, source: Source) -> None:
        self._source = source
        self._shard = Shard(source.where, source.dial)
        self._moved: list[Callable[[], object]] = []

    def slot_of(self, name: str) -> int:
        """See `Shards.slot_of`."""
        return 0

    def shard_of(self, slot: int) -> Shard:
        """See `Shards.shard_of`."""
        return self._shard

    def all(self) -> Collection[Shard]:
        """See `Shards.all`."""
        return (self._shard,)

    def watch(self, *, looked: Callable[[], object], moved: Callable[[], object]) -> None:
        """See `Shards.watch`."""
        self._moved.append(moved)

    def look(self, hint: Address | None = None) -> None:
        """See `Shards.look`: it is always the same one."""

    async def connect(self) -> None:
        """See `Shards.connect`."""
        self._source.watch(*self._moved)

    def close(self) -> None:
        """See `Shards.close`."""
        self._source.close()
