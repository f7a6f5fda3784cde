"""When a client comes back; whether, is what the vectors say."""

import random

import pytest

from symphony.client.backoff import LASTED, Backoff


def low(low: float, high: float) -> float:
    return low


def high(low: float, high: float) -> float:
    return high


def test_the_bound_doubles_up_to_the_largest() -> None:
    backoff = Backoff(0.5, 3.0, high)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_connection_that_lasted_begins_anew() -> None:
    backoff = Backoff(0.5, 30.0, high)
    for _ in range(4):
        backoff.next()
    assert not backoff.lasted(LASTED - 0.001)
    assert backoff.next() == 8.0
    assert backoff.lasted(LASTED)
    assert backoff.next() == 0.5


def test_a_hint_comes_before_the_random_time_and_counts_once() -> None:
    backoff = Backoff(0.5, 30.0, low)
    backoff.hint(7.0)
    assert backoff.next() == 7.0
    assert backoff.next() == 0.0


@pytest.mark.parametrize(("hint", "wait"), [(-1.0, 0.0), (1e12, 86400.0)])
def test_a_hint_is_within_reason(hint: float, wait: float) -> None:
    backoff = Backoff(0.5, 30.0, low)
    backoff.hint(hint)
    assert backoff.next() == wait


def test_200_clients_that_were_cut_off_together_do_not_return_together() -> None:
    """The arrivals of all of them, over the whole of the bound, and again behind the next failure."""
    source = random.Random(7)
    clients = [Backoff(1.0, 30.0, source.uniform) for _ in range(200)]
    for bound in (1.0, 2.0, 4.0):
        waits = [client.next() for client in clients]
        tenths = [0] * 10
        for wait in waits:
            assert 0 <= wait < bound
            tenths[int(wait / bound * 10)] += 1
        # 20 are to be expected in each; 45 would be six standard deviations off.
        assert max(tenths) < 45
        assert min(tenths) > 4
