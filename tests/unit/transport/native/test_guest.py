"""A WebSocket of another framework's app: when reading from its client pauses."""

from typing import Any

import pytest

from symphony import Limits
from symphony.complaints import Complaints
from symphony.transport.native.guest import Guest
from symphony.websocket.queued import Queued

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
    guest = Guest(reading, SCOPE, Limits(max_queue=most), Queued(10_000), Complaints())
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


@pytest.mark.within("max_queued_bytes")
@pytest.mark.beyond("max_queued_bytes")
@pytest.mark.parametrize("message", ["a" * 1000, "é" * 1000, "€" * 1000, "a" * 999 + "😀", b"a" * 1000])
async def test_all_websockets_together_have_a_limit_of_bytes_in_memory(message: str | bytes) -> None:
    size = message.__sizeof__()
    queued = Queued(3 * size)
    readings: list[Any] = [Reading() for _ in range(4)]
    guests = [Guest(reading, SCOPE, Limits(), queued, Complaints()) for reading in readings]
    for guest in guests:
        await guest._receive()
    for guest in guests[:3]:
        guest.received(message)
    assert queued.size == 3 * size
    assert not any(reading.held for reading in readings)
    guests[3].received(message)
    guests[0].received(message)
    assert [reading.held for reading in readings] == [True, False, False, True]
    # Whose app has received all may go on, whatever the others do.
    await guests[3]._receive()
    assert not readings[3].held
    # The other, when there is room again.
    await guests[1]._receive()
    assert readings[0].held
    await guests[0]._receive()
    assert not readings[0].held

    async def ends(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    for guest in guests:
        guest._taken = True
        guest.received(message)
        await guest.run(ends, {})
    assert queued.size == 0
