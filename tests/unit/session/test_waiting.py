from random import Random

import pytest

from symphony.protocol.envelopes import Event
from symphony.session.waiting import Waiting


def test_messages_leave_in_the_order_they_came() -> None:
    waiting = Waiting()
    for message in ("a", b"b", "a", "a"):
        waiting.append(message)
    assert list(waiting) == ["a", b"b", "a", "a"]
    assert [waiting.popleft() for _ in range(4)] == ["a", b"b", "a", "a"]
    with pytest.raises(KeyError):
        waiting.popleft()


@pytest.mark.parametrize("seed", range(5))
def test_it_behaves_like_a_list(seed: int) -> None:
    random, waiting, model = Random(seed), Waiting(), []
    events = [Event(str(n), None, n) for n in range(200)]
    for event in events:
        waiting.append(event)
        model.append(event)
        if random.random() < 0.4:
            assert waiting.popleft() is model.pop(0)
        chosen = random.choice(events)
        here = [one for one in model if one is chosen]
        assert waiting.remove(chosen) == bool(here)
        model = [one for one in model if one is not chosen]
        assert len(waiting) == len(model)
        assert all(one is other for one, other in zip(waiting, model, strict=True))


def test_an_equal_event_is_another_event() -> None:
    waiting = Waiting()
    first, second = Event("a", 1), Event("a", 1)
    waiting.append(first)
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

    waiting = Waiting()
    events = [Counted("a", None, n) for n in range(1000)]
    for event in events:
        waiting.append(event)
    assert all(waiting.remove(event) for event in reversed(events))
    assert Counted.compared == 0
