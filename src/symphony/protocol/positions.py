"""Where a publication stands in the history of its room."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ("Position",)


class Position(Struct, frozen=True):
    """Where a publication stands in the history of its room.

    Two positions can only be compared if they have the same epoch.

    Attributes:
        epoch: Names one unbroken life of the history, such as a text of random
            characters. It has no other meaning.
        offset: The number of the publication in that life, from 1; 0 stands
            before the first.
    """

    epoch: Annotated[str, Meta(min_length=1, max_length=128)]
    offset: Annotated[int, Meta(ge=0, le=2**53 - 1)]
