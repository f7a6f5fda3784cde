"""Clients that publish all the time, while everything happens to their server that can happen.

`make soak` runs it at full size: 500 clients for a minute.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from faults.hosts import Host, Outcome, Subject
from faults.network import Forwarder
from faults.revenant import Entry, Revenant
from support.clients import until

SOAK = os.environ.get("SOAK") == "true"
COUNT = 500 if SOAK else 25
SECONDS = 60.0 if SOAK else 6.0
# Each client says and asks something so often.
PAUSE = 4.0 if SOAK else 0.1
# Numbers of one client are apart from those of any other.
APART = 1_000_000

OPTIONS = {"backoff": 0.2, "max_backoff": 1.0, "max_queue": 10_000}
NONSENSE = (
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n:-)",
    b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"",
)


async def publish(subject: Subject, at: int, over: asyncio.Event) -> tuple[list[int], list[Any]]:
    """Emit and ask until it is over; return the emitted numbers and the pending requests."""
    emitted: list[int] = []
    asked: list[asyncio.Future[Outcome]] = []
    await asyncio.sleep(random.uniform(0, PAUSE))
    for n in itertools.count(1):
        if over.is_set():
            break
        number = at * APART + n
        assert (await subject.emit("say", number)).how == "done"
        emitted.append(number)
        asked.append(subject.request("greet", number, timeout=5))
        await asyncio.sleep(PAUSE)
    return emitted, asked


async def harm(server: Revenant, network: Forwarder, until_then: float) -> int:
    """Do everything to the server, again and again; return how often."""
    answers = itertools.cycle(NONSENSE)
    times = 0
    while time.monotonic() < until_then:
        for kind in ("kill", "stop", "restart at once", "cut", "freeze"):
            times += 1
            if kind == "cut":
                network.come_back()
            elif kind == "freeze":
                server.freeze()
                await asyncio.sleep(0.3)
                server.thaw()
            else:
                await (server.stop() if kind == "stop" else server.kill())
                # A proxy answers for the server while it is away.
                for _ in range(0 if kind == "restart at once" else 4):
                    network.answer(next(answers))
                    await asyncio.sleep(0.2)
                await server.start()
                if kind != "restart at once":
                    network.come_back()
            await asyncio.sleep(1.0 if not SOAK else 3.0)
    return times


def gaps(entries: list[Entry], emitted: list[int]) -> list[tuple[int, bool]]:
    """Return the numbers that never came, each with whether another connection followed."""
    by = {entry.data: entry.by for entry in entries}
    lost: list[tuple[int, bool]] = []
    before: str | None = None
    missing: list[int] = []
    for number in emitted:
        if number not in by:
            missing.append(number)
            continue
        lost.extend((one, by[number] != before) for one in missing)
        missing = []
        before = by[number]
    return lost + [(one, False) for one in missing]


@pytest.mark.timeout(120 if SOAK else 60)
async def test_nothing_comes_twice_or_out_of_order_and_each_request_ends(
    host: Host, server: Revenant, network: Forwarder, record_property: Any
) -> None:
    subjects = [host.connect(network.url, connect_timeout=30, **OPTIONS) for _ in range(COUNT)]
    for subject in subjects:
        assert (await subject.opened).how == "done"
    over = asyncio.Event()
    publishing = [asyncio.ensure_future(publish(one, at, over)) for at, one in enumerate(subjects)]
    times = await harm(server, network, time.monotonic() + SECONDS)
    over.set()
    done = await asyncio.gather(*publishing)

    # What was queued goes out, and then the last word of each.
    for at, subject in enumerate(subjects):
        await until(lambda subject=subject: subject.moments[-1].state == "open", timeout=20)
        done[at][0].append(last := at * APART + APART - 1)
        assert (await subject.emit("say", last)).how == "done"
    await until(
        lambda: sum(number % APART == APART - 1 for number in server.numbers("say")) == COUNT, timeout=20
    )

    # Each request was answered or has failed.
    outcomes = [await asked for _, requests in done for asked in requests]
    assert {outcome.how for outcome in outcomes} <= {
        "done",
        "DisconnectedError",
        "RequestTimeoutError",
        "RemoteError",
    }
    assert sum(outcome.how == "done" for outcome in outcomes) > 0

    said: dict[int, list[Entry]] = defaultdict(list)
    for entry in server.journal("say"):
        said[entry.data // APART].append(entry)
    lost = 0
    for at, (subject, (emitted, _)) in enumerate(zip(subjects, done, strict=True)):
        numbers = [entry.data for entry in said[at]]
        # None twice, none out of order, none that was never sent, and the same the other way.
        assert numbers == sorted(set(numbers))
        assert set(numbers) <= set(emitted)
        assert subject.heard == sorted(set(subject.heard))
        assert subject.ended is None
        # An emit is lost only with the connection that it was written to.
        missing = gaps(said[at], emitted)
        assert all(broke for _, broke in missing), (at, missing)
        lost += len(missing)
    total = sum(len(emitted) for emitted, _ in done)
    figures = {
        "clients": COUNT,
        "faults": times,
        "emitted": total,
        "lost with their connection": lost,
        "requests": len(outcomes),
        "answered": sum(outcome.how == "done" for outcome in outcomes),
        "failed": dict(Counter(outcome.how for outcome in outcomes if outcome.how != "done")),
    }
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
