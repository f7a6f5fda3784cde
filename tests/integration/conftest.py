"""The same tests over every transport: `native`, plain uvicorn, and mounted in FastAPI."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from support import servers


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> Mapping[str, Any]:
    """Run a test that takes `serve` in each variant; every other test once."""
    if "serve" not in item.fixturenames:
        return {"asyncio": asyncio.new_event_loop}
    if config.getoption("other_python"):
        return {"native-asyncio": servers.VARIANTS["native-asyncio"]}
    return servers.VARIANTS


@pytest.fixture
def serve() -> servers.Serve:
    """Serve an app over the transport in question: `async with serve(app) as url`."""
    return servers.serve
