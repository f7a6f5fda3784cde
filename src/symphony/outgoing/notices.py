"""What a peer is told of frames that were dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony.protocol.envelopes import Dropped

if TYPE_CHECKING:
    from symphony.outgoing.batch import Recipient

__all__ = ("dropped_notice",)


def dropped_notice(recipient: Recipient, count: int) -> tuple[Any, int]:
    """Return the frame that names so many dropped messages, if its protocol has one, and the count."""
    return recipient.encoding.envelope(Dropped(count)), count
