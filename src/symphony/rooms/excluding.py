"""What `exclude=` names: sockets of this node, and targets that have sockets on other nodes, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from symphony.socket import Socket, recipient_of

if TYPE_CHECKING:
    from symphony.outgoing.batch import Recipient

__all__ = ("Excluded", "LeftOut", "SocketSet", "left_out_of", "names_of")


class SocketSet(Protocol):
    """What has sockets: every target."""

    @property
    def sockets(self) -> Iterable[Socket[Any]]:
        """The sockets of this process."""
        ...


Excluded: TypeAlias = "Socket[Any] | SocketSet | Iterable[Socket[Any] | SocketSet]"
"""What `exclude=` takes: sockets, `app.socket(id)` and other targets, one or several."""


class LeftOut(list["Recipient"]):
    """The recipients on this node that do not get a publication.

    Attributes:
        names: Targets whose sockets on other nodes do not get it either.
    """

    __slots__ = ("names",)

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []


def left_out_of(exclude: Excluded) -> Sequence[Recipient]:
    """Return the recipients of what `exclude=` names.

    Raises:
        TypeError: It is an id, or something without sockets.
    """
    if isinstance(exclude, Socket):
        return (recipient_of(exclude),)
    left_out = LeftOut()
    _add(left_out, exclude)
    return left_out


def names_of(left_out: Iterable[Recipient]) -> list[str]:
    """Return the targets that are left out on other nodes."""
    return left_out.names if isinstance(left_out, LeftOut) else []


def _add(left_out: LeftOut, exclude: Any) -> None:
    if isinstance(exclude, Socket):
        left_out.append(recipient_of(cast("Socket[Any]", exclude)))
        return
    if isinstance(exclude, str):
        raise TypeError(f"exclude= takes sockets, not the id {exclude!r}. Use app.socket(id).")
    # Targets have this. A set of sockets of the app's own does not: its sockets are on this node.
    left_out.names += getattr(exclude, "_names", ())
    for each in cast("Iterable[Any]", exclude.sockets if hasattr(exclude, "sockets") else exclude):
        _add(left_out, each)
