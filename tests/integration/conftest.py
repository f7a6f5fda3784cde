"""The same tests over every transport: `native`, plain uvicorn, and mounted in FastAPI."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from support import servers
from support.clock import Hold, held_by

# What these test is decided above the transport, or is the same code in each loop.
TWO_VARIANTS = {
    "test_background",
    "test_checks",
    "test_concurrency",
    "test_dependencies",
    "test_event_middleware",
    "test_event_registration",
    "test_event_rooms",
    "test_events",
    "test_freed",
    "test_handlers",
    "test_history",
    "test_jsonrpc",
    "test_loops",
    "test_middleware",
    "test_parameters",
    "test_payloads",
    "test_plugins",
    "test_raised",
    "test_raw_errors",
    "test_refuse_token",
    "test_registration",
    "test_requests",
    "test_results",
    "test_room_changes",
    "test_room_families",
    "test_rooms",
    "test_socket_context",
    "test_streams",
    "test_thread_dependencies",
    "test_thread_streams",
    "test_threads",
    "test_tokens",
    "test_unencodable",
}
# They share neither a transport nor an event loop.
_EXTREMES = {name: servers.VARIANTS[name] for name in ("native-uvloop", "asgi")}


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> Mapping[str, Any]:
    """Run a test that takes `serve` in its variants; every other test once."""
    if "serve" not in item.fixturenames:
        return {"asyncio": asyncio.new_event_loop}
    if config.getoption("other_python"):
        return {"native-asyncio": servers.VARIANTS["native-asyncio"]}
    return _EXTREMES if item.path.stem in TWO_VARIANTS else servers.VARIANTS


@pytest.fixture
def serve() -> servers.Serve:
    """Serve an app over the transport in question: `async with serve(app) as url`."""
    return servers.serve


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Hold the event loop for some seconds, on a clock that only this moves: `hold(0.03)`."""
    return held_by(monkeypatch)
