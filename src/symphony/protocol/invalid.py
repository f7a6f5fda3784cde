"""From what msgspec finds wrong to what a peer is told: a reason and a path."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("reason_and_path", "shortened")

_SHOWN: Final = 200
_PATH: Final = re.compile(r"(.*) - at (?:`key` in )?`([^`]*)`", re.DOTALL)


def reason_and_path(problem: str) -> tuple[str, str]:
    """Part msgspec's message into what is wrong and where (`$.page`)."""
    found = _PATH.fullmatch(problem)
    reason, path = (found[1], found[2]) if found else (problem, "$")
    return shortened(reason), shortened(path)


def shortened(text: str) -> str:
    """Cut what may quote the peer's own message, which may be as long as the limit."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
