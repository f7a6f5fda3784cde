"""The line between a supervisor and a worker."""

import socket
from collections.abc import Iterator

import pytest

from symphony.cli.workers.line import Line


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line, socket.socket]]:
    """Both ends, and the socket of the second one."""
    one, two = socket.socketpair()
    one.setblocking(False)
    two.setblocking(False)
    with one, two:
        yield Line(one), Line(two), two


def test_messages_arrive_in_order_whatever_the_pieces(ends: tuple[Line, Line, socket.socket]) -> None:
    one, two, raw = ends
    two.say(ready=27.5)
    two.beat()
    raw.send(b'{"stopp')
    assert list(one.read()) == [{"ready": 27.5}, {"beat": True}]
    raw.send(b'ing": true}\n')
    assert list(one.read()) == [{"stopping": True}]
    assert list(one.read()) == []
    assert not one.ended


def test_the_end_is_noticed(ends: tuple[Line, Line, socket.socket]) -> None:
    one, two, _ = ends
    two.say(ready=1)
    two.close()
    assert list(one.read()) == [{"ready": 1}]
    assert not one.ended
    assert list(one.read()) == []
    assert one.ended
    # Nothing is left to tell, and that is no error.
    one.say(stop=True)
    one.beat()


def test_nothing_waits_for_a_process_that_does_not_read_and_only_beats_are_lost(
    ends: tuple[Line, Line, socket.socket],
) -> None:
    one, two, _ = ends
    sent = 10_000
    for _ in range(sent):
        two.beat()
    two.say(stopping=True)
    messages: list[dict[str, bool]] = []
    while more := list(one.read()):
        messages += more
        two.flush()
    assert messages[-1] == {"stopping": True}
    assert 0 < messages.count({"beat": True}) < sent
