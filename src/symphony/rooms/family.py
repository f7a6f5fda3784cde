"""A family of rooms: one name pattern, one policy, its hooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import Reject
from symphony.protocol.invalid import shortened
from symphony.rooms.policy import ROOM_SEPARATOR, RoomPolicy
from symphony.routing.patterns import NamePattern, NameTable

if TYPE_CHECKING:
    from symphony.rooms.clients import OnPublish
    from symphony.rooms.snapshots import Snapshot

__all__ = ("DEFAULT_FAMILY", "MEMBER_HOOKS", "Families", "Family", "Hook", "have_members")

Hook = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""A compiled hook: called with the socket, or `None`, and the room."""


MEMBER_HOOKS: Final = ("on_arrive", "on_back", "on_away", "on_depart")
"""The hooks about members."""


def have_members(policy: RoomPolicy, hooks: Collection[str]) -> bool:
    """Return whether rooms have members: users, whatever the number of sockets.

    Args:
        policy: Their options.
        hooks: The names of their hooks.
    """
    has_option = policy.presence or policy.grace or policy.max_members is not None
    has_function = policy.members is not None or policy.counts is not None
    return bool(has_option or has_function or any(kind in hooks for kind in MEMBER_HOOKS))


@dataclass(slots=True)
class Family:
    """The policy of some rooms, with their compiled hooks.

    Attributes:
        policy: The pattern and the options.
        state: Creates the state of a room.
        authorize: Asked before a join; `False` or a `Reject` refuses it.
        on_join: Called after a socket has joined.
        on_leave: Called after a socket has left.
        member_state: Creates the state of a member.
        counts: Tells whether the member of a socket needs a seat.
        on_arrive: Called when a member has come.
        on_back: Called when a member who was away is back.
        on_away: Called when a member goes away.
        on_depart: Called when a member has gone.
        on_empty: Called when the last has left and the linger has passed.
        ticks: Called at a fixed rate, each with its interval.
        saves: Called after changes, each with its interval.
        tasks: Run from the first join to the end of the linger.
        snapshot: What a member gets before the publications.
        publishes: What clients may publish, by the name of the event.
        has_members: Whether its rooms have members: users, whatever the number of sockets.
        has_home: Whether each of its rooms is at home on one node.
    """

    policy: RoomPolicy
    state: Hook | None = None
    authorize: Hook | None = None
    on_join: Hook | None = None
    on_leave: tuple[Hook, ...] = ()
    on_empty: tuple[Hook, ...] = ()
    tasks: tuple[Hook, ...] = ()
    snapshot: Snapshot | None = None
    publishes: Mapping[str, OnPublish] = field(default_factory=dict[str, "OnPublish"])
    ticks: tuple[tuple[float, Hook], ...] = ()
    saves: tuple[tuple[float, Hook], ...] = ()
    member_state: Hook | None = None
    counts: Hook | None = None
    on_arrive: Hook | None = None
    on_back: Hook | None = None
    on_away: tuple[Hook, ...] = ()
    on_depart: tuple[Hook, ...] = ()
    has_members: bool = field(init=False)
    has_home: bool = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        self.has_members = have_members(policy, [kind for kind in MEMBER_HOOKS if getattr(self, kind)])
        needs_home = policy.state is not None or policy.members is not None
        needs_home = needs_home or self.tasks or self.ticks or self.saves
        self.has_home = bool(needs_home and not policy.each_node)

    @property
    def opens_to_clients(self) -> bool:
        """Whether a client may ask to join: the policy allows it, or `authorize` decides."""
        return self.policy.client_join or self.authorize is not None

    @property
    def is_announced(self) -> bool:
        """Whether clients are told of their membership."""
        told = self.policy.history is not None or self.policy.presence or self.publishes or self.snapshot
        return bool(told) or self.opens_to_clients


_PARAMETER: Final = re.compile(r"\{[^}]*\}")

DEFAULT_FAMILY: Final = Family(RoomPolicy(""))


class Families:
    """The families of an app: which one a room is of.

    Attributes:
        have_members: Whether one of them has members, or a home.
    """

    def __init__(self) -> None:
        self.have_members = False
        self._table = NameTable[Family](separator=ROOM_SEPARATOR, exact=True)
        self._alike: list[tuple[NamePattern, Callable[[str], object]]] = []
        self._by_form: dict[str, list[Family]] = {}

    @property
    def patterns(self) -> list[str]:
        """The patterns of all families."""
        return [pattern.text for pattern, _ in self._alike]

    def add(self, family: Family) -> None:
        """Add a family.

        Raises:
            ConfigurationError: Another one has the same names.
        """
        self.have_members |= family.has_members or family.has_home
        pattern = family.policy.pattern
        self._table.add(pattern, family)
        named = NamePattern(pattern, separator=ROOM_SEPARATOR)
        self._alike.append((named, _alike(named)))
        self._by_form.setdefault(_form(pattern), []).append(family)

    def find(self, name: str) -> tuple[Family, dict[str, Any]]:
        """Return the family and the parameters of a room's name.

        Raises:
            Reject: The name looks like those of a family, but does not match
                its pattern. As the name of a room without a policy, it would
                let a client that chooses a part of the name avoid `authorize`.
                For the same reason, one room has one name: `game:007` does not
                match `game:{id:int}`, which would write `game:7`.
        """
        found = self._table.match(name)
        if found is not None:
            return found
        for pattern, is_alike in self._alike:
            if is_alike(name):
                raise _not_of(pattern, name)
        return DEFAULT_FAMILY, {}

    def formed_like(self, text: str) -> Family | None:
        """Return the only family whose pattern is *text*, but for the names and types of parameters."""
        families = self._by_form.get(_form(text), [])
        return families[0] if len(families) == 1 else None


def _form(pattern: str) -> str:
    return _PARAMETER.sub("{}", pattern)


def _not_of(pattern: NamePattern, name: str) -> Reject:
    details = {"room": shortened(name), "pattern": pattern.text}
    message = f"{shortened(name)!r} is not a name of the rooms {pattern.text!r}"
    params = pattern.match(name)
    if params is not None:
        # It matches, but is written in another way. What a number has become may not fit.
        with suppress(ValueError):
            details["instead"] = shortened(pattern.format(**params))
            message += f"; write {details['instead']!r}"
    return Reject("invalid", message, details=details)


def _alike(named: NamePattern) -> Callable[[str], object]:
    """Return what tells names that look like those of a pattern.

    They begin as the pattern does. If it begins with a parameter, they have the
    pattern's other text in the same order.
    """
    prefix, *_ = literals = _PARAMETER.split(named.text)
    if prefix:
        return lambda name: name.startswith(prefix)
    if not any(literals) and "str" not in named.converters.values():
        # With nothing but one number, `lobby` does not look like it, and `007` does.
        return lambda name: named.match(name) is not None
    *between, last = literals[1:]

    def has_them_in_order(name: str) -> bool:
        # No regex: `.*:.*:.*` takes polynomial time for a name of many `:`.
        at = 0
        for literal in between:
            at = name.find(literal, at)
            if at < 0:
                return False
            at += len(literal)
        return len(name) - len(last) >= at and name.endswith(last)

    return has_them_in_order
