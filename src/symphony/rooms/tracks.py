"""What a node asks the presence store about one socket, and how a refusal is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.broker.attendance import Track, Tracked
from symphony.errors import Reject

if TYPE_CHECKING:
    from symphony.identity import Identity
    from symphony.rooms.live import Live
    from symphony.socket import Socket

__all__ = ("info_of", "refusal", "track_of")

# What is told about one member, in MessagePack. See docs/limits.md.
_MAX_INFO_BYTES: Final = 16 * 1024


def track_of(
    node: str,
    socket: Socket[Any],
    live: Live,
    id: str,
    connection: str,
    *,
    counts: bool,
    resume: tuple[str, str] | None,
) -> Track:
    """Return what the store is asked for a socket that is to be one of a member's."""
    assert live.attendance is not None
    policy = live.family.policy
    return Track(
        live.name,
        id,
        connection,
        node,
        anonymous=socket.user is None,
        info=info_of(socket.user),
        counts=counts,
        most=policy.max_members,
        grace=policy.grace if socket.user is not None else 0.0,
        term=live.term,
        resume=resume,
    )


def info_of(user: Identity | None) -> bytes:
    """Return what others are told about a member, in MessagePack.

    Raises:
        ValueError: It is too much.
    """
    info = msgspec.msgpack.encode(user.info if user is not None else None)
    if len(info) > _MAX_INFO_BYTES:
        raise ValueError(
            f"Identity.info has {len(info)} bytes; in rooms with members, {_MAX_INFO_BYTES} are allowed."
        )
    return info


def refusal(live: Live, tracked: Tracked) -> Reject:
    """Return how a socket is refused that the store has given no seat."""
    name = live.name
    if tracked.kind == "full":
        details = {"room": name, "max_members": live.family.policy.max_members}
        return Reject("room_full", f"{name!r} is full", details=details, retryable=tracked.retryable)
    if tracked.kind == "elsewhere":
        return Reject("elsewhere", f"{name!r} is on another node", details={"room": name})
    return Reject("unavailable", f"{name!r} has no place for more members")
