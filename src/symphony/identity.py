"""The identity of a socket's user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Identity",)


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a socket.

    Attributes:
        id: The user's id. It is the same for all sockets of the user.
        info: Public data about the user, such as a name or a picture.
    """

    id: str
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("Identity.id must not be empty.")
