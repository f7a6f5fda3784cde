"""Checks a simulated cluster when nothing happens any more: it agrees, and nothing is left."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from symphony.broker.attendance import LEASE, REAP
from symphony.testing.claimpromises import check_claims

if TYPE_CHECKING:
    from symphony.client.client import Client
    from symphony.testing.clusternodes import ClusterNode, World

__all__ = (
    "check_agreement",
    "check_calls",
    "check_home",
    "check_leftovers",
    "check_vacated",
    "topics_of",
)

# These tables belong to parts that do not show them to others.
# pyright: reportPrivateUsage=false

# What a node keeps for its sockets and their rooms.
_OF_NODE: Final = (
    "sockets",
    "_sessions",
    "logins._sockets",
    "rooms._rooms",
    "rooms._changes._by_recipient",
    "rooms._changes._waiting",
    "rooms._members.seating._operations._queues",
    "rooms._members.seating.hooks._turns._queues",
    "rooms._broker._subscriptions",
)
# What the broker keeps for them. Histories and keys are bounded by number and age.
_OF_BROKER: Final = (
    "hub._rooms",
    "table._rooms",
    "table._register.rooms_of",
    "table._decisions._pending",
    "table._rights._claims",
    "table._rights._keys",
    "table._rights._homes",
)


def topics_of(node: ClusterNode) -> list[str]:
    """Return what a node listens to."""
    return sorted(node.app._core.node.rooms._broker._topics)  # pyright: ignore


def check_agreement(world: World, clients: Mapping[str, Client]) -> None:
    """Check that the store, the nodes and the clients know the same members."""
    require = world.trace.require
    held: dict[str, dict[str, str]] = {}
    for node in world.nodes:
        for live in node.app._core.node.rooms._rooms.values():
            if live.attendance is not None and live.attendance.of_socket:
                places = held.setdefault(live.name, {})
                for socket, member in live.attendance.of_socket.items():
                    is_there = socket.id in node.app._core.node.sockets
                    require(
                        is_there,
                        lambda live=live, member=member: (
                            f"A socket of {member.id} is in {live.name}, and has ended."
                        ),
                    )
                    places[member._sockets[socket]] = member.id
    rooms = world.broker.table._rooms.values()
    known = {room.name: dict(room.places) for room in rooms if room.places}
    require(
        held == known, lambda: f"In the end, the nodes have the members {held}, and the store has {known}."
    )
    homes = {room: home.term for room, home in world.broker.table._rights._homes.items()}
    lives = {
        live.name: live.term
        for node in world.nodes
        for live in node.app._core.node.rooms._rooms.values()
        if live.term is not None
    }
    require(lives == homes, lambda: f"In the end, rooms are at home by {lives}, and the store has {homes}.")
    check_claims(world.nodes, world.broker.table._rights._claims, require)
    now = world.loop.time()
    check_calls(world)
    for name, client in clients.items():
        if client.closed is not None:
            continue
        core = client._core
        waiting = [
            one.what for one in core.answers._asking.values() if getattr(one, "_deadline", now) < now - 1
        ]
        waiting += [one.what for one in core.rooms.publishing._pending]
        require(not waiting, lambda name=name, waiting=waiting: f"{name} still waits for {waiting}.")
        for room, membership in core.rooms._memberships.items():
            shown = sorted(membership.presence)
            ids = sorted(one.member for one in world.broker.table.read(room).members)
            if membership.member and membership.presence.is_known and shown != ids:
                require(
                    False,
                    lambda name=name, room=room, shown=shown, ids=ids: (
                        f"{name} sees {shown} in {room} in the end, and not {ids}."
                    ),
                )


def check_calls(world: World) -> None:
    """Check that no node waits for an answer of the broker for longer than its timeout."""
    now, require = world.loop.time(), world.trace.require
    for node in world.nodes:
        if node.is_paused:
            continue
        calls: list[Any] = cast("Any", node.app)._core.node.rooms._broker._caller._waiting.all()
        late = [call.message for call in calls if call.deadline < now - 1]
        require(not late, lambda node=node, late=late: f"{node.name} still waits for {late}.")


def check_home(world: World, name: str, room: str) -> None:
    """Check that a room that ticks on a node is at home there."""
    now = world.loop.time()
    node = next((one for one in world.nodes if one.name == name), None)
    # A store that has lost its memory knows no homes: for a lease, there may be two.
    if node is None or now < world.members.wiped_at + LEASE:
        return
    live = node.app._core.node.rooms._rooms.get(room)
    home = world.broker.table._rights._homes.get(room)
    is_home = home is not None and live is not None and home.term == live.term and home.until > now
    world.trace.require(is_home, lambda: f"{room} ticks on {name}, and is not at home there.")


def check_vacated(world: World) -> None:
    """Check that nodes have given up the homes of rooms that nobody is in."""
    homes = list(world.broker.table._rights._homes)
    world.trace.require(not homes, lambda: f"Nobody is in {homes}, and nodes have not given them up.")


def check_leftovers(world: World, topics: Mapping[str, list[str]]) -> None:
    """Check that nothing is left of sockets that have gone, and of their rooms.

    Args:
        world: The cluster.
        topics: What each node has listened to at first.
    """
    for node in world.nodes:
        _check_empty(world, node.name, node.app._core.node, _OF_NODE)
        now = topics_of(node)
        world.trace.require(
            now == topics[node.name], lambda node=node, now=now: f"{node.name} still listens to {now}."
        )
    _check_empty(world, "the broker", world.broker, _OF_BROKER)
    overdue = world.loop.time() - 3 * REAP
    ended = [each for each, end in world.broker.table._ended._ended.items() if end.until < overdue]
    world.trace.require(not ended, lambda: f"The broker remembers for too long the end of {ended}.")
    nodes = len(world.broker.hub._nodes)
    world.trace.require(
        nodes == len(world.nodes),
        lambda: f"The broker knows {nodes} nodes, and there are {len(world.nodes)}.",
    )


def _check_empty(world: World, who: str, owner: Any, paths: tuple[str, ...]) -> None:
    for path in paths:
        left: Any = attrgetter(path)(owner)
        world.trace.require(
            not left, lambda path=path, left=left: f"{who} still has in {path}: {left!r:.200}"
        )
