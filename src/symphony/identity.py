"""Who a socket speaks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Identity",)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a socket speaks for.

    Attributes:
        id: The user's id; the same on all of the user's sockets.
        info: What others may know, such as a name or a picture.
    """

    id: str
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("Identity.id must not be empty.")
