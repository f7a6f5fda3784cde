"""The presence store in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from symphony.broker.memorypresence import MemoryPresence
from symphony.broker.presence import PresenceStore
from symphony.testing import Clock, contracts

Check = Callable[[PresenceStore, Callable[[float], Awaitable[None]]], Awaitable[None]]


@pytest.mark.parametrize("check", contracts.PRESENCE, ids=lambda check: check.__name__)
async def test_it_is_a_presence_store(check: Check) -> None:
    clock = Clock.of_running_loop()
    await check(MemoryPresence(), clock.advance)
