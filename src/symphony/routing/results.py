"""What the call of a plain function returned: a value, or something to await.

A plain function may hand on the coroutine of an async one, as the wrapper of a
decorator does. Only the result shows it.
"""

from __future__ import annotations

from typing import Any, Final, cast

__all__ = ("VALUES", "is_awaitable")

# A hot path tests `type(result) not in VALUES` first: 15 ns instead of a call.
VALUES: Final = frozenset({type(None), str, bytes, bool, int, float, dict, list, tuple})
"""Types that are never awaitable."""


def is_awaitable(result: Any) -> bool:
    """Return whether a result is a coroutine, a future or another awaitable."""
    kind = cast("type[Any]", type(result))
    return kind not in VALUES and hasattr(kind, "__await__")
