"""What another process publishes to: rooms, users, everyone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.publishing import Publication
    from symphony.targets import SocketTarget

__all__ = (
    "AsyncPublisherRoom",
    "AsyncPublisherTarget",
    "Blocking",
    "PublisherRoom",
    "PublisherTarget",
    "Waiting",
)

T = TypeVar("T")


class Waiting(Protocol):
    """What targets need of a publisher whose verbs are awaited."""

    def left_out(self, ids: Collection[str]) -> list[SocketTarget]:
        """Return the sockets with these ids."""
        ...

    def waiting(self, result: Awaitable[T]) -> Awaitable[T]:
        """Wait for the result of a call, also at the end of the block."""
        ...


class Blocking(Protocol):
    """What targets need of a publisher whose verbs block."""

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the thread of the publisher."""
        ...


class _Awaited:
    """What is common to the targets whose verbs are awaited."""

    __slots__ = ("_publisher", "_target")

    def __init__(self, publisher: Waiting, target: Any) -> None:
        self._publisher = publisher
        self._target = target

    def _publish(
        self, verb: str, values: tuple[object, ...], exclude: Collection[str], options: dict[str, Any]
    ) -> Awaitable[Any]:
        if isinstance(exclude, str):
            exclude = (exclude,)
        left_out = self._publisher.left_out(exclude)
        call = getattr(self._target, verb)
        return self._publisher.waiting(call(*values, exclude=left_out, **options))


class AsyncPublisherTarget(_Awaited):
    """Everyone, or several users, for another process."""

    __slots__ = ()

    def send(self, message: object, *, exclude: Collection[str] = ()) -> Awaitable[None]:
        """Send a message, as `Target.send`.

        Args:
            message: Text and bytes are sent unchanged, anything else as JSON.
            exclude: Ids of sockets that do not get it.

        Raises:
            TypeError: The message cannot be encoded.
            BrokerUnavailableError: When awaited: the broker cannot be reached. Nothing was published.
            QueueFullError: When awaited: too much waits for the broker. Nothing was published.
        """
        return self._publish("send", (message,), exclude, {})

    def emit(self, event: str, data: object = None, *, exclude: Collection[str] = ()) -> Awaitable[None]:
        """Send an event, as `Target.emit`; otherwise as `send`."""
        return self._publish("emit", (event, data), exclude, {})


class AsyncPublisherRoom(_Awaited):
    """A room or a user, for another process."""

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
    ) -> Awaitable[Position | None]:
        """Send a message to every socket in it, as `Room.send`.

        Raises:
            TypeError: The message cannot be encoded.
            ValueError: These options are not possible together in this room.
            Reject: When awaited: `conflict`: *key* was used for another content.
            BrokerUnavailableError: When awaited: the broker cannot be reached. Nothing was published.
            QueueFullError: When awaited: too much waits for the broker. Nothing was published.
            OutcomeUnknownError: When awaited: it may or may not have been published.

        Returns:
            When awaited, the position in the history, or `None` if it is not kept.
        """
        return self._publish(
            "send", (message,), exclude, _options(transient, volatile, conflate, key, replaces)
        )

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
    ) -> Awaitable[Position | None]:
        """Send an event to every socket in it, as `Room.emit`; otherwise as `send`."""
        return self._publish(
            "emit", (event, data), exclude, _options(transient, volatile, conflate, key, replaces)
        )

    def history(self, limit: int = 100, *, before: Position | None = None) -> Awaitable[list[Publication]]:
        """Return the last publications that the room keeps, as `Room.history`."""
        return self._publisher.waiting(self._target.history(limit, before=before))


class _Blocked:
    """What is common to the targets whose verbs block."""

    __slots__ = ("_publisher", "_target")

    def __init__(self, publisher: Blocking, target: Callable[[], Any]) -> None:
        self._publisher = publisher
        self._target = target

    def _run(self, verb: str, *values: Any, **options: Any) -> Any:
        return self._publisher.run(lambda: getattr(self._target(), verb)(*values, **options))


class PublisherTarget(_Blocked):
    """Everyone, or several users, for another process; its verbs block."""

    __slots__ = ()

    def send(self, message: object, *, exclude: Collection[str] = ()) -> None:
        """Send a message, as `AsyncPublisherTarget.send`."""
        self._run("send", message, exclude=exclude)

    def emit(self, event: str, data: object = None, *, exclude: Collection[str] = ()) -> None:
        """Send an event, as `AsyncPublisherTarget.emit`."""
        self._run("emit", event, data, exclude=exclude)


class PublisherRoom(_Blocked):
    """A room or a user, for another process; its verbs block."""

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
    ) -> Position | None:
        """Send a message to every socket in it, as `AsyncPublisherRoom.send`; return its position."""
        options = _options(transient, volatile, conflate, key, replaces)
        return self._run("send", message, exclude=exclude, **options)

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
    ) -> Position | None:
        """Send an event to every socket in it, as `AsyncPublisherRoom.emit`; return its position."""
        options = _options(transient, volatile, conflate, key, replaces)
        return self._run("emit", event, data, exclude=exclude, **options)

    def history(self, limit: int = 100, *, before: Position | None = None) -> list[Publication]:
        """Return the last publications that the room keeps, as `Room.history`."""
        return self._run("history", limit, before=before)


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
