"""How a connection ended, on whichever side."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("Close",)


class Close(NamedTuple):
    """How a connection ended.

    Attributes:
        code: The close code (RFC 6455 §7.4): of whoever closed first; 1005 if
            the peer gave none, 1006 if the connection was lost.
        reason: What was said with it.
        clean: Whether both sides exchanged close frames.
    """

    code: int
    reason: str
    clean: bool

    def __str__(self) -> str:
        """Give code and reason on one line: a peer must not write lines of its own into a log."""
        reason = self.reason if self.reason.isprintable() else ascii(self.reason)
        return f"{self.code} {reason}".rstrip()
