"""How a connection ended, seen from either side."""

from __future__ import annotations

from typing import Final, NamedTuple

from symphony.printable import printable

__all__ = ("COMES_BACK", "Close")

COMES_BACK: Final = frozenset((1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4421, 4429, 4503))
"""The close codes after which clients reconnect."""


class Close(NamedTuple):
    """How a connection ended.

    Attributes:
        code: The close code (RFC 6455 §7.4) of the side that closed first;
            1005 if the peer gave none, 1006 if the connection was lost.
        reason: The reason that was sent with the code.
        clean: Whether both sides exchanged close frames.
    """

    code: int
    reason: str
    clean: bool

    def is_final(self, by_server: bool) -> bool:
        """Return whether the socket has left for good; otherwise its client may come back.

        Args:
            by_server: Whether the server has closed it, with a code of its choice.
        """
        return self.code == 1000 or (by_server and self.code not in COMES_BACK)

    def __str__(self) -> str:
        """Return code and reason on one line, so that a peer cannot forge log lines."""
        return f"{self.code} {printable(self.reason)}".rstrip()
