"""What the server sends: events and messages are shown, requests answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from logging import LogRecord
from typing import Any

from symphony.cli.connect.view import View
from symphony.client import Client
from symphony.errors import Reject

__all__ = ("Incoming",)


class _Unanswered(Reject):
    """There is no answer to a request; or it was none, see `Incoming`."""


class Incoming:
    """Registered for everything that comes.

    A handler for `"*"` is called with events and with requests, and is not
    told which. But all handlers of an event are called, and only the first one
    of a request; and events are handled one after the other in one task, each
    request in a task of its own. So `_first` answers as if it were a request;
    if `_second` comes right behind it, it was an event. That happens at most once
    in a client's life, for then the task of the events is known.

    Args:
        client: Whose it is.
        view: Shows it.
        answers: To the server's requests, by event; may change.
        learn: Called with the name of each event.
    """

    def __init__(
        self, client: Client, view: View, answers: Mapping[str, Any], learn: Callable[[str], None]
    ) -> None:
        self._client = client
        self._view = view
        self._answers = answers
        self._of_events: asyncio.Task[Any] | None = None
        self._guess: asyncio.Handle | None = None
        self._learn = learn
        client.on("*", self._first)
        client.on("*", self._second)

    @staticmethod
    def is_guess(record: LogRecord) -> bool:
        """Return whether the client has logged what `_first` raised for an event."""
        return record.exc_info is not None and isinstance(record.exc_info[1], _Unanswered)

    def _first(self, event: str, data: Any) -> Any:
        if asyncio.current_task() is self._of_events:
            return None
        # Not shown before it is certain.
        self._guess = asyncio.get_running_loop().call_soon(self._asked, event, data)
        if event in self._answers:
            return self._answers[event]
        raise _Unanswered("not_found", f"no handler for the request {event!r}")

    def _second(self, event: str, data: Any) -> None:
        if self._of_events is None:
            self._of_events = asyncio.current_task()
            if self._guess is not None:
                self._guess.cancel()
        if self._client.protocol == "raw":
            self._view.message(data)
        else:
            self._learn(event)
            self._view.event(event, data)

    def _asked(self, event: str, data: Any) -> None:
        self._learn(event)
        self._view.asked(event, data)
        if event in self._answers:
            self._view.answered(self._answers[event])
        else:
            self._view.not_answered(event)
