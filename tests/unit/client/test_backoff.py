"""When a client comes back; whether, is what the vectors say."""

import random

import pytest

from symphony.client.backoff import LASTED, Backoff


def low(low: float, high: float) -> float:
    return low


def high(low: float, high: float) -> float:
    return high


@pytest.mark.within("client.max_backoff")
@pytest.mark.beyond("client.max_backoff")
def test_the_bound_grows_by_half_up_to_the_largest() -> None:
    backoff = Backoff(0.5, 1.5, high)
    assert [backoff.next() for _ in range(5)] == [0.5, 0.75, 1.125, 1.5, 1.5]


def test_the_first_delay_may_be_nothing_and_later_ones_are_at_least_half_the_bound() -> None:
    backoff = Backoff(0.5, 30.0, low)
    assert [backoff.next() for _ in range(3)] == [0.0, 0.375, 0.5625]


def test_a_connection_that_lasted_begins_anew() -> None:
    backoff = Backoff(0.5, 30.0, high)
    for _ in range(2):
        backoff.next()
    assert not backoff.lasted(LASTED - 0.001)
    assert backoff.next() == 1.125
    assert backoff.lasted(LASTED)
    assert backoff.next() == 0.5


def test_a_hint_comes_before_the_random_time_and_counts_once() -> None:
    backoff = Backoff(0.5, 30.0, low)
    backoff.hint(7.0)
    assert backoff.next() == 7.0
    assert backoff.next() == 0.375


@pytest.mark.parametrize("failed", [1, 4, 20])
def test_an_answer_of_the_server_begins_anew(failed: int) -> None:
    backoff = Backoff(0.5, 30.0, high)
    for _ in range(failed):
        backoff.next()
    backoff.hint(1.0)
    assert backoff.next() == 2.0


def test_clients_of_a_full_server_slow_down() -> None:
    backoff = Backoff(0.5, 30.0, high)
    waits: list[float] = []
    for _ in range(4):
        backoff.hint(1.0)
        waits.append(backoff.next())
    assert waits == [2.0, 2.5, 3.25, 4.375]
    backoff.unanswered()
    backoff.hint(1.0)
    assert backoff.next() == 2.0


def test_clients_that_a_server_sends_away_return_over_as_long_as_it_asked_for() -> None:
    waits: list[float] = []
    for uniform in (low, high):
        backoff = Backoff(0.5, 30.0, uniform)
        backoff.hint(8.0)
        waits.append(backoff.next())
    assert waits == [8.0, 16.0]


@pytest.mark.parametrize(
    ("hint", "wait"),
    [(-1.0, 0.0), (86399.0, 86399.0), (86400.0, 86400.0), (86401.0, 86400.0), (1e12, 86400.0)],
)
@pytest.mark.within("client.backoff._MAX_HINT")
@pytest.mark.beyond("client.backoff._MAX_HINT")
def test_a_hint_is_within_reason(hint: float, wait: float) -> None:
    backoff = Backoff(0.5, 30.0, low)
    backoff.hint(hint)
    assert backoff.next() == wait


def test_200_clients_that_were_cut_off_together_do_not_return_together() -> None:
    """The arrivals of all of them, over the whole of the bound, and again behind the next failure."""
    source = random.Random(7)
    clients = [Backoff(1.0, 30.0, source.uniform) for _ in range(200)]
    for least, bound in ((0.0, 1.0), (0.75, 1.5), (1.125, 2.25)):
        waits = [client.next() for client in clients]
        tenths = [0] * 10
        for wait in waits:
            assert least <= wait < bound
            tenths[int((wait - least) / (bound - least) * 10)] += 1
        # 20 are to be expected in each; 45 would be six standard deviations off.
        assert max(tenths) < 45
        assert min(tenths) > 4


@pytest.mark.parametrize("hint", [float("nan"), float("-inf"), -1.0, -0.0])
def test_a_hint_that_is_no_delay_counts_as_nothing(hint: float) -> None:
    backoff = Backoff(0.5, 30.0, high)
    backoff.hint(hint)
    assert backoff.next() == 0.5


@pytest.mark.within("client.backoff._MAX_AT_ONCE")
@pytest.mark.beyond("client.backoff._MAX_AT_ONCE")
def test_a_client_that_is_sent_elsewhere_waits_after_sixteen_attempts_at_once() -> None:
    backoff = Backoff(0.5, 30.0, high)
    waits: list[float] = []
    for _ in range(36):
        backoff.elsewhere()
        waits.append(backoff.next())
    assert waits == [*[0.0] * 16, 0.5, *[0.0] * 16, 0.75, 0.0, 0.0]


def test_a_connection_that_lasted_lets_it_be_sent_elsewhere_again() -> None:
    backoff = Backoff(0.5, 30.0, high)
    for lasted, wait in ((LASTED - 0.001, 0.5), (LASTED, 0.0)):
        for _ in range(16):
            backoff.elsewhere()
            assert backoff.next() == 0.0
        assert backoff.lasted(lasted) == (wait == 0.0)
        backoff.elsewhere()
        assert backoff.next() == wait


def test_being_sent_elsewhere_changes_no_other_delay() -> None:
    backoff = Backoff(0.5, 30.0, high)
    assert backoff.next() == 0.5
    backoff.elsewhere()
    assert [backoff.next() for _ in range(3)] == [0.0, 0.75, 1.125]
