"""The words of the warning about a held event loop."""

import pytest

from symphony.outgoing.encoding import RAW, V1_DIALECTS
from symphony.protocol.envelopes import Event
from symphony.session.blocking import event_in, what_held
from symphony.transport.base import SlowRead
from symphony.transport.native.timing import TimedReceiver, slow_read


@pytest.mark.parametrize(
    ("message", "dialect", "name"),
    [
        (Event("say", None), V1_DIALECTS[0], "'say'"),
        ('{"event":"say","data":1}', V1_DIALECTS[0], "'say'"),
        (b"\x81\xa5event\xa3say", V1_DIALECTS[1], "'say'"),
        ('{"event":"a\\nb"}', V1_DIALECTS[0], r"'a\nb'"),
        (Event("x" * 250, None), V1_DIALECTS[0], f"'{'x' * 200}…'"),
        ('{"event":"say"}', RAW, ""),
        ("{", V1_DIALECTS[0], ""),
        ('{"cancel":1}', V1_DIALECTS[0], ""),
        (None, V1_DIALECTS[0], ""),
    ],
)
def test_the_event_is_named_so_that_it_can_be_logged(message, dialect, name):
    if dialect is RAW:
        assert event_in(b"\xff", dialect) == ""
    assert event_in(message, dialect) == name


@pytest.mark.parametrize(
    ("read", "event", "who", "advice"),
    [
        (SlowRead(0, None, None), "", "The connect handler of /x", "Await something slow, "),
        (SlowRead(1, "m", 0.25), "", "The connect handler of /x", "Await something slow, "),
        (SlowRead(1, "m", 0.25), "'say'", "The handler of the event 'say' of /x", "Await something slow, "),
        (
            SlowRead(1000, "m", None),
            "'say'",
            "1000 messages of /x, handled in one go,",
            "That is 0.25 ms each. The last one was the event 'say'. The next time, each is timed.",
        ),
        (
            SlowRead(1000, "m", 0.002),
            "'say'",
            "1000 messages of /x, handled in one go,",
            "The slowest took 2 ms, the handler of the event 'say'. Together they are slow:",
        ),
        (
            SlowRead(3, "m", 0.2),
            "'say'",
            "The handler of the event 'say' of /x, in 0.20 s, and 2 other messages",
            "Await something slow, ",
        ),
    ],
)
def test_one_handler_or_many_messages(read, event, who, advice):
    said = what_held("connect", "/x", event, read, 0.25)
    assert said[0] == who
    assert said[1].startswith(advice)


def test_the_slowest_of_one_read_is_known():
    now = 1.0
    took: list[str] = []
    timed = TimedReceiver(took.append, lambda: now)
    for message in ("a", "b"):
        timed(message)
    assert took == ["a", "b"]
    assert timed.message in ("a", "b")
    first = timed.slowest
    assert first > 0
    timed.slowest = 100.0
    now = 2.0
    timed("c")
    assert timed.message == "c"
    assert timed.slowest < 100
    assert slow_read(timed, 3, "d", 1.0) == SlowRead(3, "c", timed.slowest)
    assert slow_read(None, 3, "d", 1.0) == SlowRead(3, "d", None)
    assert slow_read(None, 1, "d", 1.0) == SlowRead(1, "d", 1.0)
