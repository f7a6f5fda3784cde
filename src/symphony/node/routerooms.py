"""The room of a route: `app.route("/doc/{name}", room="doc:{name}")`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, get_origin
from uuid import UUID

from symphony.errors import Reject
from symphony.misnamed import nearest
from symphony.node.checks import wrong_state
from symphony.protocol.annotations import bare
from symphony.protocol.invalid import shortened
from symphony.rooms.family import DEFAULT_FAMILY, Families, Family
from symphony.rooms.members import Member
from symphony.rooms.places import Place, check_room, place_of
from symphony.rooms.policy import ROOM_SEPARATOR
from symphony.rooms.room import Room
from symphony.routing.middleware import Stage
from symphony.routing.patterns import NamePattern
from symphony.routing.stage import Filler, ForCall

__all__ = ("RouteRoom",)

logger = logging.getLogger("symphony.app")

_NOT_YET: Final = "on_connect runs before the user is a member; use on_arrive or on_join of the rooms"
_NO_LONGER: Final = "the socket has left its room already; use on_leave, on_away or on_depart of the rooms"

# To find the family of a name whose parameters are not known yet. These texts are no
# names that an app would give to a single room.
_SAMPLES: Final[Mapping[str, Any]] = {
    "str": "\uffee",
    "path": "\uffee",
    "int": 0xFFEE_FFEE_FFEE,
    "float": 0xFFEE_FFEE_FFEE + 0.5,
    "uuid": UUID(int=0xFFEE_FFEE_FFEE),
}


class RouteRoom:
    """The room that the sockets of a route join.

    Args:
        text: The `room=` of the route.
        names: The parameters of its path, with their converters.
        families: The rooms of the app.
        where: The route, for errors.

    Raises:
        ConfigurationError: It is not a name, or has other parameters than the path.
    """

    def __init__(self, text: str, names: Mapping[str, str], families: Families, where: str) -> None:
        written = check_room(text, names, where)
        self._text = text
        self._pattern = _with_converters(written, names)
        self._family = self._find(families)
        if self._family is DEFAULT_FAMILY:
            # A path is often written in its place.
            near = nearest(text.replace("/", ROOM_SEPARATOR), families.patterns, ROOM_SEPARATOR)
            if near is not None:
                logger.warning("%s: room='%s' has no app.rooms(). Did you mean '%s'?", where, text, near)

    def name(self, params: Mapping[str, Any]) -> str:
        """Return the name of the room of a socket.

        Args:
            params: The parameters of its path.

        Raises:
            Reject: `invalid`: no room can have this name.
        """
        try:
            return self._pattern.format(**{name: params[name] for name in self._pattern.names})
        except ValueError:
            # It has a `:`, for example. With that, a client could choose a room of another family.
            values = ", ".join(shortened(str(params[name])) for name in self._pattern.names)
            text = f"{values!r} cannot be part of the name of a room, as in {self._text!r}"
            raise Reject("invalid", text) from None

    def types(self, stage: Stage) -> tuple[dict[type, Filler], dict[type, str]]:
        """Return what handlers may ask for, and what they may not ask for, with the reason."""
        types: dict[type, Filler] = {Room: _room}
        if stage == "message":
            types[Member] = ForCall(_member)
            return types, {}
        return types, {Member: _NOT_YET if stage == "connect" else _NO_LONGER}

    def problem(self, annotation: Any) -> str | None:
        """Say what is wrong with `Room[T]` or `Member[T]`; `None`: nothing."""
        family = self._family
        if family is None:
            return None
        kind = get_origin(bare(annotation)) or bare(annotation)
        if kind is Member and not family.has_members:
            return (
                f"wants a Member, but the rooms {self._text!r} have no members. "
                f"Give them members=, presence=True or another option of members."
            )
        policy = family.policy
        wrong = wrong_state(Room, policy.state, annotation, of="the family")
        return wrong or wrong_state(Member, policy.members, annotation, of="a member of the family")

    def _find(self, families: Families) -> Family | None:
        """Return the family of the room, if that is the same for all parameters."""
        converters = self._pattern.converters
        if all(converter in _SAMPLES for converter in converters.values()):
            sample = self._pattern.format(**{name: _SAMPLES[each] for name, each in converters.items()})
            try:
                return families.find(sample)[0]
            except Reject:
                # Only some values are names of the family, such as numbers.
                pass
        return families.formed_like(self._text)


def _with_converters(written: NamePattern, names: Mapping[str, str]) -> NamePattern:
    """Return the pattern with the converters of the path, which write its values."""
    text = written.text
    for name, converter in written.converters.items():
        own = "" if converter == "str" else f":{converter}"
        text = text.replace(f"{{{name}{own}}}", f"{{{name}:{names[name]}}}")
    return NamePattern(text, separator=ROOM_SEPARATOR)


def _room(socket: Any, subject: Any) -> Any:
    return _place(socket).room


def _member(socket: Any, subject: Any) -> Any:
    return _place(socket).member_of(socket)


def _place(socket: Any) -> Place:
    place = place_of(socket)
    assert place is not None
    return place
