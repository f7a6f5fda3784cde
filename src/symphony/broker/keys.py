"""The keys of publications: a repeat with the same key publishes nothing."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from symphony.errors import Reject

if TYPE_CHECKING:
    from symphony.broker.base import Key
    from symphony.protocol.positions import Position

__all__ = ("KEY_WINDOW", "Keys")

logger = logging.getLogger("symphony.app")

KEY_WINDOW: Final = 300.0
"""For how many seconds a key is remembered. Clients stop retrying before that."""

# The most keys that are remembered at a time, and their most bytes.
_MAX_KEYS: Final = 500_000
_MAX_KEY_BYTES: Final = 128 * 1024 * 1024

# What an entry takes beside its texts: two tuples, the position, the place in the table.
_OVERHEAD: Final = 400


class Keys:
    """Remembers which key has led to which position.

    Attributes:
        forgotten: How many keys were forgotten before their time, because there were too many.
        size: The bytes of those that are remembered.
    """

    __slots__ = ("_entries", "_warn_after", "forgotten", "size")

    def __init__(self) -> None:
        # In the order of their times: (room, publisher, key) -> time, digest, position.
        self._entries: OrderedDict[tuple[str, str, str], tuple[float, bytes, Position]] = OrderedDict()
        self._warn_after = 0.0
        self.forgotten = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, room: str, key: Key, now: float) -> Position | None:
        """Return the position of the first publication with a key; `None`: it is new.

        Raises:
            Reject: `conflict`: the publication with this key had another content.
        """
        self._expire(now)
        entry = self._entries.get((room, key.publisher, key.key))
        if entry is None:
            return None
        _, digest, position = entry
        if digest != key.digest:
            raise Reject(
                "conflict",
                f"the key {key.key!r} was used for another publication to {room!r}: "
                "a repeat must have the same event and data",
                details={"key": key.key},
            )
        return position

    def remember(self, room: str, key: Key, position: Position, now: float) -> None:
        """Remember the position of the first publication with a key."""
        self._entries[room, key.publisher, key.key] = now, key.digest, position
        self.size += _size(room, key.publisher, key.key)
        while len(self._entries) > _MAX_KEYS or self.size > _MAX_KEY_BYTES:
            self._forget_oldest()
            self.forgotten += 1
            if now >= self._warn_after:
                self._warn_after = now + KEY_WINDOW
                logger.warning(
                    "Too many publications have a key: keys are forgotten before %d seconds have passed. "
                    "A publication that is repeated after that is published twice.",
                    KEY_WINDOW,
                )

    def clear(self) -> None:
        """Forget all keys."""
        self._entries.clear()
        self.size = 0

    def _expire(self, now: float) -> None:
        while self._entries and next(iter(self._entries.values()))[0] <= now - KEY_WINDOW:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        (room, publisher, key), _ = self._entries.popitem(last=False)
        self.size -= _size(room, publisher, key)


def _size(room: str, publisher: str, key: str) -> int:
    return len(room) + len(publisher) + len(key) + _OVERHEAD
