from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.outgoing.outbox import Outbox
from symphony.websocket.backpressure import READY

CHUNK = 128 * 1024


class Loop:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()


class Untold:
    """A recipient whose protocol cannot tell it of dropped frames."""

    @property
    def encoding(self) -> Untold:
        return self

    def envelope(self, envelope: object) -> None:
        return None


class Wire:
    """A transport that pauses its writer, as they do, from inside of `write`."""

    def __init__(self, capacity: float = float("inf")) -> None:
        self.writes: list[bytes] = []
        self.capacity = capacity
        self.outbox: Outbox

    def write(self, block: bytes) -> None:
        assert not self.outbox.blocked
        self.writes.append(block)
        self.capacity -= len(block)
        if self.capacity <= 0:
            self.outbox.block()

    @property
    def text(self) -> str:
        return b"".join(self.writes).decode()


class Rooms:
    """What waits in a source, for one member."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.dirty: list[bytes] = []
        outbox.source, outbox.recipient = self, Untold()

    def take(self, member: Any) -> None:
        assert isinstance(member, Untold)
        frames, self.dirty = self.dirty, []
        for frame in frames:
            self.outbox.put(frame)


def make(
    loop: Any = None,
    wire: Wire | None = None,
    *,
    limit: int = 1_000_000,
    high: int = 1000,
    low: int = 100,
    overflow: Callable[[], None] | None = None,
    blocked: bool = False,
) -> tuple[Outbox, Wire, Loop]:
    loop, wire = loop or Loop(), wire or Wire()
    wire.outbox = outbox = Outbox(loop, wire.write, b"".join)
    outbox.configure(limit=limit, high=high, low=low, overflow=overflow)
    if not blocked:
        outbox.unblock()
    return outbox, wire, loop


# Cork


def test_frames_of_one_iteration_leave_in_one_write() -> None:
    outbox, wire, loop = make()
    for frame in (b"a", b"b", b"c"):
        outbox.send(frame)
    assert wire.writes == []
    loop.turn()
    assert wire.writes == [b"abc"]
    outbox.send(b"d")
    loop.turn()
    assert wire.writes == [b"abc", b"d"]


def test_one_flush_is_scheduled_an_iteration() -> None:
    outbox, _, loop = make()
    outbox.send(b"a")
    outbox.send(b"b")
    assert len(loop.soon) == 1
    loop.turn()
    assert loop.soon == []


def test_none_is_scheduled_while_a_flush_is_coming_anyway() -> None:
    outbox, wire, loop = make()
    outbox.corked = True
    outbox.send(b"a")
    outbox.send(b"b")
    assert loop.soon == []
    outbox.flush()
    assert wire.writes == [b"ab"]
    outbox.send(b"c")
    loop.turn()
    assert wire.writes == [b"ab", b"c"]


def test_a_flush_of_nothing_writes_nothing() -> None:
    outbox, wire, _ = make()
    outbox.flush()
    assert wire.writes == []


def test_a_loop_of_sends_writes_early_rather_than_pile_up() -> None:
    outbox, wire, loop = make(high=10)
    for _ in range(11):
        outbox.send(b"x")
    assert wire.writes == [b"x" * 11]
    outbox.send(b"y")
    loop.turn()
    assert wire.text == "x" * 11 + "y"


# Blocked


def test_it_starts_blocked_and_keeps_what_is_sent_before_the_handshake_is_answered() -> None:
    outbox, wire, loop = make(blocked=True)
    outbox.send(b"early")
    loop.turn()
    outbox.flush()
    assert wire.writes == []
    assert outbox.size == 5
    outbox.unblock()
    assert wire.writes == [b"early"]
    assert outbox.size == 0


def test_what_comes_while_it_is_blocked_leaves_behind_what_waited() -> None:
    outbox, wire, loop = make()
    outbox.send(b"a")
    outbox.block()
    outbox.send(b"b")
    loop.turn()
    assert wire.writes == []
    outbox.unblock()
    outbox.send(b"c")
    loop.turn()
    assert wire.text == "abc"


def test_a_blocked_outbox_schedules_nothing() -> None:
    outbox, _, loop = make()
    outbox.block()
    outbox.send(b"a")
    assert loop.soon == []


# Chunks


def test_much_leaves_in_chunks_so_that_what_waits_can_still_be_dropped() -> None:
    frames = [bytes([65 + index]) * (CHUNK // 2) for index in range(5)]
    outbox, wire, _ = make(high=10**9, limit=10**9, blocked=True)
    for frame in frames:
        outbox.send(frame)
    outbox.unblock()
    assert [len(block) for block in wire.writes] == [CHUNK, CHUNK, CHUNK // 2]
    assert b"".join(wire.writes) == b"".join(frames)
    assert (outbox.size, len(outbox.frames)) == (0, 0)


def test_a_frame_above_the_chunk_size_leaves_alone_and_whole() -> None:
    frames = [b"a", b"b" * (2 * CHUNK), b"c"]
    outbox, wire, _ = make(high=10**9, limit=10**9, blocked=True)
    for frame in frames:
        outbox.send(frame)
    outbox.unblock()
    assert wire.writes == frames


def test_chunks_stop_where_the_transport_is_full() -> None:
    wire = Wire(capacity=CHUNK)
    outbox, wire, _ = make(wire=wire, high=10**9, limit=10**9, blocked=True)
    for name in b"abcd":
        outbox.send(bytes([name]) * (CHUNK // 2))
    outbox.unblock()
    assert [len(block) for block in wire.writes] == [CHUNK]
    assert outbox.size == CHUNK
    wire.capacity = 10**9
    outbox.unblock()
    assert b"".join(wire.writes) == b"".join(bytes([name]) * (CHUNK // 2) for name in b"abcd")
    assert outbox.size == 0


# High and low water


async def test_below_the_high_water_mark_nobody_waits() -> None:
    outbox, _, _ = make(high=10, blocked=True)
    outbox.send(b"x" * 10)
    assert outbox.drained() is READY
    await outbox.drained()


async def test_drained_waits_above_the_high_water_mark_until_the_low_one() -> None:
    wire = Wire(capacity=0)
    outbox, wire, _ = make(wire=wire, high=2 * CHUNK, low=CHUNK, limit=10**9, blocked=True)
    for _ in range(5):
        outbox.send(b"x" * CHUNK)
    waiters = [asyncio.ensure_future(outbox.drained()) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(3):
        # One chunk each: 4, 3, 2 are above the low-water mark.
        outbox.unblock()
        await asyncio.sleep(0)
        assert not any(waiter.done() for waiter in waiters)
    outbox.unblock()
    await asyncio.gather(*waiters)
    assert outbox.size == CHUNK


async def test_a_waiter_that_gave_up_does_not_hinder_the_others() -> None:
    outbox, _, _ = make(high=10, low=0, blocked=True)
    outbox.send(b"x" * 11)
    earlier, now, stays = (asyncio.ensure_future(outbox.drained()) for _ in range(3))
    await asyncio.sleep(0)
    earlier.cancel()
    await asyncio.sleep(0)
    now.cancel()
    outbox.unblock()
    await stays
    assert earlier.cancelled()
    assert now.cancelled()


async def test_sealing_lets_go_of_who_waits_and_nobody_waits_after_it() -> None:
    outbox, _, _ = make(high=10, low=0, blocked=True)
    outbox.send(b"x" * 11)
    waiter = asyncio.ensure_future(outbox.drained())
    await asyncio.sleep(0)
    outbox.seal(b"close")
    await waiter
    await outbox.drained()


async def test_a_loop_that_sends_to_a_sealed_outbox_lets_others_run() -> None:
    outbox, _, _ = make()
    outbox.seal()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    for _ in range(10):
        outbox.send(b"x")
        assert outbox.size > outbox.high
        await outbox.drained()
    counting.cancel()
    assert turns >= 9
    assert outbox.dropped == 10


def futures() -> int:
    gc.collect()
    return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())


async def test_awaitables_that_nobody_awaits_leave_nothing_behind() -> None:
    """`socket.send(x)` without `await` is fine, so a slow client must not cost a future a send."""
    outbox, _, _ = make(high=10, limit=20, blocked=True)
    before = futures()
    for _ in range(500):
        outbox.send(b"x" * 11)
        outbox.drained()
    assert futures() - before < 100


async def test_waits_that_time_out_leave_nothing_behind() -> None:
    outbox, _, _ = make(high=10, blocked=True)
    outbox.send(b"x" * 11)
    before = futures()
    for _ in range(500):
        waiter = asyncio.ensure_future(outbox.drained())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait((waiter,))
    del waiter
    assert futures() - before < 100


# Limit


def test_what_passes_the_limit_is_told_once_and_the_callee_may_seal() -> None:
    outbox, wire, _ = make(limit=20, high=10, overflow=lambda: overflow(), blocked=True)
    calls: list[int] = []

    def overflow() -> None:
        calls.append(outbox.size)
        outbox.seal(b"close 1013", discard=True)

    for _ in range(4):
        outbox.send(b"x" * 10)
    assert calls == [30]
    assert outbox.dropped == 4
    outbox.unblock()
    assert wire.writes == [b"close 1013"]


def test_exactly_the_limit_may_wait() -> None:
    outbox, wire, _ = make(limit=20, high=10, overflow=lambda: pytest.fail("overflow"), blocked=True)
    outbox.send(b"x" * 10)
    outbox.send(b"y" * 10)
    outbox.unblock()
    assert wire.text == "x" * 10 + "y" * 10


def test_a_transport_that_takes_all_is_never_too_slow() -> None:
    outbox, wire, _ = make(limit=20, high=10, overflow=lambda: pytest.fail("overflow"))
    outbox.send(b"x" * 1000)
    assert wire.text == "x" * 1000


def test_a_limit_below_the_high_water_mark_holds() -> None:
    """Only what is above the high-water mark was looked at, so 64 KiB waited whatever the limit said."""
    outbox, _, _ = make(limit=30, high=1000, low=500, blocked=True)
    for name in b"abcdef":
        outbox.send(bytes([name]) * 10)
    assert [bytes(frame[:1]) for frame in outbox.frames] == [b"d", b"e", b"f"]
    assert (outbox.size, outbox.dropped) == (30, 3)
    assert outbox.high <= 30


def test_drop_oldest_keeps_the_newest_that_fit_and_counts_the_rest() -> None:
    outbox, wire, _ = make(limit=30, high=10, blocked=True)
    for name in b"abcdef":
        outbox.send(bytes([name]) * 10)
    assert (outbox.size, outbox.dropped) == (30, 3)
    outbox.unblock()
    assert wire.text == "d" * 10 + "e" * 10 + "f" * 10


def test_drop_oldest_drops_as_many_as_it_takes() -> None:
    outbox, wire, _ = make(limit=30, high=10, blocked=True)
    for size in (10, 10, 10, 15):
        outbox.send(bytes([65 + size]) * size)
    assert (outbox.size, outbox.dropped) == (25, 2)
    outbox.unblock()
    assert wire.text == "K" * 10 + "P" * 15


def test_drop_oldest_keeps_the_newest_even_if_it_alone_is_above_the_limit() -> None:
    outbox, wire, _ = make(limit=30, high=10, blocked=True)
    outbox.send(b"a" * 10)
    outbox.send(b"b" * 100)
    assert (outbox.size, outbox.dropped) == (100, 1)
    outbox.unblock()
    assert wire.text == "b" * 100


# Seal


def test_the_last_frame_leaves_behind_all_others_and_later_ones_are_dropped_and_counted() -> None:
    outbox, wire, loop = make()
    outbox.send(b"a")
    outbox.seal(b"close")
    outbox.send(b"b")
    outbox.put(b"c")
    loop.turn()
    assert wire.text == "aclose"
    assert outbox.sealed
    assert outbox.dropped == 2


def test_seal_with_discard_drops_and_counts_what_waits() -> None:
    outbox, wire, _ = make(blocked=True)
    outbox.send(b"a")
    outbox.send(b"b")
    outbox.seal(b"close", discard=True)
    assert outbox.size == 5
    outbox.unblock()
    assert wire.text == "close"
    assert outbox.dropped == 2


def test_a_second_seal_sends_no_second_last_frame() -> None:
    outbox, wire, loop = make()
    outbox.seal(b"first")
    outbox.seal(b"second")
    loop.turn()
    assert wire.text == "first"


def test_publications_from_before_the_seal_go_ahead_of_the_last_frame() -> None:
    outbox, wire, loop = make()
    rooms = Rooms(outbox)
    rooms.dirty.append(b"published")
    outbox.seal(b"close")
    loop.turn()
    assert wire.text == "publishedclose"


# Order with publications


def test_publications_that_wait_go_ahead_of_a_direct_send() -> None:
    outbox, wire, loop = make()
    rooms = Rooms(outbox)
    outbox.send(b"1")
    rooms.dirty += [b"2", b"3"]
    outbox.send(b"4")
    rooms.dirty.append(b"5")
    outbox.send(b"6")
    loop.turn()
    assert wire.writes == [b"123456"]


def test_a_publication_that_overflows_ends_with_the_close_frame_and_nothing_behind_it() -> None:
    outbox, wire, _ = make(
        limit=20, high=10, overflow=lambda: outbox.seal(b"close", discard=True), blocked=True
    )
    rooms = Rooms(outbox)
    rooms.dirty += [b"x" * 15, b"y" * 15, b"z" * 15]
    outbox.send(b"direct")
    outbox.unblock()
    assert wire.writes == [b"close"]
    assert outbox.dropped == 4


# Whatever the order of things

sizes = st.integers(1, 40)
steps = st.one_of(
    st.tuples(st.sampled_from(["put", "send", "publish"]), sizes),
    st.tuples(st.sampled_from(["block", "unblock", "flush", "turn"]), st.none()),
    st.tuples(st.just("room for"), sizes),
    st.tuples(st.just("seal"), st.booleans()),
)


class Script:
    """Frames carry their number, so that what came of each can be told."""

    def __init__(self, *, limit: int, disconnect: bool) -> None:
        self.limit = limit
        self.written: list[int] = []
        self.sent: list[int] = []
        self.loop = Loop()
        self.wire = Wire()
        overflow = (lambda: self.outbox.seal(discard=True)) if disconnect else None
        self.wire.outbox = self.outbox = Outbox(self.loop, self.write, self.join)  # type: ignore[arg-type]
        self.outbox.configure(limit=limit, high=30, low=10, overflow=overflow)
        self.rooms = Rooms(self.outbox)

    @staticmethod
    def join(frames: Sequence[Numbered]) -> Sequence[Numbered]:
        return tuple(frames)

    def write(self, block: Sequence[Numbered]) -> None:
        self.written += [frame.number for frame in block]
        self.wire.write(b"".join(block))

    def frame(self, size: int) -> Numbered:
        frame = Numbered(size)
        frame.number = len(self.sent)
        self.sent.append(size)
        return frame

    def take(self, verb: str, argument: Any) -> None:
        outbox = self.outbox
        match verb:
            case "put" | "send":
                # Only what the rooms have handed over is put bare.
                outbox.send(self.frame(argument)) if verb == "send" or self.rooms.dirty else outbox.put(
                    self.frame(argument)
                )
            case "publish":
                self.rooms.dirty.append(self.frame(argument))
            case "room for":
                self.wire.capacity = argument
            case "seal":
                outbox.seal(self.frame(5), discard=argument)
            case "turn":
                self.loop.turn()
            case _:
                getattr(outbox, verb)()

    def check(self) -> None:
        outbox = self.outbox
        waiting = [frame.number for frame in outbox.frames]
        assert all(early < late for early, late in pairwise([*self.written, *waiting]))
        assert len(self.written) + len(waiting) + outbox.dropped + len(self.rooms.dirty) == len(self.sent)
        assert outbox.size == sum(map(len, outbox.frames))
        assert outbox.size <= self.limit or len(outbox.frames) == 1
        assert outbox.blocked or not outbox.frames or self.loop.soon
        # All that a room looks at before it writes a block past the frames.
        assert outbox.corked or not (outbox.frames or outbox.blocked or outbox.sealed)


class Numbered(bytes):
    number: int


@given(st.lists(steps, max_size=60), st.sampled_from([10, 50, 200]), st.booleans())
def test_what_is_written_is_what_was_put_in_order_less_what_is_counted_as_dropped(
    script: list[tuple[str, Any]], limit: int, disconnect: bool
) -> None:
    world = Script(limit=limit, disconnect=disconnect)
    for verb, argument in script:
        world.take(verb, argument)
        world.check()
    world.wire.capacity = float("inf")
    world.outbox.unblock()
    world.loop.turn()
    world.check()
    assert not world.outbox.frames


@given(st.lists(steps.filter(lambda step: step[0] != "seal"), max_size=60))
def test_below_the_limit_nothing_is_dropped(script: list[tuple[str, Any]]) -> None:
    world = Script(limit=10**6, disconnect=True)
    for verb, argument in script:
        world.take(verb, argument)
        world.check()
    world.take("send", 1)
    world.wire.capacity = float("inf")
    world.outbox.unblock()
    assert world.written == list(range(len(world.sent)))
    assert world.outbox.dropped == 0


# Age


class Late(Loop):
    """A loop whose timers are called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Any:
        self.timers.append((delay, call))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def pass_half(self) -> None:
        ((delay, call),) = self.timers
        assert delay == 5
        self.timers.clear()
        call()


def aging(overflow: Callable[[], None] | None = None) -> tuple[Outbox, Wire, Late]:
    loop = Late()
    outbox, wire, _ = make(loop)
    outbox.configure(limit=1000, high=100, low=10, overflow=overflow, max_age=10)
    outbox.block()
    return outbox, wire, loop


def test_frames_that_are_still_there_after_their_age_are_dropped() -> None:
    outbox, _, loop = aging()
    for frame in (b"a", b"bb"):
        outbox.send(frame)
    loop.pass_half()
    outbox.send(b"ccc")
    loop.pass_half()
    assert outbox.frames == [b"a", b"bb", b"ccc"]
    outbox.send(b"dddd")
    loop.pass_half()
    assert (outbox.frames, outbox.size, outbox.dropped) == ([b"ccc", b"dddd"], 7, 2)
    loop.pass_half()
    # The newest stays, however old it is.
    assert (outbox.frames, outbox.dropped) == ([b"dddd"], 3)


def test_frames_that_grow_old_are_told_to_the_policy() -> None:
    told: list[str] = []
    outbox, _, loop = aging(lambda: told.append("slow"))
    outbox.send(b"a")
    loop.pass_half()
    loop.pass_half()
    assert told == []
    loop.pass_half()
    assert told == ["slow"]
    assert loop.timers == []


def test_a_slow_consumer_that_reads_steadily_keeps_its_frames() -> None:
    """Its outbox is never empty, but no frame is in it for long."""
    outbox, wire, loop = aging(lambda: pytest.fail("not slow"))
    for number in range(20):
        outbox.send(b"%d" % number)
        loop.pass_half()
        outbox.send(b"and %d" % number)
        outbox.unblock()
        outbox.block()
    assert sum(map(len, wire.writes)) > 0


def test_no_timer_runs_without_frames_or_after_the_end() -> None:
    outbox, _, loop = aging()
    assert len(loop.timers) == 1
    outbox.block()
    assert len(loop.timers) == 1
    loop.pass_half()
    assert loop.timers == []
    outbox.block()
    outbox.seal()
    assert loop.timers == []
    outbox.block()
    assert loop.timers == []


def test_a_frame_takes_the_place_of_the_one_with_its_key() -> None:
    outbox, wire = blocked()
    for key, frame in [("a", b"a1"), ("b", b"b1"), (None, b"-"), ("a", b"a22"), ("c", b"c1"), ("a", b"a3")]:
        if key is None:
            outbox.put(frame)
        else:
            outbox.replace(key, frame)
    assert outbox.frames == [b"a3", b"b1", b"-", b"c1"]
    assert outbox.size == sum(map(len, outbox.frames))
    outbox.unblock()
    assert wire.text == "a3b1-c1"
    # What is written cannot be replaced.
    outbox.block()
    outbox.replace("a", b"a4")
    assert outbox.frames == [b"a4"]


def test_places_move_when_the_oldest_frames_are_written_or_dropped() -> None:
    outbox, wire = blocked(capacity=CHUNK)
    outbox.put(b"x" * CHUNK)
    outbox.replace("a", b"a1")
    outbox.replace("b", b"b1")
    outbox.unblock()
    assert outbox.frames == [b"a1", b"b1"]
    outbox.replace("b", b"b2")
    outbox.replace("a", b"a2")
    assert outbox.frames == [b"a2", b"b2"]
    outbox.configure(limit=8, high=8, low=4, overflow=None)
    outbox.put(b"123456")
    assert outbox.frames == [b"b2", b"123456"]
    outbox.replace("b", b"b3")
    outbox.replace("a", b"")
    assert outbox.frames == [b"b3", b"123456", b""]
    assert wire


def test_a_sealed_outbox_replaces_nothing() -> None:
    outbox, wire = blocked()
    outbox.replace("a", b"a1")
    outbox.seal(b"close")
    outbox.replace("a", b"a2")
    outbox.replace("b", b"b1")
    assert outbox.dropped == 2
    outbox.unblock()
    assert wire.text == "a1close"


async def test_lowered_waits_for_the_low_water_mark() -> None:
    wire = Wire(CHUNK)
    wire.outbox = outbox = Outbox(asyncio.get_running_loop(), wire.write, b"".join)
    outbox.configure(limit=10 * CHUNK, high=2 * CHUNK, low=10, overflow=None)
    for _ in range(3):
        outbox.put(b"x" * CHUNK)
    waiting = asyncio.ensure_future(outbox.lowered())
    for _ in range(2):
        wire.capacity = CHUNK
        outbox.unblock()
        await asyncio.sleep(0)
        assert not waiting.done()
    wire.capacity = 2 * CHUNK
    outbox.unblock()
    await waiting
    assert not outbox.size
    # Nothing to wait for, though the transport is full.
    outbox.block()
    await outbox.lowered()
    outbox.put(b"x" * 11)
    waiting = asyncio.ensure_future(outbox.lowered())
    await asyncio.sleep(0)
    outbox.seal()
    await waiting


def blocked(capacity: float = float("inf")) -> tuple[Outbox, Wire]:
    """Return an outbox that does not write, and its transport."""
    wire = Wire(capacity)
    wire.outbox = outbox = Outbox(Loop(), wire.write, b"".join)  # pyright: ignore[reportArgumentType]
    outbox.configure(limit=10 * CHUNK, high=5 * CHUNK, low=10, overflow=None)
    return outbox, wire
