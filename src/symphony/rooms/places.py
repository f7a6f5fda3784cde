"""The place of a socket in the room of its route: `app.route(path, room=...)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import ConfigurationError, Reject
from symphony.identity import is_of_user
from symphony.rooms.policy import ROOM_SEPARATOR
from symphony.routing.patterns import NamePattern
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.rooms.announcing import End
    from symphony.rooms.changes import Changes
    from symphony.rooms.joining import FindFamily, Joining
    from symphony.rooms.leave import Leave
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.members import Member
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("Place", "Places", "check_room", "place_of", "prepare_place")

_CLOSE_CODE: Final = 1000


def check_room(text: str, names: Mapping[str, str], where: str) -> NamePattern:
    """Check the `room=` of a route, and return it as a pattern.

    Args:
        text: The name, with parameters.
        names: The parameters of the path, with their converters.
        where: The route, for errors.

    Raises:
        ConfigurationError: It is not a name, or has other parameters than the path.
    """
    where = f"{where}: room={text!r}"
    if is_of_user(text):
        raise ConfigurationError(f"{where}: a socket is in the room of its user while it is logged in.")
    try:
        written = NamePattern(text, separator=ROOM_SEPARATOR)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    for name, converter in written.converters.items():
        if name not in names:
            known = ", ".join(names) or "none"
            raise ConfigurationError(
                f"{where}: {{{name}}} is not a parameter of the path (its parameters: {known})."
            )
        if converter not in ("str", names[name]):
            raise ConfigurationError(
                f"{where}: {{{name}}} is converted by the path. Write {{{name}}} without a converter."
            )
    return written


async def prepare_place(socket: Socket[Any], name: str) -> None:
    """Begin the join of the room of the socket's route, before its connect handler."""
    socket._place = await socket._session.prepare(name)  # pyright: ignore[reportPrivateUsage]


def place_of(socket: Socket[Any]) -> Place | None:
    """Return the place of the socket in the room of its route, if that has been prepared."""
    return socket._place  # pyright: ignore[reportPrivateUsage]


class Place:
    """The place of a socket in the room of its route.

    The room is held from `Places.prepare` to `release`, so that its state is there while the
    connect handler runs.

    Attributes:
        room: The handle of the room.
        revocations: How many there were when `authorize` was asked; `None`: it was not.
        refusal: Why the membership ended before the socket was let in.
        is_taken: Whether the socket has been let in.
    """

    __slots__ = (
        "_claim",
        "_is_held",
        "_let_go",
        "_live",
        "_member",
        "is_taken",
        "refusal",
        "revocations",
        "room",
    )

    def __init__(
        self, room: Room, live: Live, revocations: int | None, let_go: Callable[[Live], object]
    ) -> None:
        self.room = room
        self.revocations = revocations
        self.refusal: Reject | None = None
        self.is_taken = False
        self._live = live
        self._let_go = let_go
        self._is_held = True
        self._claim: Callable[[], Awaitable[None]] | None = None
        self._member: Member[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the life of the room is over."""
        return self._live.over is not None

    def release(self) -> None:
        """Let the room end, if nothing else keeps it."""
        if self._is_held:
            self._is_held = False
            self._let_go(self._live)

    def claims(self, claim: Callable[[], Awaitable[None]] | None) -> None:
        """Set what is awaited once, between the seat and the membership."""
        self._claim = claim

    async def claim(self) -> None:
        """Await what `claims` has set, unless that was done before."""
        claim, self._claim = self._claim, None
        if claim is not None:
            await claim()

    def attached(self, socket: Socket[Any], live: Live) -> None:
        """Note that the socket is in the room."""
        self._live = live
        if live.attendance is not None:
            self._member = live.attendance.of_socket.get(socket)

    def member_of(self, socket: Socket[Any]) -> Member[Any]:
        """Return the member that the socket belongs to, or has belonged to.

        Raises:
            RuntimeError: The room has no members.
        """
        attendance = self._live.attendance
        if attendance is None:
            raise RuntimeError(f"The room {self.room.name!r} has no members: see app.rooms().")
        self._member = attendance.of_socket.get(socket, self._member)
        assert self._member is not None
        return self._member

    def is_in(self, live: Live) -> bool:
        """Return whether it is a place in *live*."""
        return self._live is live

    def ended(self, socket: Socket[Any], end: End, why: Leave) -> None:
        """Close the socket, because its membership has ended."""
        code = _CLOSE_CODE if why.code is None else why.code
        if not self.is_taken:
            # What has let it in, or has run its hooks, refuses it.
            self.refusal = _refusal_of(end, code)
        elif end.code in ("left", "closed"):
            socket.close(code, end.message)
        else:
            socket._session.refuse(_refusal_of(end, code))  # pyright: ignore[reportPrivateUsage]


class Places:
    """Lets sockets into the rooms of their routes: first a part of the join, then the rest.

    Args:
        find_family: The family and parameters of a room's name.
        handle: Returns the handle of a room.
        lives: The rooms.
        changes: The joins and leaves that are under way.
        joining: Lets sockets in.
    """

    def __init__(
        self,
        find_family: FindFamily,
        handle: Callable[[str], Room],
        lives: Lives,
        changes: Changes,
        joining: Joining,
    ) -> None:
        self._find_family = find_family
        self._handle = handle
        self._lives = lives
        self._changes = changes
        self._joining = joining

    async def prepare(self, socket: Socket[Any], name: str) -> Place:
        """Ask `authorize`, make this node the home of the room, and create its state.

        Args:
            socket: The socket, which is not open yet.
            name: The name of the room, which is valid.

        Returns:
            The place. It holds the room until `Place.release`.
        """
        recipient = recipient_of(socket)
        family, params = self._find_family(name)
        asks = family.authorize is not None
        with self._changes.changing(recipient, name) as change:
            revocations = self._changes.revocations if asks else None
            if asks:
                await self._joining.allowed(socket, name, family, change)
            while True:
                live = self._lives.at_work(name, family, params)
                if live.over is not None:
                    await self._lives.gone(live)
                    change.check(recipient, name)
                    continue
                live.stay()
                place = Place(self._handle(name), live, revocations, self._lives.let_go)
                live.hooks += 1
                try:
                    await self._joining.made(socket, live, change)
                except BaseException as error:
                    place.release()
                    if isinstance(error, Reject) and place.is_over and change.undone is None:
                        # The life of the room was over. It is made anew.
                        continue
                    raise
                return place

    async def enter(
        self, socket: Socket[Any], place: Place, most: int, claim: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Do the rest of the join.

        Args:
            socket: The socket.
            place: What `prepare` has returned.
            most: In how many rooms a socket may be.
            claim: Awaited when the socket has its seat, before it is a member.

        Raises:
            Reject: The join is refused, or the membership has ended during the hooks.
        """
        name, recipient = place.room.name, recipient_of(socket)
        place.claims(claim)
        try:
            await self._changes.settled(recipient, name)
            if self._joining.is_member(recipient, name):
                # The connect handler has joined.
                place.attached(socket, self._lives.rooms[name])
                await place.claim()
            else:
                await self._enter(socket, place, most)
        finally:
            place.release()
        if place.refusal is not None:
            raise place.refusal
        place.is_taken = True

    async def _enter(self, socket: Socket[Any], place: Place, most: int) -> None:
        name, recipient = place.room.name, recipient_of(socket)
        with self._changes.changing(recipient, name) as change:
            change.check(recipient, name)
            if place.is_over:
                # It is made anew, when nothing holds the old one.
                place.release()
            try:
                while not await self._joining.entered(
                    socket, name, most, None, change, place.revocations, place
                ):
                    place.release()
                    change.check(recipient, name)
            except Reject as error:
                if change.undone is not None and place.refusal is not None:
                    raise place.refusal from error
                raise


def _refusal_of(end: End, code: int) -> Reject:
    """Return how a connection is refused whose membership has ended."""
    if end.code in ("left", "closed"):
        return Reject("cancelled", end.message, close_code=code)
    if end.code == "removed":
        # Its seat was lost while the store was out of reach. It may ask for another one.
        return Reject("unavailable", end.message)
    return Reject(end.code, end.message, retryable=end.retryable)
