"""Members that read slowly, against the promise of a room with a history.

Each gets every publication that is kept, once and in order, at its own speed, or is told once of each gap.
Its outbox stays small, and in the end it is live again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock, patch

from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.broker.base import Draft, History
from symphony.broker.memory import MemoryBroker
from symphony.outgoing.batch import Batches, Recipient
from symphony.outgoing.encoding import V1_DIALECTS, Content, Emitted, Message, SharedEncoding
from symphony.outgoing.outbox import Outbox
from symphony.outgoing.terms import Terms
from symphony.rooms import feed
from symphony.rooms.announcing import NOW, Announcing
from symphony.rooms.family import Family
from symphony.rooms.feed import Feed
from symphony.rooms.live import Live
from symphony.rooms.lives import _deliver  # pyright: ignore[reportPrivateUsage]
from symphony.rooms.policy import RoomPolicy
from symphony.rooms.snapshots import Snapshots
from symphony.testing import Clock

MEMBERS, HIGH, LOW, PAGE = 3, 300, 100, 3
TTL = 10.0

which = st.integers(0, MEMBERS - 1)
OPERATIONS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 12)),
    st.tuples(st.just("publish"), st.integers(1, 3)),
    st.tuples(st.just("transient"), st.integers(1, 3)),
    st.tuples(st.just("volatile"), st.integers(1, 3)),
    st.tuples(st.just("direct"), which),
    st.tuples(st.just("stop reading"), which),
    st.tuples(st.just("stop reading"), which),
    st.tuples(st.just("read"), which),
    st.tuples(st.just("leave"), which),
    st.tuples(st.just("join"), which),
    st.tuples(st.just("again"), which),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("time"), st.sampled_from([1.0, TTL + 1])),
)


class Plain:
    """An encoding whose frames are the messages."""

    def encode(self, message: Message) -> Message:
        return message

    def encode_text(self, payload: bytes) -> bytes:
        return payload

    def join(self, frames: Sequence[Message]) -> list[Message]:
        return list(frames)


class Socket:
    """What a room knows of a socket: it can be closed."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Member:
    """One connection, whose client may stop to read."""

    def __init__(self, batches: Batches, encoding: SharedEncoding) -> None:
        self.socket: Any = Socket()
        self.outbox = Outbox(asyncio.get_running_loop(), self.write, encoding.join)
        self.outbox.configure(limit=100_000, high=HIGH, low=LOW, overflow=self.overflow)
        self.recipient = Recipient(encoding, self.outbox)
        self.outbox.source, self.outbox.recipient = batches, self.recipient
        self.outbox.unblock()
        self.at: int | None = None
        self.joined = False
        self.directs = self.sent = 0
        self.gaps: list[tuple[int, int]] = []

    def overflow(self) -> None:
        raise AssertionError("a member of a room with a history fills its outbox")

    def write(self, block: list[Any]) -> None:
        for message in block:
            self.take(json.loads(message))

    def take(self, heard: dict[str, Any]) -> None:
        if "joined" in heard:
            self.at, self.joined = heard["position"]["offset"], True
        elif "left" in heard:
            self.joined = False
        elif "lost" in heard:
            assert self.at is not None
            assert heard["position"]["offset"] > self.at
            self.gaps.append((self.at, heard["position"]["offset"]))
            self.at = heard["position"]["offset"]
        elif heard["event"] == "direct":
            assert heard["data"] == self.directs + 1
            self.directs += 1
        elif heard["event"] == "said":
            assert self.joined
            assert self.at is not None
            assert heard["offset"] == heard["data"]["number"] == self.at + 1
            self.at += 1
        else:
            assert "offset" not in heard


PLAIN = Plain()


async def _run(operations: list[tuple[str, Any]], history: History) -> None:
    loop = asyncio.get_running_loop()
    clock = Clock.of_running_loop()
    failed: list[Any] = []
    batches = Batches(loop.call_soon, lambda *error: failed.append(error))
    broker = MemoryBroker(max_bytes=10_000_000)
    announcing = Announcing(
        batches, loop.create_task, Snapshots(Mock(), Mock()), max_recovery=1000, page_timeout=1e6
    )
    live = Live("chat:a", Family(RoomPolicy("chat:{name}", history=history)), {})
    live.follow = announcing.follow
    room = live.feed = Feed(
        broker,
        live.name,
        lambda *each: _deliver(batches, live.outlet, *each),
        lambda error: failed.append(error),
    )
    await room.open()
    members = [Member(batches, V1_DIALECTS[0].shared_encoding(PLAIN)) for _ in range(MEMBERS)]
    for member in members:
        announcing.add(live, member.recipient, member.socket, NOW)
    published = 0

    def check() -> None:
        for member in members:
            # A page, and one publication or direct message that came when it was not above the mark.
            assert member.outbox.size <= HIGH + 1_500 + 100 * member.sent

    for operation, argument in operations:
        match operation:
            case "publish":
                for _ in range(argument):
                    published += 1
                    data = {"number": published, "text": "x" * (published % 7 * 40)}
                    content = Content.of(Emitted("said", data))
                    await broker.publish(live.name, Draft("said", content.packed, content), history)
            case "transient":
                for _ in range(argument):
                    batches.publish(live, Emitted("typing", None))
            case "volatile":
                for _ in range(argument):
                    batches.publish(live, Emitted("typing", None), terms=Terms(live, volatile=True))
            case "turn":
                for _ in range(argument):
                    await asyncio.sleep(0)
            case "time":
                await clock.advance(argument)
            case _:
                member = members[argument]
                is_in = member.recipient in live
                if operation == "direct":
                    member.sent += 1
                    member.outbox.send(member.recipient.encoding.encode(Emitted("direct", member.sent)))
                elif operation == "stop reading":
                    member.outbox.block()
                elif operation == "read":
                    member.outbox.unblock()
                elif operation == "leave" and is_in:
                    announcing.remove(live, member.recipient)
                elif operation == "join" and not is_in:
                    announcing.add(live, member.recipient, member.socket, NOW)
                elif operation == "again" and is_in:
                    announcing.restart(live, member.recipient, await announcing.start(live, None))
        check()
    for member in members:
        member.outbox.unblock()
        if member.recipient not in live:
            announcing.add(live, member.recipient, member.socket, NOW)
    async with asyncio.timeout(60):
        while live.behind or batches.dirty or any(member.outbox.size for member in members):  # noqa: ASYNC110
            await asyncio.sleep(0)
    check()
    for member in members:
        assert member.directs == member.sent
        # It has heard of everything, or was told what is missing: each gap once.
        assert member.at == published
        assert not member.socket.closed
        for (_, end), (start, _) in zip(member.gaps, member.gaps[1:], strict=False):
            assert end <= start
        assert member.recipient.behind is None
    assert not failed
    assert not live.catching
    room.close()
    broker.close()


@given(operations=st.lists(OPERATIONS, max_size=60), size=st.integers(1, 30))
@settings(deadline=None, max_examples=200)
def test_slow_members_get_each_publication_once_and_in_order_or_are_told(
    operations: list[tuple[str, Any]], size: int
) -> None:
    with (
        patch.object(feed, "_MAX_PAGE", PAGE),
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        runner.run(_run(operations, History(size, ttl=TTL)))
