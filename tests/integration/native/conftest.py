"""Attacks on the native transport, on both event loops."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop

from support import servers
from symphony import Symphony

Native = Callable[..., AbstractAsyncContextManager[str]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> dict[str, Any]:
    if config.getoption("other_python"):
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # How fast this machine is, is not what these tests are about.
        if "held the event loop" in record.msg:
            return
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What Symphony logs at WARNING or above while the test runs."""
    handler = _Complaints()
    logger = logging.getLogger("symphony")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


@pytest.fixture
def native(complaints: list[str]) -> Native:
    """Serve natively: `async with native(app) as url`.

    When the block ends nothing may be left of any connection, and Symphony
    must have had nothing to complain of, unless the test takes `complaints`
    and clears it.
    """

    @asynccontextmanager
    async def serve(app: Symphony, **options: Any) -> AsyncIterator[str]:
        # pytest's own timeout is a signal, and its exception may end up in a
        # handler of the server under test.
        async with asyncio.timeout(15), servers.serve_natively(app, **options) as url:
            yield url
            node: Any = app._core.node
        assert not node._sessions
        assert not node.sockets
        assert not node._admission._per_address
        assert not node.logins._sockets
        assert not len(node.rooms)
        assert not node.rooms.everyone.recipients
        assert not complaints

    return serve
