"""Loops for the tests of what meets the event loop itself."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import uvloop

_LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> Mapping[str, Any]:
    """Run a test that takes `begin` on each loop; every other test once."""
    return _LOOPS if "begin" in item.fixturenames else {"asyncio": asyncio.new_event_loop}
