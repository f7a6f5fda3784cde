"""The batches of rooms against a model that hands every member each frame at once."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.sizes import size
from symphony.outgoing import batch as module
from symphony.outgoing.batch import Batch, Batches, Recipient

BOUND = module._MAX_BATCH_BYTES


class Frame:
    """Says who made it, from what, and how long it pretends to be."""

    def __init__(self, encoding: str, message: Message) -> None:
        self.encoding = encoding
        self.message = message

    def __len__(self) -> int:
        return self.message.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and (other.encoding, other.message) == (self.encoding, self.message)

    def __hash__(self) -> int:
        return hash((self.encoding, self.message))

    def __repr__(self) -> str:
        return f"{self.encoding}:{self.message.number}"


class Message:
    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size


class Encoding:
    """Tags its frames, and counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.encoded: Counter[Message] = Counter()
        self.joined: Counter[tuple[Frame, ...]] = Counter()

    def encode(self, message: Message) -> Frame:
        self.encoded[message] += 1
        return Frame(self.name, message)

    def join(self, frames: Sequence[Frame]) -> tuple[Frame, ...]:
        block = tuple(frames)
        assert block, "a block of nothing"
        self.joined[block] += 1
        return block


class Outbox:
    """Keeps the contract of the real one without its bounds, and watches what is asked of it."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.wire: list[Frame] = []
        self.blocked = False
        self.sealed = False
        self.dropped = 0

    @property
    def corked(self) -> bool:
        return self.blocked or self.sealed or bool(self.frames)

    def write(self, block: Sequence[Frame]) -> None:
        assert not self.blocked, "a block for an outbox that is blocked"
        assert not self.frames, "a block that overtakes frames"
        assert not self.sealed, "a block behind the last frame"
        self.wire += block

    def put(self, frame: Frame) -> None:
        if self.sealed:
            self.dropped += 1
        else:
            self.frames.append(frame)

    def flush(self) -> None:
        if not self.blocked:
            self.wire += self.frames
            self.frames.clear()

    @property
    def got(self) -> list[Frame]:
        return [*self.wire, *self.frames]


def _unexpected(error: Exception, batch: Batch) -> None:
    raise error


class Someone(Recipient):
    """A member, and what the model says it must have."""

    __slots__ = ("due", "lost", "outbox")

    outbox: Outbox

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding, Outbox())
        self.due: list[Frame] = []
        self.lost = 0

    def owe(self, message: Message) -> None:
        if self.outbox.sealed:
            self.lost += 1
        else:
            self.due.append(Frame(self.encoding.name, message))


class World:
    """The batches and the model side by side: one verb does both."""

    def __init__(self, *, rooms: int, encodings: int, members: int) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.batches = Batches(self.scheduled.append, _unexpected)
        self.rooms = [Batch(f"room {index}") for index in range(rooms)]
        self.encodings = [Encoding("abcdef"[index]) for index in range(encodings)]
        self.members = [Someone(self.encodings[index % encodings]) for index in range(members)]
        self.inside: dict[Batch, dict[Someone, None]] = {room: {} for room in self.rooms}
        self.sent = 0
        self.waiting = 0
        self.in_use: dict[Message, set[str]] = {}

    def message(self, size: int) -> Message:
        self.sent += 1
        return Message(self.sent, size)

    def join(self, member: Someone, room: Batch) -> None:
        if member not in self.inside[room]:
            self.batches.add(room, member)
            self.inside[room][member] = None

    def leave(self, member: Someone, room: Batch) -> None:
        if member in self.inside[room]:
            self.batches.remove(room, member)
            del self.inside[room][member]

    def publish(self, room: Batch, size: int, excluded: Iterable[Someone]) -> None:
        message = self.message(size)
        self.in_use[message] = {member.encoding.name for member in self.inside[room]}
        self.batches.publish(room, message, excluded)
        for member in self.inside[room]:
            if member not in excluded:
                member.owe(message)
        self.waiting += size * len(self.in_use[message])
        if self.waiting > BOUND:
            # Early: the loop that publishes has not come to its end.
            self.check_flushed()
        elif self.in_use[message]:
            assert room in self.batches.dirty, "flushed for no reason"

    def send(self, member: Someone, size: int) -> None:
        """Do as `Outbox.send` does."""
        message = self.message(size)
        if self.batches.dirty:
            self.batches.take(member)
        member.outbox.put(Frame(member.encoding.name, message))
        member.owe(message)

    def seal(self, member: Someone) -> None:
        """Send a last frame, as a close does; the member stays in its rooms."""
        if not member.outbox.sealed:
            self.send(member, 10)
            member.outbox.sealed = True

    def end_iteration(self) -> None:
        scheduled, self.scheduled[:] = tuple(self.scheduled), ()
        for callback in scheduled:
            callback()
        self.check_flushed()

    def check_flushed(self) -> None:
        self.waiting = 0
        assert not self.batches.dirty
        assert not any(room.entries for room in self.rooms)
        for member in self.members:
            assert member.outbox.got == member.due
            assert member.outbox.dropped == member.lost

    def check_always(self) -> None:
        assert not self.batches.dirty or self.scheduled, "nothing will flush"
        for member in self.members:
            got = member.outbox.got
            assert got == member.due[: len(got)]
        for room, inside in self.inside.items():
            assert set(room) == set(inside)
            assert len(room) == len(inside)
            assert all((member in room) == (member in inside) for member in self.members)
            assert set(room.recipients) == {member.encoding for member in inside}
        for encoding in self.encodings:
            for message, uses in self.in_use.items():
                assert encoding.encoded[message] == (encoding.name in uses)

    def check_at_the_end(self) -> None:
        self.end_iteration()
        for member in self.members:
            member.outbox.blocked = False
            member.outbox.flush()
            assert member.outbox.wire == member.due
        for room in self.rooms:
            for member in tuple(room):
                self.leave(member, room)
            assert not room.recipients
        self.check_always()


class RoomsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(rooms=3, encodings=2, members=5)

    members = st.integers(0, 4)
    rooms = st.integers(0, 2)
    sizes = st.sampled_from([0, 1, 100, BOUND // 3, BOUND + 1])

    @rule(member=members, room=rooms)
    def join(self, member: int, room: int) -> None:
        self.world.join(self.world.members[member], self.world.rooms[room])

    @rule(member=members, room=rooms)
    def leave(self, member: int, room: int) -> None:
        self.world.leave(self.world.members[member], self.world.rooms[room])

    @rule(room=rooms, size=sizes, excluded=st.lists(members, max_size=3))
    def publish(self, room: int, size: int, excluded: list[int]) -> None:
        world = self.world
        world.publish(world.rooms[room], size, [world.members[member] for member in excluded])

    @rule(member=members)
    def send(self, member: int) -> None:
        self.world.send(self.world.members[member], 10)

    @rule(member=members)
    def block(self, member: int) -> None:
        self.world.members[member].outbox.blocked = True

    @rule(member=members)
    def unblock(self, member: int) -> None:
        outbox = self.world.members[member].outbox
        outbox.blocked = False
        outbox.flush()

    @rule(member=members)
    def flush_outbox(self, member: int) -> None:
        self.world.members[member].outbox.flush()

    @rule(member=members)
    def seal(self, member: int) -> None:
        self.world.seal(self.world.members[member])

    @precondition(lambda self: self.world.scheduled)
    @rule()
    def end_iteration(self) -> None:
        self.world.end_iteration()

    @invariant()
    def holds(self) -> None:
        self.world.check_always()

    def teardown(self) -> None:
        self.world.check_at_the_end()


RoomsMachine.TestCase.settings = settings(
    max_examples=size(75, full=750), stateful_step_count=40, deadline=None
)
TestRooms = RoomsMachine.TestCase


@pytest.mark.parametrize("seed", range(25))
def test_many_members_of_many_rooms_get_what_the_model_says(seed: int) -> None:
    chance = random.Random(seed)
    world = World(rooms=12, encodings=3, members=30)
    for member in world.members:
        for room in chance.sample(world.rooms, 4):
            world.join(member, room)
    verbs: dict[Callable[[Someone, Batch], Any], int] = {
        lambda member, room: world.publish(room, chance.choice([1, 50, 5000]), ()): 20,
        lambda member, room: world.publish(room, 1, chance.sample(world.members, chance.randrange(1, 5))): 8,
        lambda member, room: world.send(member, 10): 8,
        world.join: 4,
        world.leave: 4,
        lambda member, room: setattr(member.outbox, "blocked", chance.random() < 0.3): 6,
        lambda member, room: member.outbox.flush(): 8,
        lambda member, room: world.seal(member) if chance.random() < 0.1 else None: 1,
        lambda member, room: world.end_iteration(): 3,
    }
    for verb in chance.choices(list(verbs), list(verbs.values()), k=600):
        verb(chance.choice(world.members), chance.choice(world.rooms))
    world.check_always()
    world.check_at_the_end()


def test_members_behind_the_first_publication_share_one_block() -> None:
    world = World(rooms=1, encodings=1, members=100)
    (room,), (encoding,) = world.rooms, world.encodings
    for member in world.members:
        world.join(member, room)
    for _ in range(16):
        world.publish(room, 10, ())
    world.end_iteration()
    assert list(encoding.joined.values()) == [1]


def test_members_of_the_same_dirty_rooms_share_one_block() -> None:
    world = World(rooms=3, encodings=1, members=30)
    one, other, quiet = world.rooms
    for index, member in enumerate(world.members):
        world.join(member, quiet)
        if index < 20:
            world.join(member, one)
        if index >= 10:
            world.join(member, other)
    for room in (one, other, one, other):
        world.publish(room, 10, ())
    world.end_iteration()
    # Those of one, of other, and of both.
    assert sorted(map(len, encoding_blocks(world))) == [2, 2, 4]
    assert set(world.encodings[0].joined.values()) == {1}


def encoding_blocks(world: World) -> list[tuple[Frame, ...]]:
    return [block for encoding in world.encodings for block in encoding.joined]


def test_a_publication_above_the_byte_bound_is_flushed_before_the_iteration_ends() -> None:
    world = World(rooms=2, encodings=2, members=2)
    for room in world.rooms:
        world.join(world.members[0], room)
        world.join(world.members[1], room)
    world.publish(world.rooms[0], BOUND // 2, ())
    # Two encodings of half the bound are the bound itself, which may wait.
    assert world.batches.dirty
    world.publish(world.rooms[1], 1, ())
    assert not world.batches.dirty
    assert [len(member.outbox.wire) for member in world.members] == [2, 2]


def test_a_room_without_members_encodes_nothing_and_schedules_nothing() -> None:
    world = World(rooms=1, encodings=1, members=1)
    world.publish(world.rooms[0], 10, [world.members[0]])
    assert not world.scheduled
    assert not world.encodings[0].encoded


def test_a_flush_is_scheduled_once_an_iteration() -> None:
    world = World(rooms=2, encodings=1, members=1)
    for room in world.rooms:
        world.join(world.members[0], room)
        world.publish(room, 10, ())
        world.publish(room, 10, ())
    assert len(world.scheduled) == 1
    world.end_iteration()
    world.publish(world.rooms[0], 10, ())
    assert len(world.scheduled) == 1


def test_a_message_that_cannot_be_encoded_reaches_nobody_and_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(rooms=1, encodings=2, members=3)
    (room,) = world.rooms
    for member in world.members:
        world.join(member, room)
    world.publish(room, 10, ())
    with monkeypatch.context() as patch:
        patch.setattr(world.encodings[1], "encode", lambda message: len(message.missing))
        with pytest.raises(AttributeError):
            world.batches.publish(room, world.message(10), [world.members[0]])
    world.publish(room, 10, ())
    world.end_iteration()
    world.check_always()


def test_a_refused_exclude_costs_nobody_the_next_publication() -> None:
    """`exclude` is a user's: one wrong item in it must not exclude the others from what comes later."""
    world = World(rooms=1, encodings=1, members=2)
    (room,) = world.rooms
    for member in world.members:
        world.join(member, room)
    with pytest.raises(AttributeError):
        world.batches.publish(room, world.message(10), [world.members[0], "not a member"])  # type: ignore[list-item]
    world.publish(room, 10, ())
    world.end_iteration()


def test_a_write_that_fails_does_not_stop_later_publications(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one flush leaves behind would keep the next from being scheduled, in every room."""
    world = World(rooms=1, encodings=1, members=1)
    (room,), (member,) = world.rooms, world.members
    world.join(member, room)
    world.batches.publish(room, world.message(10))

    def refuse(block: object) -> None:
        raise RuntimeError("write after write_eof")

    with monkeypatch.context() as patch:
        patch.setattr(member.outbox, "write", refuse)
        with pytest.raises(RuntimeError):
            world.scheduled.pop()()
    world.publish(room, 10, ())
    assert world.scheduled
    world.end_iteration()


def test_a_publication_that_one_encoding_cannot_encode_reaches_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(rooms=1, encodings=3, members=6)
    (room,) = world.rooms
    for member in world.members:
        world.join(member, room)
    failed: list[Exception] = []
    monkeypatch.setattr(world.batches, "_report", lambda error, batch: failed.append(error))
    world.publish(room, 10, ())
    lost = [member for member in world.members if member.encoding is world.encodings[1]]
    others = [member for member in world.members if member not in lost]
    assert lost
    assert others
    with monkeypatch.context() as patch:
        patch.setattr(world.encodings[1], "encode", lambda message: len(message.missing))
        # For the model, those members are excluded.
        world.publish(room, 10, lost)
    world.publish(room, 10, ())
    world.end_iteration()
    assert all(member.outbox.got == member.due for member in world.members)
    assert len(failed) == 1
