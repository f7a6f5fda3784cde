"""What a dependency has set in context variables, to be set in another context as well."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

__all__ = ("UNSET", "Change", "changes_since")

UNSET: Final = object()
"""The value of a variable that was not set."""

Change = tuple[ContextVar[Any], Any, Any]
"""A variable that was set, its value before and after."""


def changes_since(before: Context) -> list[Change]:
    """Return the variables of the current context that differ from a copy made before."""
    return [
        (variable, before.get(variable, UNSET), new)
        for variable, new in copy_context().items()
        if before.get(variable, UNSET) is not new
    ]
