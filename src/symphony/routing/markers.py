"""Marks for `Annotated[...]` that say where a parameter comes from."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from symphony.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Depends", "Query", "Scope")

Scope = Literal["call", "socket"]


@dataclass(frozen=True, slots=True)
class Depends:
    """Fill a parameter with the value of a function: `Annotated[DB, Depends(session)]`.

    A dependency is a function, an async function, a class, or a generator of
    either kind, which cleans up after its `yield`. Its own parameters are
    filled like those of a handler. All other parameters are read from the
    query string.

    Attributes:
        call: Returns the value.
        scope: `"call"` creates one value for each call of a handler, and cleans
            it up when the call or its stream ends. `"socket"` creates one value
            for each socket, and cleans it up when the socket disconnects.

    Raises:
        ConfigurationError: *call* cannot be called, or there is no such scope.
    """

    call: Callable[..., Any]
    _: KW_ONLY
    scope: Scope = "call"

    def __post_init__(self) -> None:
        # Users are not all type-checked.
        call: object = self.call
        scope: object = self.scope
        if not callable(call):
            raise ConfigurationError(
                f"Depends takes a function, not {call!r}. Write Depends(f), without calling f yourself."
            )
        if scope not in ("call", "socket"):
            raise ConfigurationError(f"Depends(scope=) is 'call' or 'socket', not {scope!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Fill a parameter from the query string: `Annotated[int, Query()]`.

    Connect handlers need it only for an alias. In other handlers it says that
    the parameter is not the payload.

    Attributes:
        alias: The name in the query string, if it differs from the name of
            the parameter.
    """

    alias: str | None = None
