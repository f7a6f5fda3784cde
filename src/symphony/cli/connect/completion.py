"""What Tab offers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from symphony.cli.connect.lines import COMMANDS

__all__ = ("completion",)

_TAKE_EVENT: Final = tuple(
    name for name, command in COMMANDS.items() if command.arguments.startswith("EVENT")
)


def completion(before: str, names: Iterable[str], *, events: bool) -> Sequence[str]:
    """Return what the text in front of the cursor can become: commands, then names of events.

    Args:
        before: The text.
        names: Of the events that are known.
        events: Whether the connection speaks events.
    """
    command, space, name = before.partition(" ")
    if not space:
        kind = "events" if events else "raw"
        found = [
            f"{each} " if COMMANDS[each].arguments else each
            for each in COMMANDS
            if COMMANDS[each].on in (kind, "both")
        ]
        return [each for each in found if before.startswith("/") and each.startswith(before)]
    if command not in _TAKE_EVENT or " " in name:
        return []
    return [
        f"{command} {each} "
        for each in sorted(names)
        if each.startswith(name) and each.isprintable() and " " not in each
    ]
