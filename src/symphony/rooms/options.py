"""The options of one publication, and which of them go together."""

from __future__ import annotations

from typing import Final, NamedTuple

from symphony.protocol.positions import Position

__all__ = ("PLAIN", "Delivery", "check", "delivery_of")


class Delivery(NamedTuple):
    """How one publication is delivered: the options of `emit` and `send`, without `exclude=`.

    Attributes:
        transient: Do not keep it in the history.
        volatile: Do not keep it, and skip members that are behind.
        conflate: It replaces the unwritten publication of its room that has the same key.
        key: A repeat with the same key is not published again.
        replaces: The position of the publication whose place in the history it takes.
    """

    transient: bool = False
    volatile: bool = False
    conflate: str | None = None
    key: str | None = None
    replaces: Position | None = None

    @property
    def is_kept(self) -> bool:
        """Whether a room with a history keeps it."""
        return not (self.transient or self.volatile)


PLAIN: Final = Delivery()


def delivery_of(
    transient: bool = False,
    volatile: bool = False,
    conflate: str | None = None,
    key: str | None = None,
    replaces: Position | None = None,
) -> Delivery:
    """Return the options of a call.

    Raises:
        TypeError: An option has another type.
        ValueError: A key is empty.
    """
    # Nearly all publications have no options.
    if not (transient or volatile) and conflate is None and key is None and replaces is None:
        return PLAIN
    for name, given in (("conflate", conflate), ("key", key)):
        if given is None:
            continue
        if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name}= is a text, not {given!r}.")
        if not given:
            raise ValueError(f"{name}= must not be empty.")
    if replaces is not None and not isinstance(replaces, Position):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"replaces= is a Position, not {replaces!r}.")
    return Delivery(transient, volatile, conflate, key, replaces)


def check(delivery: Delivery, *, room: str, history: bool, excludes: bool) -> None:
    """Refuse options that do not go together, whatever the broker.

    Args:
        delivery: The options.
        room: The name of the room, for the error.
        history: Whether the room has a history.
        excludes: Whether it leaves out a socket.

    Raises:
        ValueError: An option is not possible in this room, or not together with another.
    """
    if history and delivery.is_kept:
        if excludes:
            raise ValueError(_leaves_a_gap("exclude=", room))
        if delivery.conflate is not None:
            raise ValueError(_leaves_a_gap("conflate=", room))
        return
    for name, given in (("key=", delivery.key), ("replaces=", delivery.replaces)):
        if given is None:
            continue
        if history:
            other = "volatile=True" if delivery.volatile else "transient=True"
            raise ValueError(f"{name} needs a publication that is kept, but {other} is given, too.")
        raise ValueError(
            f"{name} needs a history, and the room {room!r} has none. "
            "Give its family one: app.rooms(…, history=100)."
        )


def _leaves_a_gap(option: str, room: str) -> str:
    return f"{option} would leave a gap in the history of {room!r}. Leave it out, or use transient=True."
