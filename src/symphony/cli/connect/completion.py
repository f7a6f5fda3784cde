"""Complete commands and names of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from symphony.cli.connect.parser import COMMANDS, commands_for

__all__ = ("CommandCompleter",)


class CommandCompleter(Completer):
    """Completes commands, and after a command the names of known rooms and events.

    Args:
        event_names: Returns the names of the known events.
        room_names: Returns the names of the known rooms.
        speaks_events: Returns whether the connection speaks events; otherwise
            it is raw and has fewer commands.
    """

    def __init__(
        self,
        *,
        event_names: Callable[[], Iterable[str]],
        room_names: Callable[[], Iterable[str]],
        speaks_events: Callable[[], bool],
    ) -> None:
        self._event_names = event_names
        self._room_names = room_names
        self._speaks_events = speaks_events

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return the completions for the text before the cursor."""
        typed = document.text_before_cursor
        command, space, rest = typed.partition(" ")
        if not command.startswith("/"):
            return
        if not space:
            yield from self._commands(typed)
            return
        arguments = COMMANDS[command].arguments if command in COMMANDS else ""
        if arguments.startswith("ROOM"):
            room, space, after = rest.partition(" ")
            if not space:
                yield from self._names(room, self._room_names())
                return
            arguments, rest = arguments.removeprefix("ROOM").lstrip(), after
        if arguments.startswith("EVENT"):
            yield from self._names(rest, self._event_names())

    def _commands(self, typed: str) -> Iterable[Completion]:
        for name, command in commands_for(events=self._speaks_events()).items():
            if name.startswith(typed):
                yield Completion(
                    f"{name} " if command.arguments else name,
                    start_position=-len(typed),
                    display=f"{name} {command.arguments}",
                    display_meta=command.description,
                )

    def _names(self, typed: str, names: Iterable[str]) -> Iterable[Completion]:
        for name in sorted(names):
            # A server chooses some of these names: offer none that could not be typed.
            if not name.isprintable():
                continue
            written = (
                name if " " not in name and not name.startswith('"') else msgspec.json.encode(name).decode()
            )
            if written.startswith(typed) or (typed and name.startswith(typed)):
                yield Completion(f"{written} ", start_position=-len(typed), display=name)
