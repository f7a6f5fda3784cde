"""Frames of rooms that have a policy for members that do not read.

The policy of a room is for the frames of that room only. Each of them has a place in
`Outbox.places`, under the room and a number, or the key by which a later one replaces it.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

from symphony.outgoing.notices import tell_dropped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from symphony.outgoing.batch import Batch
    from symphony.outgoing.outbox import Outbox
    from symphony.outgoing.terms import Terms

__all__ = ("place", "without_rooms")

# What the notice about dropped frames may take.
_NOTICE: Final = 64

_numbers: Final = count()


def place(outbox: Outbox, frame: Any, terms: Terms) -> None:
    """Queue a frame of a room with a policy; if there is too much, do what the policy says."""
    batch = terms.batch
    key = (batch, terms.conflate if terms.conflate is not None else next(_numbers))
    size = len(frame)
    if outbox.size + size > outbox.limit and not outbox.sealed:
        if not outbox.blocked:
            outbox.flush()
        at = (outbox.places or {}).get(key)
        if at is not None:
            size -= len(outbox.frames[at])
        if outbox.size + size > outbox.limit and not _makes_room(outbox, batch, size):
            return
    outbox.replace(key, frame)


def without_rooms(outbox: Outbox, stale: int) -> int:
    """Apply the policies of rooms to their frames among the oldest.

    Args:
        outbox: The outbox.
        stale: How many frames are too old.

    Returns:
        How many of those that are left are too old.
    """
    old: dict[Batch, list[Any]] = {}
    for key, at in (outbox.places or {}).items():
        if at < stale and key[0].slow is not None:
            old.setdefault(key[0], []).append(key)
    # The notice about dropped frames is never too old.
    left = stale - sum(map(len, old.values())) - (outbox.frames[0] is outbox.notice)
    for batch, keys in old.items():
        if outbox.sealed:
            return 0
        places = outbox.places or {}
        if batch.slow == "drop_oldest":
            _drop(outbox, [places[key] for key in keys])
        elif batch.slow == "resync":
            _resync(outbox, batch, 0)
        elif batch.slow == "disconnect" and outbox.disconnect is not None:
            outbox.disconnect()
        # With "conflate", what is in an old place may be new.
    return left + (left > 0 and outbox.frames[0] is outbox.notice)


def _makes_room(outbox: Outbox, batch: Batch, size: int) -> bool:
    """Do what the policy of a room says; return whether a frame of it may be queued now."""
    if batch.slow == "drop_oldest":
        needed = outbox.size + size + _NOTICE - outbox.limit
        oldest: list[int] = []
        for at in _places_of(outbox, batch):
            if needed <= 0:
                break
            needed -= len(outbox.frames[at])
            oldest.append(at)
        _drop(outbox, oldest, more=int(needed > 0))
        return needed <= 0
    if batch.slow == "resync":
        _resync(outbox, batch, 1)
    elif outbox.disconnect is not None:
        outbox.disconnect()
    return False


def _resync(outbox: Outbox, batch: Batch, more: int) -> None:
    """Drop all frames of a room, and let the peer get what it needs."""
    if outbox.rebuild is None:
        # Without the handler, the client would have a part of the messages only.
        if outbox.disconnect is not None:
            outbox.disconnect()
        return
    _drop(outbox, _places_of(outbox, batch), more=more)
    outbox.rebuild()


def _places_of(outbox: Outbox, batch: Batch) -> list[int]:
    """Return where the frames of a room stand, the oldest first."""
    return [at for key, at in (outbox.places or {}).items() if key[0] is batch]


def _drop(outbox: Outbox, indices: Iterable[int], *, more: int = 0) -> None:
    """Drop frames, and tell the peer; *more* have not been queued at all."""
    gone = set(indices)
    if not gone and not more:
        return
    kept: list[Any] = []
    new_index: dict[int, int] = {}
    earlier, later = outbox.marks
    marks: list[Any] = [earlier, later]
    for index, frame in enumerate(outbox.frames):
        if index not in gone:
            new_index[index] = len(kept)
            kept.append(frame)
            continue
        outbox.size -= len(frame)
        for which, mark in enumerate((earlier, later)):
            if frame is mark:
                # All before it are as old.
                marks[which] = kept[-1] if kept else None
    outbox.frames[:] = kept
    outbox.marks = (marks[0], marks[1])
    if outbox.places is not None:
        outbox.places = {key: new_index[at] for key, at in outbox.places.items() if at in new_index}
    told = 0
    if outbox.frames and outbox.frames[0] is outbox.notice:
        told = outbox.untold
        outbox.size -= len(outbox.frames.pop(0))
        outbox.shift(1)
    tell_dropped(outbox, len(gone) + more, told)
