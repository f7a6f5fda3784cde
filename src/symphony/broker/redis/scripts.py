"""The Lua scripts that run in the server, and the names of its keys and channels."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from symphony.broker.attendance import HEAD_START, LEASE, REAP, REFRESH, REMEMBERED, TAKEN
from symphony.broker.decisions import MAX_DECISIONS
from symphony.broker.presencetable import MAX_MEMBERS
from symphony.broker.redis.commands import Script

__all__ = ("KEPT", "META_TTL", "PRESENCE", "ROOMS", "Names", "incarnation")


# How much one call decides and looks at.
_AT_ONCE: Final = 100
_LOOKED_AT: Final = 1000

_DAY: Final = 24 * 3600.0

META_TTL: Final = int(_DAY * 30 * 1000)
"""For how many milliseconds after its last use the position of a room is kept."""


def _read(name: str, **constants: float) -> Script:
    """Return a script, which begins with its constants."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    names, values = ", ".join(constants), ", ".join(str(int(value)) for value in constants.values())
    return Script(f"local {names} = {values}\n{text}" if constants else text)


def _milliseconds(**seconds: float) -> dict[str, float]:
    return {name: value * 1000 for name, value in seconds.items()}


ROOMS: Final = _read("rooms.lua", META_TTL=META_TTL)
KEPT: Final = _read("kept.lua")
PRESENCE: Final = _read(
    "presence.lua",
    **_milliseconds(
        LEASE=LEASE,
        REAP=REAP,
        TAKEN=TAKEN,
        HEAD_START=HEAD_START,
        REMEMBERED=REMEMBERED,
        # Without a `touch` for so long, the store was out of reach.
        SILENCE=REFRESH * 1.5,
        DAY=_DAY,
        STATE_TTL=_DAY * 30,
    ),
    MAX_MEMBERS=MAX_MEMBERS,
    MAX_DECISIONS=MAX_DECISIONS,
    AT_ONCE=_AT_ONCE,
    LOOKED_AT=_LOOKED_AT,
)


def incarnation() -> str:
    """Return a text that was never used: it names a new life of something, if that begins now."""
    return secrets.token_hex(8)


class Names:
    """The names of the keys and channels of an app.

    All keys of one room, and its channel, have one hash tag, so that they are on one server.

    Args:
        prefix: What they begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def room(self, room: str) -> tuple[str, str, str, str]:
        """Return what the names of a room's keys begin with, and its meta, history and edits."""
        tagged = f"{self.prefix}:{{{_escaped(room)}}}:"
        return tagged, f"{tagged}m", f"{tagged}s", f"{tagged}e"

    def topic(self, topic: str) -> str:
        """Return the channel of a topic."""
        return f"{self.prefix}:t:{topic}"

    @property
    def presence(self) -> str:
        """What the names of the keys and channels of the presence store begin with."""
        return f"{self.prefix}:{{presence}}:"

    def kept(self, topic: str) -> tuple[str, str, str]:
        """Return the keys of the messages on a topic that are kept."""
        tagged = f"{self.prefix}:{{t:{_escaped(topic)}}}:"
        return f"{tagged}c", f"{tagged}s", f"{tagged}n"


def _escaped(name: str) -> str:
    """Return a name without braces: a hash tag ends at the first one."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
