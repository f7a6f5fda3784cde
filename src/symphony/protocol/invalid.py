"""Turns msgspec's error messages into a reason and a path for the peer."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("reason_and_path", "shortened")

_SHOWN: Final = 200
_PATH: Final = re.compile(r"(.*) - at (?:`key` in )?`([^`]*)`", re.DOTALL)


def reason_and_path(problem: str) -> tuple[str, str]:
    """Split msgspec's message into the problem and its path (`$.page`)."""
    found = _PATH.fullmatch(problem)
    reason, path = (found[1], found[2]) if found else (problem, "$")
    return shortened(reason), shortened(path)


def shortened(text: str) -> str:
    """Shorten text that may quote the peer's message, which can be very long."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
