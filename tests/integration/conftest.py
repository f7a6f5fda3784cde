"""The same tests over every transport: `native`, plain uvicorn, and mounted in FastAPI."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from support import servers


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> Mapping[str, Any]:
    """Run a test that takes `serve` in each variant; every other test once."""
    return servers.VARIANTS if "serve" in item.fixturenames else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def serve() -> servers.Serve:
    """Serve an app over the transport in question: `async with serve(app) as url`."""
    return servers.serve
