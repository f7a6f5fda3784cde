"""How a server's process logs, unless its user has configured that."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO, cast

from symphony.errors import ConfigurationError
from symphony.printable import escaped
from symphony.transport.native.unblocked import Unblocked

__all__ = ("DEFAULT_LEVEL", "LEVELS", "check_level", "configure_logging")

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
DEFAULT_LEVEL: Final = "warning"

_OURS: Final = ("symphony", "uvicorn")
_FORMAT: Final = "%(asctime)s {}%(levelname)s{} %(name)s{}: %(message)s"
_PLAIN: Final = "\x1b[0m"
_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


def check_level(level: str) -> str:
    """Return a log level in lower case.

    Raises:
        ConfigurationError: There is no such level.
    """
    if level.lower() not in LEVELS:
        raise ConfigurationError(f"{level!r} is not a log level: use one of {', '.join(LEVELS)}.")
    return level.lower()


def configure_logging(level: str | None, process: str | None = None) -> None:
    """Log to standard error what nothing else logs.

    If the root logger has a handler, the user has configured logging. Then
    this only sets the levels of `symphony` and `uvicorn`, if *level* is given.
    Otherwise one handler takes the records of all loggers, the user's too,
    from *level* on. It leaves out what another handler takes, so no line
    appears twice.

    Args:
        level: One of `LEVELS`; `None` is `DEFAULT_LEVEL`.
        process: What to call this process in each line, if several write to one place.
    """
    root = logging.getLogger()
    if any(not isinstance(handler, _Fallback) for handler in root.handlers):
        if level is not None:
            for name in _OURS:
                logging.getLogger(name).setLevel(level.upper())
        return
    root.setLevel((level or DEFAULT_LEVEL).upper())
    if not root.handlers:
        root.addHandler(_Fallback("" if process is None else f" [{process}]"))


class _Fallback(logging.StreamHandler[TextIO]):
    """Writes the records that no other handler takes."""

    def __init__(self, process: str) -> None:
        # Lines that were written to `sys.stderr` itself come first.
        sys.stderr.flush()
        super().__init__(cast("TextIO", Unblocked(sys.stderr)))
        self.setFormatter(
            _Coloured(process) if _shows_colours() else _Escaping(_FORMAT.format("", "", process))
        )
        self.addFilter(_is_left)


def _is_left(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(not isinstance(handler, _Fallback | logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


class _Escaping(logging.Formatter):
    """Escapes control characters in the lines of all loggers. Line breaks and tabs stay."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        record.message = escaped(record.message, keep="\n\t")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback."""
        return escaped(super().formatException(ei), keep="\n\t")


class _Coloured(_Escaping):
    """Shows the level in a colour."""

    def __init__(self, process: str) -> None:
        super().__init__(_FORMAT.format("", "", process))
        self._of_level = {
            level: _Escaping(_FORMAT.format(colour, _PLAIN, process)) for level, colour in _COLOURS.items()
        }

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        formatter = self._of_level.get(record.levelno)
        return super().format(record) if formatter is None else formatter.format(record)


def _shows_colours() -> bool:
    # rich knows terminals, NO_COLOR, and the old console of Windows.
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.no_color and console.color_system not in (None, "windows")
