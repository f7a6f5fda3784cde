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
    dataclasses, asyncio, garbage collection, signals, TLS. These are the folders of `OTHER_PYTHON`, without
    the modules of `ONE_PYTHON`. There `serve` and `native` use asyncio's loop alone, which is part of the
    interpreter. Of a test with parameters, the first and the last case run: most cases differ in data, and
    go through the same code. In the modules of `EVERY_CASE`, each case takes another way through the
    interpreter.

Sizes
    Load tests and properties are small where a bound is proven by less. `make soak` sets `SOAK=true` and
    runs them at full size: see `support.sizes`.
"""

import gc
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.sizes import SOAK, size

OTHER_PYTHON = ("unit", "integration", "client", "examples", "wire")
# What they test is compiled, printed, text and numbers, a count that one Python proves, or what an
# app is told about rooms, routes and users. Examples are run whole by `test_every_example.py`.
ONE_PYTHON = {
    "client/test_client_bounds.py",
    "client/test_compression.py",
    "client/test_framelog.py",
    "client/test_many.py",
    "client/test_other_servers.py",
    "client/test_proxies.py",
    "examples/test_basic_plugin.py",
    "examples/test_clients.py",
    "examples/test_custom_protocol.py",
    "examples/test_demo.py",
    "examples/test_echo_server.py",
    "examples/test_history.py",
    "examples/test_middleware.py",
    "examples/test_readme.py",
    "examples/test_requests.py",
    "examples/test_rooms.py",
    "examples/test_routing.py",
    "examples/test_simple_server.py",
    "examples/test_streaming.py",
    "integration/native/test_compression.py",
    "integration/native/test_conformance.py",
    "integration/native/test_handshake.py",
    "integration/native/test_hostile_frames.py",
    "integration/native/test_hosts.py",
    "integration/native/test_http_bounds.py",
    "integration/native/test_queued_bytes.py",
    "integration/native/test_stale.py",
    "integration/native/test_turns.py",
    "integration/test_admission.py",
    "integration/test_catchup.py",
    "integration/test_checks.py",
    "integration/test_cli.py",
    "integration/test_cli_connect.py",
    "integration/test_cli_reloading.py",
    "integration/test_client_script.py",
    "integration/test_elements.py",
    "integration/test_event_middleware.py",
    "integration/test_event_rooms.py",
    "integration/test_history.py",
    "integration/test_http_app.py",
    "integration/test_identity.py",
    "integration/test_jsonrpc.py",
    "integration/test_logging.py",
    "integration/test_middleware.py",
    "integration/test_misspelled.py",
    "integration/test_mounts.py",
    "integration/test_raw_errors.py",
    "integration/test_refusals.py",
    "integration/test_refuse_token.py",
    "integration/test_room_families.py",
    "integration/test_rooms.py",
    "integration/test_routing.py",
    "integration/test_tokens.py",
    "integration/test_unencodable.py",
    "integration/test_users.py",
    "unit/routing/test_patterns.py",
    "unit/websocket/test_assembler.py",
    "unit/websocket/test_backlog.py",
    "unit/websocket/test_deflate.py",
    "unit/websocket/test_frames.py",
    "unit/websocket/test_handshake.py",
    "unit/websocket/test_hosts.py",
    "wire/test_vectors.py",
}
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
    if not collection_path.is_dir():
        return collection_path.relative_to(_HERE).as_posix() in ONE_PYTHON or None
    if collection_path.parent != _HERE or collection_path.name in OTHER_PYTHON:
        return None
    return True


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


def pytest_report_header() -> str:
    return "sizes: full" if SOAK else "sizes: small (`make soak` runs them at full size)"
