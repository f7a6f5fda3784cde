"""Listeners of rooms whose node has lost the broker: at the beginning, and while they listen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from integration.test_cut_nodes import caller_of, cut
from support.clients import until
from support.nodes import running
from symphony import Limits, Position, Reject, Symphony


def make_app(url: str, timeout: float = 20) -> Symphony:
    app = Symphony(broker=url, limits=Limits(publish_timeout=timeout))
    app.rooms("kept:{name}", history=5)
    app.rooms("plain:{name}")
    app.route("/", events=True)
    return app


@pytest.mark.parametrize("room", ["kept:a", "plain:a"])
async def test_a_listener_that_begins_without_the_broker_gets_an_error_in_time(room: str) -> None:
    async with running(lambda url: make_app(url, 0.3)) as (_, two):
        async with cut(two):
            with pytest.raises(Reject) as refusal:
                async with two.app.room(room).listen():
                    pass
            assert refusal.value.code == "unavailable"
            assert refusal.value.retryable
        await until(lambda: caller_of(two)._link is not None)
        # Nothing of it is left that would keep the next one out.
        async with two.app.room(room).listen() as publications:
            await two.app.room(room).emit("said", 1)
            assert (await anext(publications)).data == 1


@pytest.mark.parametrize("room", ["kept:a", "plain:a"])
async def test_a_listener_waits_for_a_broker_that_is_back_in_time(room: str) -> None:
    async with running(make_app) as (one, two):
        entered = asyncio.Event()

        async def listen() -> Any:
            async with two.app.room(room).listen() as publications:
                entered.set()
                return (await anext(publications)).data

        async with cut(two):
            listening = asyncio.ensure_future(listen())
            await until(lambda: caller_of(two)._waiting.all())
            assert not entered.is_set()
        await entered.wait()
        await one.app.room(room).emit("said", 1)
        assert await listening == 1


async def test_a_listener_of_a_history_misses_nothing_that_is_kept() -> None:
    """Each publication once and in order; and what is not kept any more is told."""
    async with running(make_app) as (one, two):
        lost: list[Position] = []
        async with two.app.room("kept:a").listen() as publications:
            publications.on_lost(lost.append)
            await one.app.room("kept:a").emit("said", 0)
            assert (await anext(publications)).data == 0
            async with cut(two):
                for number in range(1, 5):
                    await one.app.room("kept:a").emit("said", number)
            assert [(await anext(publications)).data for _ in range(4)] == [1, 2, 3, 4]
            assert lost == []
            async with cut(two):
                for number in range(5, 25):
                    await one.app.room("kept:a").emit("said", number)
            await until(lambda: caller_of(two)._link is not None)
            await one.app.room("kept:a").emit("said", 25)
            heard = [(await anext(publications)).data]
            while heard[-1] < 25:
                heard.append((await anext(publications)).data)
            assert heard == list(range(heard[0], 26))
            assert heard[0] > 5
            assert len(lost) == 1
