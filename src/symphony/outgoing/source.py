"""Where an outbox gets the publications that must go before the next direct send."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Protocol

__all__ = ("NOWHERE", "Source")


class Source(Protocol):
    """Holds publications that must be sent before the next direct send."""

    @property
    def dirty(self) -> Collection[Any]:
        """The batches with publications; usually empty."""
        ...

    def take(self, recipient: Any) -> None:
        """Move the publications for *recipient* into its outbox."""
        ...


class _Nowhere:
    """The source of an outbox whose socket is in no room."""

    __slots__ = ("dirty",)

    def __init__(self) -> None:
        self.dirty: Collection[Any] = ()

    def take(self, recipient: Any) -> None:
        """Do nothing."""


NOWHERE: Final = _Nowhere()
"""The source of an outbox whose socket is in no room."""
