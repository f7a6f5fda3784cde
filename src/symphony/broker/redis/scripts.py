"""The Lua scripts that run in the server, and the names of its keys and channels."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final, NamedTuple

from symphony.broker.attendance import HEAD_START, LEASE, REAP, REFRESH, REMEMBERED, TAKEN
from symphony.broker.decisions import MAX_DECISIONS
from symphony.broker.presencetable import MAX_MEMBERS
from symphony.broker.redis.commands import Script

__all__ = ("META_TTL", "Names", "Scripts", "incarnation", "scripts_for")


# How much one call decides and looks at.
_AT_ONCE: Final = 100
_LOOKED_AT: Final = 1000

_DAY: Final = 24 * 3600.0

META_TTL: Final = int(_DAY * 30 * 1000)
"""For how many milliseconds after its last use the position of a room is kept."""


class Scripts(NamedTuple):
    """The scripts.

    Attributes:
        rooms: The publications of a room: `rooms.lua`.
        kept: The messages on a topic that are kept: `kept.lua`.
        presence: The members of rooms: `presence.lua`.
        listeners: How many connections hear a channel. A script, because a server of a cluster that
            does not have the channel any more does not refuse the command.
    """

    rooms: Script
    kept: Script
    presence: Script
    listeners: Script


def scripts_for(*, sharded: bool) -> Scripts:
    """Return the scripts.

    Args:
        sharded: Whether they pass messages on in the shard of a cluster.
    """
    shard = "S" if sharded else ""

    def read(name: str, **constants: float) -> Script:
        values = {"PUBLISH": f"'{shard}PUBLISH'"} | {key: str(int(value)) for key, value in constants.items()}
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        return Script(f"local {', '.join(values)} = {', '.join(values.values())}\n{text}")

    return Scripts(
        rooms=read("rooms.lua", META_TTL=META_TTL),
        kept=read("kept.lua"),
        presence=read(
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
        ),
        listeners=Script(f"return redis.call('PUBSUB', '{'SHARD' if sharded else ''}NUMSUB', KEYS[1])[2]"),
    )


def _milliseconds(**seconds: float) -> dict[str, float]:
    return {name: value * 1000 for name, value in seconds.items()}


def incarnation() -> str:
    """Return a text that was never used: it names a new life of something, if that begins now."""
    return secrets.token_hex(8)


class Names:
    """The names of the keys and channels of an app.

    All keys of one room, and its channel, have one hash tag, so that they are on one server. So do
    those of a topic, and those of a presence store. The tags of a room have no % but in %25, %7B and
    %7D, so the others begin with one.

    Args:
        prefix: What they begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def room(self, room: str) -> tuple[str, str, str, str]:
        """Return what the names of a room's keys begin with, and its meta, history and edits."""
        tagged = f"{self._prefix}:{{{_escaped(room) or '%'}}}:"
        return tagged, f"{tagged}m", f"{tagged}s", f"{tagged}e"

    def channel(self, room: str) -> str:
        """Return the channel of a room."""
        return f"{self.room(room)[0]}c"

    def topic(self, topic: str) -> str:
        """Return the channel of a topic."""
        return f"{self._of_topic(topic)}t"

    def kept(self, topic: str) -> tuple[str, str, str]:
        """Return the keys of the messages on a topic that are kept."""
        tagged = self._of_topic(topic)
        return f"{tagged}c", f"{tagged}s", f"{tagged}n"

    def presence(self, part: str = "") -> str:
        """Return what the names of the keys and channels of a presence store, or a part, begin with."""
        return f"{self._prefix}:{{%p{part}}}:"

    def probe(self, node: str, number: int) -> str:
        """Return a channel on which a node hears itself. Each number has another tag."""
        return f"{self._prefix}:{{%h:{node}:{number}}}:h"

    def _of_topic(self, topic: str) -> str:
        return f"{self._prefix}:{{%t:{_escaped(topic)}}}:"


def _escaped(name: str) -> str:
    """Return a name without braces: a hash tag ends at the first one."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
