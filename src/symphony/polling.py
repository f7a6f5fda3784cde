"""Asks several clients of a user at the same time, and decides when enough have replied."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, get_args

from symphony.errors import DisconnectedError, Reject, SymphonyError, WrongRouteError
from symphony.tasks import start

__all__ = ("Policy", "Poll")

Policy = Literal["first", "quorum", "all"]
"""How many replies are enough: one, those of more than half of the sockets, or all."""


class Poll:
    """The requests to the sockets of a user, of which some are still looked for.

    Args:
        user: The id of the user.
        policy: How many replies are enough.

    Raises:
        ValueError: There is no such policy.
    """

    def __init__(self, user: str, policy: Policy) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"policy= is {', '.join(map(repr, get_args(Policy)))}, not {policy!r}.")
        self._user = user
        self._policy = policy
        # In the order in which they were asked.
        self._asked: list[asyncio.Task[Any]] = []
        self._search: asyncio.Task[None] | None = None
        self._is_complete = True
        self._unanswered = 0
        self._replies = 0
        # How many have no requests, so that their replies cannot be counted.
        self._raw = 0
        self._errors: list[SymphonyError] = []
        self._bug: BaseException | None = None
        self._changed = asyncio.Event()

    def ask(self, request: Coroutine[Any, Any, Any]) -> None:
        """Begin a request, which returns a reply."""
        task = start(request)
        self._asked.append(task)
        self._unanswered += 1
        task.add_done_callback(self._ended)

    async def replies(self, search: Coroutine[Any, Any, None] | None = None) -> list[Any]:
        """Return the replies in the order of the requests, as soon as they are enough.

        Args:
            search: Looks for more sockets, and asks them; `None`: all are asked.

        Raises:
            SymphonyError: The policy does not allow this error, or there cannot be enough
                replies any more.
        """
        if search is not None:
            self._is_complete = False
            self._search = start(search)
            self._search.add_done_callback(self._searched)
        try:
            while not self._is_decided():
                self._changed.clear()
                await self._changed.wait()
            return [task.result() for task in self._asked if task.done() and task.exception() is None]
        finally:
            tasks = self._asked if self._search is None else [*self._asked, self._search]
            for task in tasks:
                task.cancel()
            # A request that is withdrawn tells its client so.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._unanswered -= 1
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._replies += 1
            self._changed.set()
        else:
            self._raw += isinstance(error, WrongRouteError)
            self._failed(error)

    def _searched(self, search: asyncio.Task[None]) -> None:
        self._is_complete = True
        self._changed.set()
        if not search.cancelled() and (error := search.exception()) is not None:
            # Without it, nobody knows how many sockets there are.
            if self._policy == "quorum":
                self._bug = error
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._changed.set()
        if isinstance(error, SymphonyError):
            self._errors.append(error)
            if self._policy != "all" or _telling(error):
                return
        self._bug = self._bug or error

    def _is_decided(self) -> bool:
        if self._bug is not None:
            raise self._bug
        if self._policy == "first":
            if self._replies:
                return True
            is_possible = not self._is_complete or self._unanswered > 0
        elif not self._is_complete:
            return False
        elif self._policy == "quorum":
            needed = (len(self._asked) - self._raw) // 2 + 1
            if self._replies >= needed:
                return True
            is_possible = self._unanswered > 0 and self._replies + self._unanswered >= needed
        elif not self._unanswered and self._replies:
            return True
        else:
            is_possible = self._unanswered > 0
        if not is_possible:
            raise min(self._errors, key=_telling, default=None) or _no_socket(self._user)
        return False


def _no_socket(user: str) -> Reject:
    return Reject("not_found", "the user has no open socket", details={"user": user})


def _telling(error: SymphonyError) -> int:
    """Order errors: what a client has said comes before a socket that could not be asked."""
    for number, kind in enumerate((DisconnectedError, WrongRouteError, Reject), 1):
        if isinstance(error, kind):
            return number
    return 0
