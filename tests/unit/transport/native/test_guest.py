"""A WebSocket of another framework's app: when reading from its client pauses."""

from typing import Any

import pytest

from symphony import Limits
from symphony.transport.native.guest import Guest

SCOPE = {"path": "/", "client": ("127.0.0.1", 1)}


class Reading:
    """The part of a connection that says whether it reads."""

    def __init__(self) -> None:
        self.held = False

    def pause_reading(self) -> None:
        self.held = True

    def resume_reading(self) -> None:
        self.held = False


@pytest.mark.within("max_queue")
@pytest.mark.beyond("max_queue")
@pytest.mark.parametrize("most", [1, 2, 9, 32])
async def test_reading_pauses_above_max_queue_and_goes_on_at_half_of_it(most: int) -> None:
    reading: Any = Reading()
    guest = Guest(reading, SCOPE, Limits(max_queue=most))
    # The app reads the beginning, and then nothing.
    assert await guest._receive() == {"type": "websocket.connect"}
    for number in range(most):
        guest.received(str(number))
    assert not reading.held
    guest.received("one more")
    assert reading.held
    for left in range(most, -1, -1):
        event = await guest._receive()
        assert reading.held is (left > most // 2), (left, event)
