"""The identity of a socket's user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ("Identity", "is_of_user", "room_of_user")


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
        if not isinstance(self.id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Identity.id is text, not {self.id!r}.")
        if not self.id:
            raise ValueError("Identity.id must not be empty.")


_USER: Final = "user:"


def room_of_user(id: str) -> str:
    """Return the name of the room of all sockets that are logged in as a user."""
    return _USER + id


def is_of_user(name: str) -> bool:
    """Return whether a room is that of a user: a socket is in it by its login alone."""
    return name.startswith(_USER)
