"""Clients that lost their server together: all come back, soon and not in one moment.

`make soak` runs it with 500 clients. `-s` shows the figures.
"""

import asyncio
import os
import time
from bisect import bisect_left
from typing import Any

import pytest

from faults.hosts import Host
from faults.network import Forwarder
from faults.revenant import Revenant

SOAK = os.environ.get("SOAK") == "true"
COUNT = 500 if SOAK else 60
WINDOW = 0.1
# How the server ends, and for how many seconds it is away.
CASES = [("killed", 2.0), ("stopped", 2.0), ("killed", 8.0)][: 3 if SOAK else 2]


def most(times: list[float]) -> int:
    """Return how many there are in the fullest window."""
    times = sorted(times)
    return max((bisect_left(times, time + WINDOW) - at for at, time in enumerate(times)), default=0)


@pytest.mark.alone
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("how", "away"), [("killed", 2.0), ("stopped", 2.0), *([("killed", 8.0)] if SOAK else [])]
)
async def test_all_are_back_after_few_attempts(
    host: Host, server: Revenant, network: Forwarder, how: str, away: float, record_property: Any
) -> None:
    subjects = [host.connect(network.url, connect_timeout=60) for _ in range(COUNT)]
    for subject in subjects:
        assert (await subject.opened).how == "done"
        await subject.reach("open")
        subject.forget()
    network.arrivals.clear()

    await (server.kill() if how == "killed" else server.stop())
    await asyncio.sleep(away)
    await server.start()
    there = time.time()
    for subject in subjects:
        await subject.reach("open", timeout=60)

    attempts = list(network.arrivals)
    back = [subject.moments[-1].at - there for subject in subjects]
    figures = {
        "how": how,
        "away": away,
        "clients": COUNT,
        "last one back after": round(max(back), 1),
        "attempts": len(attempts),
        "most attempts in 0.1 s": most(attempts),
    }
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
    # The delays grow, so there are few attempts however long it takes; and none of the clients
    # was refused for good.
    assert len(attempts) >= COUNT
    assert len(attempts) <= COUNT * 12
    assert most(attempts) < COUNT
    assert {subject.ended for subject in subjects} == {None}
