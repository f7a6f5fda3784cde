"""A family of rooms as an app declares it: its policy and its hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any, Final, TypeVar

from symphony.broker.base import History
from symphony.errors import ConfigurationError
from symphony.protocol.v1 import ERROR, MAX_NAME
from symphony.routing.patterns import NamePattern
from symphony.transport.base import SlowConsumer

__all__ = ("ROOM_SEPARATOR", "RoomPolicy", "Rooms")

F = TypeVar("F", bound=Callable[..., Any])

ROOM_SEPARATOR: Final = ":"


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """The options of all rooms whose names match one pattern.

    Attributes:
        pattern: The name pattern; empty for the rooms that match none.
        max_members: The most members in one room. `None`: no limit.
        linger: How many seconds an empty room keeps its state. 0: it is
            dropped at once.
        state: Creates the state of a room: a class or a function, which is called once
            for each room. `None`: no state.
        history: How much of its publications a room keeps. `None`: nothing.
        client_join: Whether clients may join without being asked about.
        members: Creates the state of a member: a class or a function, which is called
            once for each member on this node. `None`: no state.
        counts: Tells whether the member of a socket counts in *max_members*: a function.
            `None`: each does.
        grace: How many seconds a user stays a member after the last connection was lost.
        presence: Whether clients are told who is in the room.
        slow_consumer: What happens to a member that does not read, and to publications that
            are not kept. `None`: what its route says.
        each_node: Whether each node has its own state of a room. Otherwise a room with
            state is at home on one node.

    Raises:
        ConfigurationError: The pattern or a value is wrong.
    """

    pattern: str
    _: KW_ONLY
    max_members: int | None = None
    linger: float = 0.0
    state: Callable[..., Any] | None = None
    history: History | None = None
    client_join: bool = False
    members: Callable[..., Any] | None = None
    counts: Callable[..., Any] | None = None
    grace: float = 0.0
    presence: bool = False
    each_node: bool = False
    slow_consumer: SlowConsumer | None = None

    def __post_init__(self) -> None:
        where = f"rooms {self.pattern!r}"
        if self.pattern:
            NamePattern(self.pattern, separator=ROOM_SEPARATOR)
        most = self.max_members
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: max_members must be at least 1, not {most!r}.")
        if self.history is not None and not isinstance(self.history, History):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"{where}: history must be a number of publications or a History, not {self.history!r}."
            )
        if not isinstance(self.client_join, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: client_join must be True or False, not {self.client_join!r}.")
        for name in ("presence", "each_node"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ConfigurationError(f"{where}: {name} must be True or False, not {value!r}.")
        if self.slow_consumer not in (None, "disconnect", "drop_oldest", "conflate", "resync"):
            raise ConfigurationError(
                f"{where}: slow_consumer must be 'disconnect', 'drop_oldest', 'conflate' or 'resync', "
                f"not {self.slow_consumer!r}."
            )
        for name in ("grace", "linger"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigurationError(f"{where}: {name} must be a number of seconds, not {value!r}.")
            if value < 0:
                raise ConfigurationError(f"{where}: {name} must not be negative, not {value}.")


class Rooms:
    """A family of rooms under one name pattern, with one policy.

    `app.rooms(pattern)` and `router.rooms(pattern)` return it. Parameters of
    the pattern are parameters of its hooks. You can register several hooks of
    one kind; they run in the order of their registration.

    Attributes:
        policy: The pattern and the options.
        hooks: The registered hooks by kind.
        publishes: What clients may publish: the hooks by the name of the event.
        ticks: The functions to call at a fixed rate, with their intervals.
        saves: The functions that save, with their intervals.
    """

    def __init__(self, policy: RoomPolicy) -> None:
        self.policy = policy
        self.hooks: dict[str, list[Callable[..., Any]]] = {}
        self.publishes: dict[str, Callable[..., Any]] = {}
        self.ticks: list[tuple[float, Callable[..., Any]]] = []
        self.saves: list[tuple[float, Callable[..., Any]]] = []

    def authorize(self, hook: F) -> F:
        """Call *hook* before each join; `False` or a `Reject` refuses it.

        With several hooks, each must allow the join.
        """
        return self._register("authorize", hook)

    def on_join(self, hook: F) -> F:
        """Call *hook* when a socket has joined.

        If it raises, the join is undone, and the hooks after it are not called.
        """
        return self._register("on_join", hook)

    def on_leave(self, hook: F) -> F:
        """Call *hook* when a socket has left, or has disconnected.

        Every hook is called, even if one before it raises. `socket.leave`
        raises the first error; the others are reported.
        """
        return self._register("on_leave", hook)

    def on_arrive(self, hook: F) -> F:
        """Call *hook* when a user has come: with the first socket.

        It runs before `on_join`. If it raises, the join is undone, and the hooks after it are
        not called. A `Member` as a parameter is the user who has come.
        """
        return self._register("on_arrive", hook)

    def on_back(self, hook: F) -> F:
        """Call *hook* when a user is back within the grace period; otherwise as `on_arrive`."""
        return self._register("on_back", hook)

    def on_away(self, hook: F) -> F:
        """Call *hook* when the last socket of a user was lost, and the grace period begins.

        Every hook is called, even if one before it raises. Errors are reported.
        """
        return self._register("on_away", hook)

    def on_depart(self, hook: F) -> F:
        """Call *hook* when a user has gone: the last socket has left, or the grace period is over.

        Every hook is called, even if one before it raises. Errors are reported. If a node
        dies meanwhile, another one may call it again: `member.arrival` names the visit.
        """
        return self._register("on_depart", hook)

    def on_empty(self, hook: F) -> F:
        """Call *hook* when the last socket has left and the linger has passed.

        Every hook is called, even if one before it raises.
        """
        return self._register("on_empty", hook)

    def snapshot(self, hook: F) -> F:
        """Send what *hook* returns to each new member, before the publications.

        A plain function is called in the step in which the socket becomes a member, so no
        publication is between the two. An `async def` needs a history: the publications since
        its call follow, so that the snapshot may have some of them already.

        It is called for each join that does not recover all publications, and again after
        `lost` and after a resync. If it raises, the join is refused. The client gets the
        result as an event `snapshot` of the room. `None`: nothing is sent.

        Raises:
            ConfigurationError: The family has one already.
        """
        if "snapshot" in self.hooks:
            raise ConfigurationError(f"rooms {self.policy.pattern!r} have a snapshot already.")
        return self._register("snapshot", hook)

    def task(self, hook: F) -> F:
        """Run *hook* from the first join to the end of the linger, such as a game's tick.

        Several tasks run concurrently.
        """
        return self._register("task", hook)

    def on_publish(self, *events: str) -> Callable[[F], F]:
        """Let clients publish these events, after *hook* has been called.

        The client must be a member. What the hook returns is published, to the client too. If
        it returns `None`, the data is published as the hook has received it. If it raises,
        nothing is published, and the client gets the error. The hooks of one room run one after
        the other on each node. Dependencies are closed before the publication.

        The hook may run twice for one publication: the client repeats it, with its key, if its
        connection breaks before the answer.

        Args:
            events: The names.

        Raises:
            ConfigurationError: There is no name, or an event has a hook already.
        """
        where = f"on_publish of rooms {self.policy.pattern!r}"
        if not events or not all(isinstance(event, str) for event in events):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: name the events, as in @rooms.on_publish('say').")

        def register(hook: F) -> F:
            for event in events:
                if not 0 < len(event) <= MAX_NAME or event == ERROR:
                    raise ConfigurationError(f"{where}: {event!r} cannot be the name of an event.")
                if event in self.publishes:
                    raise ConfigurationError(f"{where}: the event {event!r} has a hook already.")
                self.publishes[event] = hook
            return hook

        return register

    def every(self, seconds: float) -> Callable[[F], F]:
        """Call a function at a fixed rate, such as the tick of a game: `(room, dt)`.

        It is called from the first join, or from `room.open`, to the end of the room. `dt`
        has the seconds since the last tick: the interval, or a multiple of it if ticks
        were missed. These are skipped, and counted in `app.stats.missed_ticks`. An
        exception is reported, and the next tick comes.

        Args:
            seconds: The interval.

        Raises:
            ConfigurationError: It is not a number above 0.
        """
        return self._register_timed(self.ticks, "every", seconds)

    def save(self, *, every: float = 1.0) -> Callable[[F], F]:
        """Call a function some time after `room.touch()`, and before `on_empty`.

        It is called once for all changes of this time. If it raises, that is reported, and
        it is called again. At the end of the room, this is repeated for at most
        `Limits.finish_timeout`.

        Args:
            every: How many seconds after the change.

        Raises:
            ConfigurationError: It is not a number above 0.
        """
        return self._register_timed(self.saves, "save", every)

    def _register_timed(
        self, hooks: list[tuple[float, Callable[..., Any]]], kind: str, seconds: float
    ) -> Callable[[F], F]:
        if not isinstance(seconds, int | float) or not 0 < seconds < inf:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"{kind} of rooms {self.policy.pattern!r} takes a number of seconds above 0, not {seconds!r}."
            )

        def register(hook: F) -> F:
            hooks.append((float(seconds), hook))
            return hook

        return register

    def _register(self, kind: str, hook: F) -> F:
        self.hooks.setdefault(kind, []).append(hook)
        return hook
