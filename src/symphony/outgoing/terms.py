"""Hot path, beside step 4: publications that not every slow member gets.

Most publications have no terms. Each member gets them, and the limits of its outbox
decide what happens if it does not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batch, Entry, Recipient

__all__ = ("Fallen", "Terms", "conflated", "hand", "no_longer_behind", "not_behind", "take_out")


class Terms:
    """What a publication asks for at members that are slow.

    Attributes:
        batch: The room.
        position: Where it stands in the history. A member above the high-water mark
            gets it from there, later.
        volatile: Whether members above the low-water mark do not get it.
        conflate: It replaces the unwritten publication of the room that has this key.
    """

    __slots__ = ("batch", "conflate", "position", "volatile")

    def __init__(
        self,
        batch: Batch,
        *,
        position: Position | None = None,
        volatile: bool = False,
        conflate: str | None = None,
    ) -> None:
        self.batch = batch
        self.position = position
        self.volatile = volatile
        self.conflate = conflate


def hand(recipient: Recipient, frame: Any, terms: Terms) -> bool:
    """Put a frame into the outbox of a recipient, as its terms say.

    Returns:
        Whether the recipient falls behind in the room: it gets this publication and the
        later ones from the history.
    """
    outbox = recipient.outbox
    if terms.position is not None:
        if recipient.behind is not None and terms.batch in recipient.behind:
            return False
        if outbox.size > outbox.high and not outbox.sealed:
            return True
        outbox.put(frame)
    elif terms.volatile and outbox.size > outbox.low:
        outbox.dropped += 1
    elif terms.batch.slow is not None:
        outbox.place(frame, terms)
    elif terms.conflate is not None:
        outbox.replace((terms.batch, terms.conflate), frame)
    else:
        outbox.put(frame)
    return False


def conflated(entries: list[Entry]) -> list[Entry]:
    """Return the entries without those that a later one of the same turn replaces.

    The later one stands in the place of the first.
    """
    kept: list[Entry] = []
    places: dict[tuple[Batch, str], int] = {}
    for entry in entries:
        terms = entry[2]
        if terms is not None and terms.conflate is not None:
            key = terms.batch, terms.conflate
            at = places.get(key)
            if at is not None:
                kept[at] = entry
                continue
            places[key] = len(kept)
        kept.append(entry)
    return kept


class Fallen:
    """The recipients that have fallen behind in this turn.

    They stay among the recipients of the room until `settle`, because the caller may be
    iterating over these.

    Attributes:
        waiting: Room, recipient, and the position after which it gets the history.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[Batch, Recipient, Position]] = []

    def add(self, recipient: Recipient, terms: Terms) -> None:
        """Let a recipient get no publication of the room from this one on."""
        first = terms.position
        assert first is not None
        if recipient.behind is None:
            recipient.behind = set()
        recipient.behind.add(terms.batch)
        self.waiting.append((terms.batch, recipient, Position(first.epoch, first.offset - 1)))

    def forget(self, batch: Batch, recipient: Recipient) -> None:
        """Note that a recipient has left a room in which it may have fallen behind."""
        if recipient.behind is not None and batch in recipient.behind:
            not_behind(batch, recipient)
            self.waiting = [one for one in self.waiting if one[0] is not batch or one[1] is not recipient]

    def settle(self) -> None:
        """Hand them to their rooms."""
        waiting, self.waiting = self.waiting, []
        for batch, recipient, position in waiting:
            batch.fell_behind(recipient, position)


def not_behind(batch: Batch, recipient: Recipient) -> None:
    """Note that a recipient gets the publications of a room as they come."""
    behind = recipient.behind
    assert behind is not None
    behind.discard(batch)
    if not behind:
        recipient.behind = None


def take_out(batch: Batch, recipient: Recipient) -> Any:
    """Let *recipient* get no more publications of *batch*; return its owner."""
    recipients = batch.recipients[recipient.encoding]
    owner = recipients.pop(recipient)
    if not recipients:
        del batch.recipients[recipient.encoding]
    return owner


def no_longer_behind(batch: Batch, recipient: Recipient) -> Any:
    """Let *recipient* get the publications of *batch* as they come; return its owner."""
    not_behind(batch, recipient)
    return batch.behind.pop(recipient)
