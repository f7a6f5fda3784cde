"""Turns the errors of msgspec and pydantic into reasons and paths for the peer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from symphony.printable import MAX_SHOWN

__all__ = ("MAX_EXAMINED", "Fault", "details_of", "faults", "reason_and_path", "shortened")

MAX_EXAMINED: Final = 1000
"""If pydantic finds more faults, none of them is named. To name one takes as long as to name all."""

_MAX_FAULTS: Final = 20
_PATH: Final = re.compile(r"(.*) - at (?:`key` in )?`([^`]*)`", re.DOTALL)


class Fault(NamedTuple):
    """One thing that is wrong with data.

    Attributes:
        path: Where in the data.
        message: What is wrong.
    """

    path: str
    message: str


def faults(error: Any, at: str = "$") -> list[Fault]:
    """Return what a `pydantic.ValidationError` has found, at most 20 of it.

    Args:
        error: The error.
        at: Where in the data the model is.
    """
    count = error.error_count()
    if count > MAX_EXAMINED:
        return [Fault(at, f"{count:,} faults")]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [Fault(shortened(_path(at, one["loc"])), shortened(one["msg"])) for one in found[:_MAX_FAULTS]]


def details_of(faults: Sequence[Fault]) -> dict[str, Any]:
    """Return the details of an error `invalid`: the path of the first fault, and all if there are more."""
    details: dict[str, Any] = {"path": faults[0].path}
    if len(faults) > 1:
        details["errors"] = [fault._asdict() for fault in faults]
    return details


def _path(at: str, location: tuple[int | str, ...]) -> str:
    return at + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)


def reason_and_path(problem: str) -> tuple[str, str]:
    """Split msgspec's message into the problem and its path (`$.page`)."""
    found = _PATH.fullmatch(problem)
    reason, path = (found[1], found[2]) if found else (problem, "$")
    return shortened(reason), shortened(path)


def shortened(text: str) -> str:
    """Shorten text that may quote the peer's message, which can be very long."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
