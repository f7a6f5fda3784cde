"""What a peer is told of frames that were dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony.protocol.envelopes import Dropped

if TYPE_CHECKING:
    from symphony.outgoing.outbox import Outbox

__all__ = ("tell_dropped",)


def tell_dropped(outbox: Outbox, count: int, told: int) -> None:
    """Count dropped frames, and queue what tells the peer, ahead of all other frames.

    Args:
        outbox: The outbox, which has no such notice any more.
        count: How many frames were dropped.
        told: How many the last notice has named, if that was dropped with them.
    """
    outbox.dropped += count
    if outbox.recipient is None:
        return
    outbox.untold = told + count
    outbox.notice = outbox.recipient.encoding.envelope(Dropped(outbox.untold))
    if outbox.notice is not None:
        outbox.frames.insert(0, outbox.notice)
        outbox.size += len(outbox.notice)
        outbox.shift(-1)
