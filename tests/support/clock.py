"""A clock for tests of what holds the event loop: how fast the machine is changes nothing."""

import sys
from collections.abc import Callable
from time import monotonic

import pytest

__all__ = ("Hold", "held_by")

Hold = Callable[[float], None]

# Two readings in a row differ, as they do on a real clock.
_TICK = 1e-7


def held_by(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Stop the clock by which Symphony measures; return what moves it, as slow code does."""
    now = monotonic()

    def clock() -> float:
        nonlocal now
        now += _TICK
        return now

    def hold(seconds: float) -> None:
        nonlocal now
        now += seconds

    for name, module in tuple(sys.modules.items()):
        if name.startswith("symphony.") and getattr(module, "monotonic", None) is monotonic:
            monkeypatch.setattr(module, "monotonic", clock)
    return hold
