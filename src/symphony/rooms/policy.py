"""Registers the hooks of a family of rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from symphony.errors import ConfigurationError

__all__ = ("Rooms",)

F = TypeVar("F", bound=Callable[..., Any])


class Rooms:
    """A family of rooms under one name pattern, with one policy.

    Made by `app.rooms(pattern)`. Parameters of the pattern are parameters of
    its hooks.

    Attributes:
        pattern: The name pattern.
        max_members: The most sockets in one room, `None`: any number.
        linger: Seconds an empty room keeps its state.
        state: A class without arguments, made once a room.
        hooks: What was registered, by kind.
    """

    def __init__(
        self,
        pattern: str,
        *,
        max_members: int | None,
        linger: float,
        state: Callable[[], Any] | None,
    ) -> None:
        if max_members is not None and max_members < 1:
            raise ConfigurationError(f"rooms {pattern!r}: max_members must be at least 1, not {max_members}.")
        if linger < 0:
            raise ConfigurationError(f"rooms {pattern!r}: linger must not be negative, not {linger}.")
        self.pattern = pattern
        self.max_members = max_members
        self.linger = linger
        self.state = state
        self.hooks: dict[str, Callable[..., Any]] = {}

    def authorize(self, hook: F) -> F:
        """Ask *hook* before each join; `False` or a `Reject` refuses it."""
        return self._register("authorize", hook)

    def on_join(self, hook: F) -> F:
        """Call *hook* when a socket has joined; what it raises undoes the join."""
        return self._register("on_join", hook)

    def on_leave(self, hook: F) -> F:
        """Call *hook* when a socket has left, of itself or by its disconnect."""
        return self._register("on_leave", hook)

    def on_empty(self, hook: F) -> F:
        """Call *hook* when the last has left and the linger has passed."""
        return self._register("on_empty", hook)

    def task(self, hook: F) -> F:
        """Run *hook* from the first join to the end of the linger, such as a game's tick."""
        return self._register("task", hook)

    def _register(self, kind: str, hook: F) -> F:
        if kind in self.hooks:
            raise ConfigurationError(f"rooms {self.pattern!r} have a hook {kind} already.")
        self.hooks[kind] = hook
        return hook
