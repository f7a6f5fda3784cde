"""When a node asks what is due in its rooms."""

import asyncio
import sys
from typing import Any

import pytest

from symphony.rooms.leases import Leases

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvloop")


class Store:
    """Has nothing that is due."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def reap(self, node: str) -> list[Any]:
        self.asked.set()
        return []


class Rooms:
    def __init__(self) -> None:
        self.rooms: dict[str, Any] = {}


async def asks(*delays: float) -> None:
    """Make leases that are told of several times, from now on, and wait until they ask the store."""
    loop = asyncio.get_running_loop()
    seating: Any = Rooms()
    seating.store, seating.node = Store(), "n"
    rooms: Any = Rooms()
    ignore: Any = dict.fromkeys(("unknown", "moved", "seen", "overdue"), id)
    leases = Leases(seating, rooms, loop.create_task, **ignore)
    now = loop.time()
    for delay in delays:
        leases.reap_at(now + delay)
    async with asyncio.timeout(5):
        await seating.store.asked.wait()
    leases.close()


@pytest.mark.parametrize("delays", [(0.0, 0.0), (0.0001, 0.2), (-1.0, 0.0), (0.2, 0.0001), (60.0, 0.01)])
def test_what_is_due_at_once_is_asked_for_however_often_it_is_said(delays: tuple[float, ...]):
    """uvloop returns a handle without a time for what is due at once. The next member that went
    away then ended in an `AttributeError`, and its hook did not run.
    """
    import uvloop

    uvloop.run(asks(*delays))
