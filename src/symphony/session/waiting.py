"""The messages that wait for their handler, in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

__all__ = ("Waiting",)


class Waiting:
    """A queue from which any event can be removed in constant time.

    A client may cancel thousands of waiting requests at once. With a deque,
    each cancellation would search all of the others.
    """

    __slots__ = ("_by_key", "_repeated")

    def __init__(self) -> None:
        # Not a dict: to find its first key, it passes over all that were removed before.
        self._by_key: OrderedDict[int, Any] = OrderedDict()
        self._repeated = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_key.values())

    def append(self, message: Any) -> None:
        """Add a message at the end."""
        key = id(message)
        if key in self._by_key:
            # Equal texts may be the same object. Only events are removed, and each is an object of its own.
            self._repeated = key = self._repeated - 1
        self._by_key[key] = message

    def popleft(self) -> Any:
        """Remove the first message and return it."""
        return self._by_key.popitem(last=False)[1]

    def remove(self, message: Any) -> bool:
        """Remove an event; return whether it was waiting."""
        if self._by_key.get(id(message)) is not message:
            return False
        del self._by_key[id(message)]
        return True

    def clear(self) -> None:
        """Remove all messages."""
        self._by_key.clear()
