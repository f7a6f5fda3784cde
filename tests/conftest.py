"""What is run where, and how large: the one place that decides it.

Three things multiply the tests. Each is used only for what it can change.

Transports and event loops
    A test of `integration/` that takes `serve` runs over every entry of `support.servers.VARIANTS`. Where a
    module tests only what an app says and hears, the two that differ most are enough: `TWO_VARIANTS` in
    `integration/conftest.py` lists these modules. A test of `integration/native/` runs on uvloop and on
    asyncio. A test of `unit/` or `client/` asks for both loops with a fixture (`begin`, `each_loop`). Every
    other test runs once.

    Of a test with parameters, all cases run on the first variant, which is the native transport on uvloop
    for servers. On the others, the first and the last case run: most cases differ in data, and go through
    the same code. In the modules of `EVERY_CASE_ON_EACH_LOOP`, each case takes another way through the
    event loop.

Interpreters
    All tests run on one Python. `--other-python` runs what an interpreter can change: annotations,
    dataclasses, asyncio, garbage collection, signals, TLS. These are the modules of `OTHER_PYTHON`. There
    `serve` and `native` use asyncio's loop alone, which is part of the interpreter. Of a test with
    parameters, the first and the last case run: most cases differ in data, and go through the same code.
    In the modules of `EVERY_CASE`, each case takes another way through the interpreter.

Sizes
    Load tests and properties are small where a bound is proven by less. `make soak` sets `SOAK=true` and
    runs them at full size: see `support.sizes`.
"""

import gc
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.sizes import SOAK, size

# What meets the interpreter: its event loop, signals, threads, TLS, SQLite and garbage collection, and how
# it shows signatures and annotations. And each area once as it is used: an app, both clients, an example.
OTHER_PYTHON = {
    "client/test_connecting.py",
    "client/test_eager_tasks.py",
    "client/test_link_contract.py",
    "client/test_sync.py",
    "client/test_tls_restarts.py",
    "client/test_websocket.py",
    "client/test_with_symphony.py",
    "examples/test_every_example.py",
    "integration/native/test_outer.py",
    "integration/native/test_stopping.py",
    "integration/native/test_tls.py",
    "integration/native/test_writing.py",
    "integration/test_background.py",
    "integration/test_brokers.py",
    "integration/test_concurrency.py",
    "integration/test_dependencies.py",
    "integration/test_event_registration.py",
    "integration/test_events.py",
    "integration/test_freed.py",
    "integration/test_handlers.py",
    "integration/test_lifecycle.py",
    "integration/test_loops.py",
    "integration/test_parameters.py",
    "integration/test_payloads.py",
    "integration/test_plugins.py",
    "integration/test_presence.py",
    "integration/test_raised.py",
    "integration/test_registration.py",
    "integration/test_requests.py",
    "integration/test_results.py",
    "integration/test_shared_rooms.py",
    "integration/test_socket_context.py",
    "integration/test_streams.py",
    "integration/test_thread_dependencies.py",
    "integration/test_thread_streams.py",
    "integration/test_threads.py",
    "integration/test_threadsafe.py",
    "unit/broker/test_sqlite.py",
    "unit/protocol/test_annotations.py",
    "unit/protocol/test_defaults.py",
    "unit/protocol/test_models.py",
    "unit/routing/test_convert.py",
    "unit/routing/test_dependencies.py",
    "unit/session/test_lane.py",
    "unit/session/test_streams.py",
    "unit/test_tasks.py",
    "unit/testing/test_client.py",
    "unit/websocket/test_parser.py",
    "wire/test_codecs.py",
    "wire/test_server.py",
}
_FOLDERS = {parent for module in OTHER_PYTHON for parent in Path(module).parents}
# Exceptions, generators, threads and reference cycles; types and their annotations. Of the vectors, each
# is decoded and encoded. As conversations with a server or a client, the first and the last of a kind run.
EVERY_CASE = {
    "integration/test_events.py",
    "integration/test_freed.py",
    "integration/test_loops.py",
    "integration/test_raised.py",
    "integration/test_results.py",
    "integration/test_thread_streams.py",
    "unit/protocol/test_annotations.py",
    "unit/protocol/test_defaults.py",
    "unit/protocol/test_models.py",
    "unit/routing/test_convert.py",
    "wire/test_codecs.py",
}

# What suspends, and what refers to what.
EVERY_CASE_ON_EACH_LOOP = {
    "integration/test_freed.py",
    "integration/test_loops.py",
}

# `nohup` ignores SIGHUP, and a shell script ignores SIGINT in what it starts with `&`. The servers
# that tests start would inherit that, and would never see the signals that tests send them.
for _number, _handler in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
    if hasattr(signal, _number) and signal.getsignal(getattr(signal, _number)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _number), _handler)

_HERE = Path(__file__).parent
# The parameter that pytest-asyncio makes of `pytest_asyncio_loop_factories`.
_VARIANT = "_asyncio_loop_factory"

# What a property without settings of its own uses. No test asserts how long an example takes.
settings.register_profile("symphony", settings.default, max_examples=size(50, full=1000), deadline=None)
settings.load_profile("symphony")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--other-python", action="store_true", help="run only what an interpreter can change")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what an interpreter cannot change."""
    if not config.getoption("other_python"):
        return None
    path = collection_path.relative_to(_HERE)
    wanted = path in _FOLDERS if collection_path.is_dir() else path.as_posix() in OTHER_PYTHON
    return None if wanted else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases between the first and the last, where the module docstring says so."""
    if SOAK:
        return
    other_python = config.getoption("other_python")
    every_case = EVERY_CASE if other_python else EVERY_CASE_ON_EACH_LOOP
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        call: Any = getattr(item, "callspec", None)
        variant: int = 0 if call is None else call.indices.get(_VARIANT, 0)
        if (other_python or variant) and item.path.relative_to(_HERE).as_posix() not in every_case:
            cases.setdefault((item.nodeid.partition("[")[0], variant), []).append(item)
    left_out = {item for of_one in cases.values() for item in of_one[1:-1]}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_collection() -> None:
    """Let the garbage collector rest until all tests are there: what is made until then stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let `gc.collect()` look at what a test has made, not at the thousands of tests themselves."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Let `gc.collect()` leave out what earlier modules have made, and what pytest keeps of their tests."""
    try:
        yield
    finally:
        if nextitem is None or nextitem.path != item.path:
            gc.collect()
            gc.freeze()


def pytest_report_header() -> str:
    return "sizes: full" if SOAK else "sizes: small (`make soak` runs them at full size)"
