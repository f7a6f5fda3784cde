"""The policies of rooms, at one outbox."""

from __future__ import annotations

from typing import Any

from symphony.outgoing.batch import Batch
from symphony.outgoing.outbox import Outbox
from symphony.outgoing.slow import without_rooms
from symphony.outgoing.terms import Terms
from symphony.protocol.envelopes import Dropped


class Encoding:
    def envelope(self, envelope: Dropped) -> bytes:
        return f"<{envelope.dropped}>".encode()


class Recipient:
    encoding = Encoding()


class Loop:
    def call_soon(self, *ignored: Any) -> None: ...


def make(limit: int = 200) -> tuple[Outbox, list[str]]:
    happened: list[str] = []
    outbox = Outbox(Loop(), lambda block: happened.append("write"), b"".join)  # type: ignore[arg-type]
    outbox.configure(
        limit=limit,
        high=50,
        low=10,
        overflow=lambda: happened.append("overflow"),
        disconnect=lambda: happened.append("disconnect"),
    )
    outbox.recipient = Recipient()
    return outbox, happened


def put(outbox: Outbox, batch: Batch, text: str, conflate: str | None = None) -> None:
    outbox.place(text.encode().ljust(20, b"."), Terms(batch, conflate=conflate))


def frames(outbox: Outbox) -> list[str]:
    return [frame.decode().strip(".") for frame in outbox.frames]


def test_the_oldest_of_the_room_make_room_and_no_others() -> None:
    outbox, happened = make()
    batch, other = Batch("a", slow="drop_oldest"), Batch("b", slow="drop_oldest")
    for number in range(3):
        put(outbox, other, f"b{number}")
        put(outbox, batch, f"a{number}")
    outbox.put(b"direct")
    for number in range(3, 9):
        put(outbox, batch, f"a{number}")
    # The notice, and all that fits.
    assert frames(outbox)[0] == f"<{outbox.dropped}>"
    left = frames(outbox)[1:]
    assert [each for each in left if each.startswith("b")] == ["b0", "b1", "b2"]
    assert [each for each in left if each.startswith("a")] == [
        f"a{number}" for number in range(outbox.dropped, 9)
    ]
    assert "direct" in left
    assert outbox.size == sum(map(len, outbox.frames)) <= outbox.limit
    assert happened == []


def test_if_others_fill_the_outbox_the_new_one_is_dropped() -> None:
    outbox, happened = make()
    batch = Batch("a", slow="drop_oldest")
    outbox.put(b"x" * 190)
    put(outbox, batch, "a0")
    put(outbox, batch, "a1")
    assert frames(outbox) == ["<2>", "x" * 190]
    assert outbox.dropped == 2
    assert happened == []


def test_places_are_right_after_some_frames_have_gone() -> None:
    outbox, _ = make()
    dropping, conflating = Batch("a", slow="drop_oldest"), Batch("b", slow="conflate")
    put(outbox, dropping, "a0")
    put(outbox, conflating, "b0", "key")
    for number in range(1, 9):
        put(outbox, dropping, f"a{number}")
        put(outbox, conflating, f"b{number}", "key")
    assert [each for each in frames(outbox) if each.startswith("b")] == ["b8"]
    assert outbox.places is not None
    for (room, _), at in outbox.places.items():
        assert frames(outbox)[at][0] == room.name


def test_disconnect_and_a_resync_without_a_handler() -> None:
    for slow in ("disconnect", "conflate", "resync"):
        outbox, happened = make()
        batch = Batch("a", slow=slow)
        for number in range(11):
            put(outbox, batch, str(number))
        assert happened == ["disconnect"], slow


def test_resync_drops_all_of_the_room() -> None:
    outbox, happened = make()
    outbox.rebuild = lambda: happened.append("rebuild")
    batch = Batch("a", slow="resync")
    outbox.put(b"direct")
    for number in range(10):
        put(outbox, batch, str(number))
    assert frames(outbox) == ["<10>", "direct"]
    assert happened == ["rebuild"]


def test_what_is_too_old() -> None:
    for slow, left, expected in (
        ("drop_oldest", 1, ["<3>", "direct", "new"]),
        ("conflate", 1, ["old", "direct", "old", "old", "new"]),
        ("resync", 1, ["<4>", "direct"]),
    ):
        outbox, happened = make()
        outbox.rebuild = lambda: None
        batch = Batch("a", slow=slow)
        put(outbox, batch, "old")
        outbox.put(b"direct")
        put(outbox, batch, "old")
        put(outbox, batch, "old")
        put(outbox, batch, "new")
        found = without_rooms(outbox, 4)
        assert frames(outbox) == expected, slow
        # If there is a notice, it counts as one of those that are left.
        assert found == left + (outbox.notice is not None)
        assert happened == []


def test_a_notice_is_not_too_old() -> None:
    outbox, _ = make()
    batch = Batch("a", slow="drop_oldest")
    for number in range(12):
        put(outbox, batch, str(number))
    assert frames(outbox)[0].startswith("<")
    assert without_rooms(outbox, len(outbox.frames)) == 0
    assert frames(outbox) == ["<12>"]


def test_a_mark_that_has_gone_is_replaced_by_the_frame_before_it() -> None:
    outbox, _ = make()
    batch = Batch("a", slow="drop_oldest")
    outbox.put(b"direct")
    put(outbox, batch, "a0")
    outbox.marks = (outbox.frames[0], outbox.frames[1])
    for number in range(1, 12):
        put(outbox, batch, f"a{number}")
    assert outbox.marks == (b"direct", b"direct")
