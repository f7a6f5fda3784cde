"""Publications a second into the histories of each broker: `python benchmarks/brokers.py`.

Many tasks publish at the same time, as the handlers of a server do. Each awaits its publication
before it makes the next one. `ipc` has its broker in another thread of this process. Both share
one interpreter, so a broker in another process is faster.

A Redis is measured with `--redis URL`, once started with `redis-server --port 7000 --save ''`. Its
numbers are with two nodes in this process: the second one hears what the first one publishes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis import Redis
from symphony import History, Limits
from symphony.broker.base import Broker, Draft
from symphony.broker.engines import open_broker, serve

LIMITS = Limits()
HISTORY = History(100)
TASKS = 200
ROOMS = 50


async def rate(broker: Broker, seconds: float) -> float:
    """Return how many publications a second are acknowledged."""
    draft = Draft("said", b"\xc4\xc8" + b"x" * 200)
    end = time.perf_counter() + seconds
    made = 0

    async def publish(task: int) -> None:
        nonlocal made
        room = f"room:{task % ROOMS}"
        while time.perf_counter() < end:
            await broker.publish(room, draft, HISTORY)
            made += 1
            # A broker in memory answers at once.
            await asyncio.sleep(0)

    began = time.perf_counter()
    await asyncio.gather(*(publish(task) for task in range(TASKS)))
    return made / (time.perf_counter() - began)


async def measured(url: str, seconds: float) -> float:
    """Return the rate of the broker at a URL."""
    broker = await open_broker(url, LIMITS)
    try:
        return await rate(broker, seconds)
    finally:
        broker.close()


async def delay(one: Broker, two: Broker) -> float:
    """Return the median of milliseconds from a publication until another node hears it."""
    heard = asyncio.Event()
    await two.subscribe("delay", lambda record: heard.set())
    draft = Draft("said", b"\xc4\xc8" + b"x" * 200)
    took: list[float] = []
    for _ in range(1000):
        heard.clear()
        began = time.perf_counter()
        one.publish("delay", draft, HISTORY)
        await heard.wait()
        took.append((time.perf_counter() - began) * 1000)
    two.unsubscribe("delay")
    return statistics.median(took)


def redis_cpu(url: str) -> float:
    """Return how many seconds of CPU the server has used."""
    with Redis.from_url(url.partition("?")[0]) as server:
        used = server.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


async def redis_row(url: str, seconds: float) -> None:
    """Print what a Redis and its nodes need."""
    one, two = await open_broker(url, LIMITS), await open_broker(url, LIMITS)
    try:
        median = await delay(one, two)
        server, process = redis_cpu(url), time.process_time()
        a_second = await rate(one, seconds)
        process = time.process_time() - process
        server = redis_cpu(url) - server
    finally:
        one.close()
        two.close()
    made = a_second * seconds / 1e6
    print(
        f"{url.partition('://')[0]}:// {a_second:,.0f} publications a second with {TASKS} in flight; "
        f"{server / made:.0f} us of CPU each in the server, {process / made:.0f} us in Python; "
        f"to another node {median:.2f} ms (p50)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--redis", help="the URL of a Redis, which alone is measured")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    if arguments.redis:
        asyncio.run(redis_row(arguments.redis, seconds))
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        urls = {
            "memory://": "memory://",
            "sqlite:// (sync=normal)": f"sqlite:///{directory}/normal.db?sync=normal",
            "sqlite:// (sync=full)": f"sqlite:///{directory}/full.db",
        }
        for name, url in urls.items():
            show(name, lambda url=url: measured(url, seconds))
        for name, url in urls.items():
            served = serve(url.replace(".db", "-served.db"), LIMITS)
            show(f"ipc:// to {name}", lambda at=served.url: measured(at, seconds))
            served.close()


def show(name: str, measure: Callable[[], Awaitable[float]]) -> None:
    async def run() -> float:
        return await measure()

    print(f"{name:36} {asyncio.run(run()):>10,.0f} publications a second", flush=True)


if __name__ == "__main__":
    main()
