"""Who logs what, where the user has configured nothing, something or all of it."""

import io
import logging
from collections.abc import Iterator

import pytest

from symphony.errors import ConfigurationError
from symphony.transport.base import shown_address
from symphony.transport.native.logs import check_level, configure_logging


class Errors:
    """What was written to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._read = ""

    def getvalue(self) -> str:
        self._read += self._capsys.readouterr().err
        return self._read


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Iterator[Errors]:
    """Standard error; what a test changes of the loggers is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("symphony", "uvicorn", "shop", "shop.cart", "library")
    levels = {name: logging.getLogger(name).level for name in names}
    yield Errors(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(levels[name])


def unconfigured() -> None:
    """Take pytest's own handlers away; it adds them after all fixtures."""
    logging.getLogger().handlers.clear()


def lines(stream: Errors) -> list[str]:
    """What was logged, without the time."""
    return [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()]


def test_all_loggers_log_in_one_format_from_the_level_on(err: Errors) -> None:
    unconfigured()
    configure_logging("info")
    logging.getLogger("symphony.socket").info("opened")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("shop").info("sold")
    logging.getLogger("shop").debug("counted")
    logging.info("root")
    assert lines(err) == [
        "INFO symphony.socket: opened",
        "INFO uvicorn.error: started",
        "INFO shop: sold",
        "INFO root: root",
    ]


def test_the_default_is_warnings_and_a_second_time_adds_no_second_line(err: Errors) -> None:
    unconfigured()
    configure_logging(None)
    configure_logging(None)
    logging.getLogger("shop").info("sold")
    logging.getLogger("shop").warning("sold out")
    assert lines(err) == ["WARNING shop: sold out"]


def test_an_exception_comes_with_its_traceback(err: Errors) -> None:
    unconfigured()
    configure_logging(None)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("shop").exception("not sold")
    found = err.getvalue().splitlines()
    assert found[0].endswith("ERROR shop: not sold")
    assert found[1] == "Traceback (most recent call last):"
    assert found[-1] == "ValueError: no"


def test_a_handler_of_the_user_on_the_root_logger_is_left_alone(err: Errors) -> None:
    unconfigured()
    theirs = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(theirs)
    logging.getLogger("symphony").setLevel("ERROR")
    configure_logging(None)
    assert logging.getLogger().handlers == [theirs]
    assert logging.getLogger("symphony").level == logging.ERROR
    configure_logging("debug")
    assert logging.getLogger().handlers == [theirs]
    assert logging.getLogger("symphony").level == logging.DEBUG
    assert err.getvalue() == ""


def test_what_a_handler_of_the_user_takes_does_not_come_twice(err: Errors) -> None:
    unconfigured()
    theirs = io.StringIO()
    logging.getLogger("shop").addHandler(logging.StreamHandler(theirs))
    configure_logging("info")
    logging.getLogger("shop.cart").info("filled")
    logging.getLogger("symphony.socket").info("opened")
    assert theirs.getvalue() == "filled\n"
    assert lines(err) == ["INFO symphony.socket: opened"]


def test_a_handler_that_the_user_adds_later_takes_over(err: Errors) -> None:
    unconfigured()
    configure_logging("info")
    theirs = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(theirs))
    logging.getLogger("shop").info("sold")
    assert (theirs.getvalue(), err.getvalue()) == ("sold\n", "")


def test_a_library_that_leaves_logging_to_others_is_shown(err: Errors) -> None:
    unconfigured()
    logging.getLogger("library").addHandler(logging.NullHandler())
    configure_logging("info")
    logging.getLogger("library").info("asked")
    assert lines(err) == ["INFO library: asked"]


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({}, False),
    ],
)
def test_the_level_has_a_colour_on_a_terminal_only(
    err: Errors, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    unconfigured()
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configure_logging("info")
    logging.getLogger("shop").error("not sold")
    assert ("\x1b[31mERROR\x1b[0m shop: not sold" in err.getvalue()) == coloured
    assert err.getvalue().count("\n") == 1


@pytest.mark.parametrize("level", ["loud", "", "trace", "notset", "10"])
def test_a_level_that_does_not_exist_is_refused_with_those_that_do(level: str) -> None:
    with pytest.raises(ConfigurationError, match="use one of debug, info, warning, error, critical"):
        check_level(level)


def test_a_level_may_be_written_in_capitals() -> None:
    assert check_level("INFO") == "info"


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (("127.0.0.1", 50314), "127.0.0.1:50314"),
        (("::1", 50314), "[::1]:50314"),
        (("203.0.113.9", 0), "203.0.113.9"),
        (("2001:db8::1", 0), "2001:db8::1"),
        (("203.0.113.9", 443), "203.0.113.9:443"),
        (None, "a local socket"),
    ],
)
def test_an_address_without_a_port_is_shown_without_one(client: tuple[str, int] | None, shown: str) -> None:
    """Behind a proxy every client was `203.0.113.9:0`."""
    assert shown_address(client) == shown


@pytest.mark.parametrize(
    "host",
    ["1.2.3.4\n2026-01-01 INFO forged", "\x9b31m", "1.2.3.4\x85forged", "\u202e4.3.2.1", "1.2.3.4" * 10_000],
)
@pytest.mark.parametrize("port", [0, 443])
def test_an_address_that_a_proxy_has_sent_is_one_short_line(host: str, port: int) -> None:
    """Proxies that pass on `X-Forwarded-For` let clients write anything there."""
    shown = shown_address((host, port))
    assert shown.isprintable()
    assert len(shown) <= 210
