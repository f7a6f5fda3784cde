"""200 clients that are cut off together do not come back together."""

from bisect import bisect_left
from statistics import mean

import pytest

from faults.hosts import Host
from faults.network import Forwarder
from faults.revenant import Revenant
from support.clients import until

COUNT = 200
BACKOFF = 1.0
# Of the 200, 10 come in 50 ms on average, and hardly ever 25 in any. A herd is all of them.
WINDOW = 0.05
MOST = 60


def most(times: list[float]) -> int:
    """Return how many there are in the fullest window."""
    times = sorted(times)
    return max(bisect_left(times, time + WINDOW) - at for at, time in enumerate(times))


@pytest.mark.alone
@pytest.mark.timeout(60)
async def test_200_clients_come_back_spread_over_the_time_they_have(
    host: Host, server: Revenant, network: Forwarder
) -> None:
    subjects = [host.connect(network.url, backoff=BACKOFF, connect_timeout=30) for _ in range(COUNT)]
    for subject in subjects:
        assert (await subject.opened).how == "done"
        await subject.reach("open")
        subject.forget()
    network.arrivals.clear()

    # The first attempts of all arrive where nobody answers yet.
    network.hold()
    await server.kill()
    await until(lambda: len(network.arrivals) == COUNT, timeout=20)
    assert {subject.states for subject in subjects} == {"waiting connecting"}
    waits = [subject.moments[1].at - subject.moments[0].at for subject in subjects]
    # Full jitter: from nothing to all of it.
    assert min(waits) < 0.2 * BACKOFF
    assert max(waits) > 0.8 * BACKOFF
    # The mean of 200 is 0.5, give or take 0.02.
    assert 0.3 * BACKOFF < mean(waits) < 0.75 * BACKOFF
    assert most([subject.moments[1].at for subject in subjects]) < MOST
    assert most(network.arrivals) < MOST

    # All of them fail at once, and all is well again at once: no herd either.
    await server.start()
    network.come_back()
    for subject in subjects:
        await subject.reach("open", timeout=20)
        assert subject.states == "waiting connecting waiting connecting open"
    back = [entry.at for entry in server.journal("connect") if entry.by.startswith("2.")]
    assert len(back) == COUNT
    assert most(back) < MOST
    # The bound has grown.
    assert max(back) - min(back) > BACKOFF / 2
    waits = [subject.moments[3].at - subject.moments[2].at for subject in subjects]
    # A busy machine is late.
    assert 0.6 * BACKOFF < mean(waits) < 2 * BACKOFF
