"""Every test here runs on its own loop, and must leave nothing of the client behind in it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

import symphony.client
from support.clients import until

_OUR_FOLDER = str(Path(symphony.client.__file__).parent)
_LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(config: pytest.Config, item: Any) -> Mapping[str, Any]:
    """Run a test that takes `each_loop` on asyncio's and on uvloop; every other test once."""
    return _LOOPS if "each_loop" in item.fixturenames else {"asyncio": asyncio.SelectorEventLoop}


@pytest.fixture
def each_loop() -> None:
    """Ask for the test to be run on each loop."""


@pytest.fixture(autouse=True)
async def nothing_left_over() -> AsyncIterator[None]:
    """Check that no task and no timer of the client is left behind the test."""
    yield
    await until(lambda: not _tasks(), timeout=2)
    assert not _timers(), _timers()
    # What was not closed says so when it is collected, and warnings are errors.
    # What a test has made is young.
    gc.collect(1)


def _tasks() -> list[Any]:
    return [task for task in asyncio.all_tasks() if _ours(getattr(task.get_coro(), "cr_code", None))]


def _timers() -> list[Any]:
    # uvloop does not tell.
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    pending = [timer for timer in scheduled if not timer.cancelled()]
    return [timer for timer in pending if _ours(getattr(timer._callback, "__code__", None))]


def _ours(code: Any) -> bool:
    return code is not None and code.co_filename.startswith(_OUR_FOLDER)
