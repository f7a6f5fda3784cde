"""The verbs of the targets for code outside the event loop: for threads and other processes.

What a verb returns depends on who calls it: a future of the result for a thread
(`threadtargets.py`), the result itself or an awaitable of it for another process
(`publishertargets.py`). So the results are parameters of these classes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.targets import SocketTarget

__all__ = (
    "Calls",
    "OutsideEveryone",
    "OutsideHandle",
    "OutsideRoom",
    "OutsideSocket",
    "OutsideUser",
    "OutsideUsers",
)

# What a verb returns that has no result, one that returns a position, `history`, and one that counts.
SentT = TypeVar("SentT")
PublishedT = TypeVar("PublishedT")
HistoryT = TypeVar("HistoryT")
CountT = TypeVar("CountT")


class Calls(Protocol):
    """Lets the event loop of the targets run calls."""

    def call(
        self,
        where: str,
        target: Callable[[], Any],
        verb: Callable[[Any], Awaitable[Any]],
        extra: float | None,
    ) -> Any:
        """Call a verb of a target, and return what the caller gets for the result.

        Args:
            where: What it is, for errors.
            target: Returns the target, in the event loop.
            verb: Calls the verb of the target.
            extra: How many seconds the call itself may take; `None`: as long as the broker.
        """
        ...

    def taken(self, value: object) -> Any:
        """Return a message as it is at the time of the call."""
        ...

    def left_out(self, ids: Iterable[str]) -> list[SocketTarget]:
        """Return the sockets with these ids, on all nodes; in the event loop."""
        ...


class OutsideHandle:
    """What is common to the targets.

    Args:
        calls: Runs the calls.
        where: What the target is, for errors.
        target: Returns the target; called in the event loop for each call.
    """

    __slots__ = ("_calls", "_target", "_where")

    def __init__(self, calls: Calls, where: str, target: Callable[[], Any]) -> None:
        self._calls = calls
        self._where = where
        self._target = target

    def _call(self, name: str, verb: Callable[[Any], Awaitable[Any]], extra: float | None = None) -> Any:
        return self._calls.call(f"{self._where}.{name}()", self._target, verb, extra)

    def _publish(self, name: str, values: Iterable[object], exclude: Collection[str], **options: Any) -> Any:
        ids, taken = _ids(exclude), tuple(map(self._calls.taken, values))
        left_out = self._calls.left_out
        return self._call(
            name, lambda target: getattr(target, name)(*taken, exclude=left_out(ids), **options)
        )

    def __repr__(self) -> str:
        return f"<{self._where}>"


class OutsideEveryone(OutsideHandle, Generic[SentT]):
    """All open sockets of the app, of a route, or of the routes of a router."""

    __slots__ = ()

    def send(
        self,
        message: object,
        *,
        exclude: Collection[str] = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> SentT:
        """Send a message to every socket in it, as `Target.send`.

        You may change the message after the call.

        Args:
            message: Text and bytes are sent unchanged, anything else as JSON.
            exclude: Ids of sockets that do not get it.
            volatile: As in `Target.send`.
            conflate: As in `Target.send`.

        Raises:
            TypeError: The message cannot be encoded.
            BrokerUnavailableError: The broker cannot be reached. Nothing was published.
            QueueFullError: Too much waits for the broker, or for the event loop. Nothing was
                published.
        """
        return self._publish("send", (message,), exclude, volatile=volatile, conflate=conflate)

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Collection[str] = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> SentT:
        """Send an event to every socket in it, as `Target.emit`; otherwise as `send`."""
        return self._publish("emit", (event, data), exclude, volatile=volatile, conflate=conflate)


class OutsideUsers(OutsideHandle, Generic[SentT]):
    """Several users."""

    __slots__ = ()

    def send(self, message: object, *, exclude: Collection[str] = (), transient: bool = False) -> SentT:
        """Send a message to each of the users, as `Users.send`; otherwise as `OutsideEveryone.send`."""
        return self._publish("send", (message,), exclude, transient=transient)

    def emit(
        self, event: str, data: object = None, *, exclude: Collection[str] = (), transient: bool = False
    ) -> SentT:
        """Send an event to each of the users, as `Users.emit`; otherwise as `send`."""
        return self._publish("emit", (event, data), exclude, transient=transient)


class OutsideRoom(OutsideHandle, Generic[PublishedT, HistoryT]):
    """A room, or a user."""

    __slots__ = ()

    def send(
        self,
        message: object,
        *,
        exclude: Collection[str] = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> PublishedT:
        """Send a message to every socket in it, as `Room.send`; otherwise as `OutsideEveryone.send`.

        Raises:
            ValueError: These options are not possible together in this room.
            Reject: `conflict`: *key* was used for another content.
            OutcomeUnknownError: It may or may not have been published.

        Returns:
            The position in the history, or `None` if it is not kept.
        """
        options = _options(transient, volatile, conflate, key, replaces)
        return self._publish("send", (message,), exclude, **options)

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Collection[str] = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> PublishedT:
        """Send an event to every socket in it, as `Room.emit`; otherwise as `send`."""
        options = _options(transient, volatile, conflate, key, replaces)
        return self._publish("emit", (event, data), exclude, **options)

    def history(self, limit: int = 100, *, before: Position | None = None) -> HistoryT:
        """Return the last publications that the room keeps, as `Room.history`."""
        return self._call("history", lambda target: target.history(limit, before=before))


class OutsideUser(OutsideRoom[PublishedT, HistoryT], Generic[PublishedT, HistoryT, CountT]):
    """A user."""

    __slots__ = ()

    def join(self, name: str) -> CountT:
        """Let all sockets of the user join a room, as `User.join`.

        Returns:
            How many sockets of the user are in the room now, on all nodes.

        Raises:
            Reject: A socket was refused; the others have joined.
            BrokerUnavailableError: The nodes could not be asked.
            RequestTimeoutError: A node has not answered in time; it may do it later.
        """
        return self._call("join", lambda user: user.join(name))

    def leave(self, name: str) -> CountT:
        """Let all sockets of the user leave a room, as `User.leave`; otherwise as `join`.

        Returns:
            How many sockets of the user were in the room, on all nodes.
        """
        return self._call("leave", lambda user: user.leave(name))


class OutsideSocket(OutsideHandle, Generic[SentT]):
    """One socket by its id, at any worker, whether or not it is open.

    Attributes:
        id: Its id.
    """

    __slots__ = ("id",)

    def __init__(self, calls: Calls, where: str, target: Callable[[], Any], id: str) -> None:
        super().__init__(calls, where, target)
        self.id = id

    def send(self, message: object) -> SentT:
        """Send a message, as `SocketTarget.send`.

        If the socket is not open, nothing is sent. This is logged.

        Raises:
            TypeError: The message cannot be encoded.
            BrokerUnavailableError: The socket is on another worker, and the broker cannot be reached.
                Nothing was sent.
            OutcomeUnknownError: The same, and it may or may not have been sent.
        """
        taken = self._calls.taken(message)
        return self._call("send", lambda socket: socket.send(taken))

    def emit(self, event: str, data: object = None) -> SentT:
        """Send an event, as `SocketTarget.emit`; otherwise as `send`."""
        taken = self._calls.taken(data)
        return self._call("emit", lambda socket: socket.emit(event, taken))

    def close(self, code: int = 1000, reason: str = "") -> SentT:
        """Close the connection, as `SocketTarget.close`. If it is not open, this does nothing.

        Raises:
            ValueError: The code must not be sent.
        """
        return self._call("close", lambda socket: socket.close(code, reason))


def _options(
    transient: bool, volatile: bool, conflate: str | None, key: str | None, replaces: Position | None
) -> dict[str, Any]:
    return {
        "transient": transient,
        "volatile": volatile,
        "conflate": conflate,
        "key": key,
        "replaces": replaces,
    }


def _ids(exclude: Collection[str]) -> frozenset[str]:
    """Return the ids of the sockets to leave out; a socket itself would be none of them."""
    ids = (exclude,) if not isinstance(exclude, Collection) or isinstance(exclude, str) else exclude  # pyright: ignore[reportUnnecessaryIsInstance]
    for id in ids:
        if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"exclude= takes ids of sockets, such as exclude=[socket.id], not {id!r}.")
    return frozenset(ids)
