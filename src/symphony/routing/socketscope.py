"""The dependencies of one socket: created once, and closed when it ends."""

from __future__ import annotations

from contextlib import AsyncExitStack
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

__all__ = ("Change", "Home", "Signal", "SocketScope", "changes_since")

_UNSET: Final = object()
Change = tuple[ContextVar[Any], Any, Any]
"""A variable that a dependency has set, its value before and after."""


class Signal(Protocol):
    """The part of `asyncio.Event` that is needed here."""

    def set(self) -> None:
        """Wake all waiters."""
        ...

    async def wait(self) -> object:
        """Wait until it is set."""
        ...


class Home(Protocol):
    """The context of a socket."""

    def is_current(self) -> bool:
        """Whether the caller runs in it."""
        ...

    def run(self, coroutine: Coroutine[Any, Any, Any], /) -> Awaitable[Any]:
        """Run a coroutine in it."""
        ...


class SocketScope:
    """The dependencies with scope `"socket"` of one socket.

    They are created and closed in the context of the socket, even if a stream or
    a concurrent handler uses them first. So the context variables that they set
    are visible to all handlers of the socket.

    Args:
        signal: Creates the signal that calls wait for while another call
            creates the same value: `asyncio.Event`.
        home: The context of the socket.

    Attributes:
        values: The values created so far, by dependency.
        stack: Cleans them up in reverse order.
    """

    __slots__ = ("_changes", "_closed", "_creating", "_home", "_signal", "stack", "values")

    def __init__(self, signal: Callable[[], Signal], home: Home) -> None:
        self._home = home
        self._changes: dict[Hashable, list[Change]] = {}
        self.values: dict[Hashable, Any] = {}
        self.stack = AsyncExitStack()
        self._signal = signal
        self._creating: dict[Hashable, Signal] = {}
        self._closed = False

    async def provide(self, key: Hashable, create: Callable[[AsyncExitStack], Awaitable[Any]]) -> Any:
        """Return the value of a dependency, and create it at the first use.

        Calls that arrive during the creation wait for the same value. If the
        creation fails or is cancelled, only that call sees the error, and the
        next waiting call creates the value.

        Raises:
            RuntimeError: The scope is closed, and the value was never created.
        """
        while key not in self.values:
            if self._closed:
                raise RuntimeError("The socket has disconnected, and its dependencies are closed.")
            creating = self._creating.get(key)
            if creating is not None:
                await creating.wait()
                continue
            created = self._creating[key] = self._signal()
            try:
                work = self._create(key, create)
                self.values[key] = await (work if self._home.is_current() else self._home.run(work))
            finally:
                del self._creating[key]
                created.set()
        changes = self._changes.get(key)
        if changes and not self._home.is_current():
            # A copy of the context: a stream, or one of several handlers at once.
            for variable, before, value in changes:
                if variable.get(_UNSET) is before:
                    variable.set(value)
        return self.values[key]

    async def _create(self, key: Hashable, create: Callable[[AsyncExitStack], Awaitable[Any]]) -> Any:
        before = copy_context()
        value = await create(self.stack)
        self._changes[key] = changes_since(before)
        return value

    async def aclose(self, exc: BaseException | None = None) -> None:
        """Clean up all values in reverse order. Further calls do nothing.

        This waits for a creation that is still running, so cancel the
        handlers first.

        Args:
            exc: Why the socket ended. It is raised at the `yield` of generator
                dependencies.

        Raises:
            BaseException: A dependency raised this instead of *exc* during its
                cleanup. All other dependencies have been cleaned up as well.
        """
        self._closed = True
        while self._creating:
            await next(iter(self._creating.values())).wait()
        self.values.clear()
        self._changes.clear()
        await self.stack.__aexit__(type(exc) if exc else None, exc, exc.__traceback__ if exc else None)


def changes_since(before: Context) -> list[Change]:
    """Return the variables of the current context that differ from a copy made before."""
    return [
        (variable, before.get(variable, _UNSET), new)
        for variable, new in copy_context().items()
        if before.get(variable, _UNSET) is not new
    ]
