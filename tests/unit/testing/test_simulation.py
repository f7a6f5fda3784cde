"""A loop whose time only passes when everything waits."""

from __future__ import annotations

import asyncio
import random
import secrets
from random import Random

import pytest

from symphony.testing.network import Pipe
from symphony.testing.simulation import Host, SimulatedLoop, simulated


@pytest.mark.parametrize("seconds", [0.5, 60.0, 7200.0])
def test_time_passes_at_once(seconds: float) -> None:
    async def main(loop: SimulatedLoop) -> float:
        began = loop.time()
        await asyncio.sleep(seconds)
        return loop.time() - began

    assert simulated(1, main) == pytest.approx(seconds, abs=0.001)


def test_timers_run_in_the_order_of_their_times() -> None:
    async def main(loop: SimulatedLoop) -> list[float]:
        log: list[float] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            log.append(seconds)

        await asyncio.gather(*[sleeper(seconds) for seconds in (3, 1, 2, 0.5)])
        return log

    assert simulated(1, main) == [0.5, 1, 2, 3]


def test_what_waits_for_nothing_fails() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await loop.create_future()

    with pytest.raises(RuntimeError, match="never go on"):
        simulated(1, main)


def test_what_goes_on_without_an_end_fails() -> None:
    async def main(loop: SimulatedLoop) -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(1000)

    with pytest.raises(RuntimeError, match="has not ended"):
        simulated(1, main)


def test_threads_are_refused() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="no threads"):
        simulated(1, main)


def test_random_numbers_and_ids_follow_from_the_seed_and_not_from_what_was_before() -> None:
    async def main(loop: SimulatedLoop) -> tuple[float, str, int]:
        return random.random(), secrets.token_urlsafe(9), len(secrets.token_urlsafe())

    before = random.getstate(), secrets.token_urlsafe
    first = simulated(1, main)
    assert (random.getstate(), secrets.token_urlsafe) == before
    random.random()
    assert simulated(1, main) == first
    assert simulated(2, main) != first


def test_a_stopped_process_does_nothing_until_it_goes_on() -> None:
    async def main(loop: SimulatedLoop) -> list[tuple[str, int]]:
        log: list[tuple[str, int]] = []
        host = Host("one")

        async def ticks(name: str) -> None:
            while True:
                await asyncio.sleep(1)
                log.append((name, round(loop.time())))

        stopped = loop.create_task(ticks("one"), context=host.context.copy())
        other = loop.create_task(ticks("two"))
        await asyncio.sleep(1.4)
        loop.stop_host(host)
        await asyncio.sleep(3)
        loop.continue_host(host)
        await asyncio.sleep(0.8)
        stopped.cancel()
        other.cancel()
        return log

    assert simulated(1, main) == [
        ("one", 1),
        ("two", 1),
        ("two", 2),
        ("two", 3),
        ("two", 4),
        ("one", 4),
        ("two", 5),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_overtakes_in_a_pipe(seed: int) -> None:
    async def main(loop: SimulatedLoop) -> list[int]:
        arrived: list[int] = []
        source = Random(seed)
        pipe = Pipe(loop, arrived.append, source, Host("one").context)
        for number in range(100):
            pipe.send(number, source.choice((0.0, 0.5)))
            if source.random() < 0.3:
                await asyncio.sleep(source.random())
        await asyncio.sleep(5)
        return arrived

    assert simulated(seed, main) == list(range(100))
