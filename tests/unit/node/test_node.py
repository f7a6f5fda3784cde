"""When a node is ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from symphony import Symphony
from symphony.broker.base import BrokerState
from symphony.transport.probing import Readiness


@pytest.mark.parametrize(
    ("broker", "requires_broker", "ready"),
    [
        ("ok", False, True),
        ("ok", True, True),
        # All nodes lose it together.
        ("away", False, True),
        ("away", True, False),
        # The others hear what is published, and this one does not.
        ("deaf", False, False),
        ("deaf", True, False),
    ],
)
async def test_a_node_is_ready_unless_it_alone_misses_what_is_published(
    broker: BrokerState, requires_broker: bool, ready: bool
) -> None:
    app = Symphony(ready_requires_broker=requires_broker)
    core: Any = app._core
    async with app.lifespan():
        core.node._broker = cast("Any", SimpleNamespace(state=broker))
        assert core.readiness == Readiness(ready, broker, stopping=False)


async def test_a_node_that_is_to_stop_is_not_ready() -> None:
    app = Symphony()
    async with app.lifespan():
        app._core.node.retire()
        assert app._core.readiness == Readiness(ready=False, broker="ok", stopping=True)


async def test_an_app_that_starts_at_its_first_connection_is_ready_for_it() -> None:
    assert Symphony()._core.readiness == Readiness(ready=True, broker="ok", stopping=False)
