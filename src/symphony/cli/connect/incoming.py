"""Handle what the server sends: show events and messages, answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from logging import LogRecord
from typing import Any

from symphony.cli.connect.view import View
from symphony.client import Client
from symphony.errors import Reject

__all__ = ("Incoming",)


class _NoAnswerError(Reject):
    """A request has no answer, or an event was taken for a request; see `Incoming`."""


class Incoming:
    """Handlers for everything that the server sends.

    A handler for `"*"` is called for events and for requests, and does not
    learn which one it is. But an event calls all its handlers, and a request
    only the first. Also, one task handles all events in order, while each
    request runs in its own task.

    So `_first_handler` answers as if the call were a request. If
    `_second_handler` is called right after it, the call was an event. This
    happens at most once per client: from then on, the task that handles events
    is known.

    Args:
        client: The client to register the handlers on.
        view: Shows what arrives.
        answers: Answers to the server's requests, by event; may change later.
        learn: Called with the name of each event.
    """

    def __init__(
        self, client: Client, view: View, answers: Mapping[str, Any], learn: Callable[[str], None]
    ) -> None:
        self._client = client
        self._view = view
        self._answers = answers
        self._event_task: asyncio.Task[Any] | None = None
        self._show_request: asyncio.Handle | None = None
        self._learn = learn
        client.on("*", self._first_handler)
        client.on("*", self._second_handler)

    @staticmethod
    def is_wrong_guess(record: LogRecord) -> bool:
        """Return whether a log record is about an event that `_first_handler` rejected."""
        return record.exc_info is not None and isinstance(record.exc_info[1], _NoAnswerError)

    def _first_handler(self, event: str, data: Any) -> Any:
        if asyncio.current_task() is self._event_task:
            return None
        # `_second_handler` cancels this if the call is for an event.
        self._show_request = asyncio.get_running_loop().call_soon(self._requested, event, data)
        if event in self._answers:
            return self._answers[event]
        raise _NoAnswerError("not_found", f"no handler for the request {event!r}")

    def _second_handler(self, event: str, data: Any) -> None:
        if self._event_task is None:
            self._event_task = asyncio.current_task()
            if self._show_request is not None:
                self._show_request.cancel()
        if self._client.protocol == "raw":
            self._view.message(data)
        else:
            self._learn(event)
            self._view.event(event, data)

    def _requested(self, event: str, data: Any) -> None:
        self._learn(event)
        self._view.server_request(event, data)
        if event in self._answers:
            self._view.answered(self._answers[event])
        else:
            self._view.refused(event)
