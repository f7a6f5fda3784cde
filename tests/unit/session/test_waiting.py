"""What waits of one socket, and of all together."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.protocol.envelopes import Event
from symphony.session.waiting import Waiting
from symphony.websocket.queued import Queued

messages = st.one_of(st.text(max_size=30), st.binary(max_size=30))


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(messages, st.none())), max_size=60))
def test_the_sizes_always_add_up(script: list[tuple[int, Any]]) -> None:
    queued = Queued(500)
    queues = [Waiting(max_count=5, max_bytes=400, queued=queued) for _ in range(3)]
    models: list[list[Any]] = [[], [], []]
    for which, message in script:
        queue, model = queues[which], models[which]
        if message is not None:
            queue.add(message)
            model.append(message)
        elif model:
            assert queue.take() is model.pop(0)
        sizes = [sum(each.__sizeof__() for each in model) for model in models]
        assert [each.size for each in queues] == sizes
        assert queued.size == sum(sizes)
        assert [len(each) for each in queues] == [len(model) for model in models]
        assert queue.is_full == (
            len(model) >= 5 or sizes[which] >= 400 or (len(model) > 0 and sum(sizes) > 500)
        )
        assert queue.has_room == (
            not model or (len(model) <= 2 and sizes[which] <= 200 and sum(sizes) <= 500)
        )
    for queue in queues:
        queue.close()
        queue.add("too late")
    assert queued.size == 0


def test_characters_beyond_latin_count_what_they_take() -> None:
    queue = Waiting(max_count=5, max_bytes=400, queued=Queued(10**6))
    queue.add("𝄞" * 100)
    assert queue.size >= 400
    assert queue.is_full


def test_what_is_no_text_counts_as_announced() -> None:
    queued = Queued(10**6)
    queue = Waiting(max_count=5, max_bytes=400, queued=queued)
    event = Event("say", {"much": "data"})
    queue.announced = 300
    queue.add(event)
    queue.announced = 50
    queue.add(Event("say", None))
    assert queue.size == queued.size == 350
    assert queue.remove(event)
    assert not queue.remove(event)
    assert queue.size == queued.size == 50
    assert queue.clear() == 1
    assert queued.size == 0


def test_one_message_may_wait_when_the_process_is_full() -> None:
    queued = Queued(10)
    first, second = (Waiting(max_count=5, max_bytes=400, queued=queued) for _ in range(2))
    first.add("much more than ten bytes")
    assert queued.is_full
    assert not second.is_full
    second.add("x")
    assert second.is_full
    assert not second.has_room
    second.take()
    assert second.has_room


def unbounded() -> Waiting:
    return Waiting(max_count=10**6, max_bytes=10**9, queued=Queued(10**9))


def test_messages_leave_in_the_order_they_came() -> None:
    waiting = unbounded()
    for message in ("a", b"b", "a", "a"):
        waiting.add(message)
    assert list(waiting) == ["a", b"b", "a", "a"]
    assert [waiting.take() for _ in range(4)] == ["a", b"b", "a", "a"]
    assert len(waiting) == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_behaves_like_a_list(seed: int) -> None:
    random, waiting, model = Random(seed), unbounded(), []
    events = [Event(str(n), None, n) for n in range(200)]
    for event in events:
        waiting.add(event)
        model.append(event)
        if random.random() < 0.4:
            assert waiting.take() is model.pop(0)
        chosen = random.choice(events)
        here = [one for one in model if one is chosen]
        assert waiting.remove(chosen) == bool(here)
        model = [one for one in model if one is not chosen]
        assert len(waiting) == len(model)
        assert all(one is other for one, other in zip(waiting, model, strict=True))


def test_an_equal_event_is_another_event() -> None:
    waiting = unbounded()
    first, second = Event("a", 1), Event("a", 1)
    waiting.add(first)
    assert not waiting.remove(second)
    assert waiting.remove(first)
    assert not waiting.remove(first)
    assert len(waiting) == 0


def test_removing_does_not_compare_with_the_other_events() -> None:
    """A storm of cancellations cost the square of its size."""

    class Counted(Event):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return self is other

        __hash__ = None  # type: ignore[assignment]

    waiting = unbounded()
    events = [Counted("a", None, n) for n in range(1000)]
    for event in events:
        waiting.add(event)
    assert all(waiting.remove(event) for event in reversed(events))
    assert Counted.compared == 0
