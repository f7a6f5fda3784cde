"""The constructor of picows' protocol class is no public API: this fails when it changes."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from picows import WSAutoPingStrategy, WSListener, picows

from symphony.websocket import parser

PARAMETERS = (
    "host_port",
    "ws_path",
    "is_client_side",
    "ws_listener_factory",
    "logger",
    "disconnect_on_exception",
    "websocket_handshake_timeout",
    "enable_auto_ping",
    "auto_ping_idle_timeout",
    "auto_ping_reply_timeout",
    "auto_ping_strategy",
    "enable_auto_pong",
    "max_frame_size",
    "extra_headers",
    "read_buffer_init_size",
)

WHAT_TO_DO = (
    f"picows {version('picows')} has another WSProtocol constructor than this was written for. Compare it "
    "(picows.pyx) with the call in src/symphony/parser.py, mend the call and PARAMETERS "
    "here, run tests/integration/native, and only then move the pin in pyproject.toml."
)


class Recorded(Exception):
    """Raised instead of making a protocol, with what it was to be made of."""


def passed(monkeypatch: pytest.MonkeyPatch, *, is_client: bool) -> dict[str, Any]:
    """Return what the parser passes, by the name of the parameter it goes to."""

    def record(*arguments: object) -> None:
        raise Recorded(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(picows, "WSProtocol", record)
        with pytest.raises(Recorded) as caught:
            parser.Parser(
                WSListener(), max_frame_bytes=4321, broken=lambda code, reason: None, is_client=is_client
            )
    return dict(zip(PARAMETERS, caught.value.args, strict=True))


@pytest.mark.parametrize("is_client", [False, True])
async def test_the_constructor_has_the_parameters_that_were_pinned(
    monkeypatch: pytest.MonkeyPatch, is_client: bool
) -> None:
    by_name = passed(monkeypatch, is_client=is_client)
    try:
        picows.WSProtocol(**by_name)
    except TypeError as error:
        pytest.fail(f"{WHAT_TO_DO} ({error})")


def test_the_constructor_has_no_other_parameter() -> None:
    with pytest.raises(TypeError) as caught:
        picows.WSProtocol(*[None] * 100)
    assert f"takes exactly {len(PARAMETERS)} positional arguments" in str(caught.value), WHAT_TO_DO


def test_the_parameters_are_in_the_order_that_was_pinned() -> None:
    """The compiled class does not tell the order, but its source comes with it."""
    source = Path(picows.__file__).with_name("picows.pyx").read_text()
    found = re.search(r"cdef class WSProtocol.*?def __init__\(self,(.*?)\):", source, re.DOTALL)
    assert found, WHAT_TO_DO
    names = tuple(declared.split()[-1] for declared in found[1].split(","))
    assert names == PARAMETERS, WHAT_TO_DO


@pytest.mark.parametrize("is_client", [False, True])
def test_the_parser_leaves_picows_nothing_to_send_by_itself(
    monkeypatch: pytest.MonkeyPatch, is_client: bool
) -> None:
    assert {
        "is_client_side": is_client,
        "disconnect_on_exception": True,
        "websocket_handshake_timeout": None,
        "enable_auto_ping": False,
        "auto_ping_strategy": WSAutoPingStrategy.PING_WHEN_IDLE,
        "enable_auto_pong": False,
        "max_frame_size": 4321,
    }.items() <= passed(monkeypatch, is_client=is_client).items()
