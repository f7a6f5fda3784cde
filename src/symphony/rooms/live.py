"""A room that has members, or had them less than its linger ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from symphony.outgoing.batch import Batch, Recipient
from symphony.rooms.members import Attendance

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.catchup import CatchUp
    from symphony.rooms.family import Family
    from symphony.rooms.feed import Feed
    from symphony.rooms.leave import Leave
    from symphony.rooms.making import Making
    from symphony.rooms.relaying import Topic
    from symphony.rooms.saving import Saving
    from symphony.rooms.showing import Showing
    from symphony.rooms.tasks import RoomTasks

__all__ = ("Live", "Outlet")


class Outlet:
    """What a feed and a topic hand publications to.

    Attributes:
        live: The room. It is another one when listeners go on with the next life of a room.
    """

    __slots__ = ("live",)

    def __init__(self, live: Live) -> None:
        self.live = live


class Live(Batch):
    """A room at work on this node.

    Attributes:
        family: Its policy and hooks.
        params: The parameters in its name.
        tasks: Its tasks, if its family has any.
        state: Its state, if its family has one.
        is_made: Whether it has its state, or needs none.
        making: The call of its factory, while that runs.
        savings: What saves its changes.
        feed: Its history, if its family has one.
        topic: What other nodes pass on to it; `None`: there are none.
        listeners: The recipients that are listeners, and what ends each of them.
        outlet: What the feed and the topic hand publications to: the room, until its
            listeners go on with another life of it.
        is_closed: Whether the app has closed it: its listeners end, too.
        follow: Lets a member get what follows a position from the history.
        catching: The members that are behind.
        linger: Ends it, while it lingers.
        ending: Runs its last hooks.
        attendance: Its members, if its family has members.
        showing: The members, as clients are told, if the family says so.
        term: The claim by which this node is its home; `None`: it is not, or needs not to be.
        home_until: When the lease of the home ends, in the time of the loop.
        lease_end: Suspends its tasks then.
        began: Whether its life has begun: its state was created, or it has had a member.
        speaking: Held while a publication of a client is handled; `None`: there was none.
        unasked: The members that have joined without `authorize`; `None`: there are none.
        over: Set when its life is over, so that nobody can join it any more. It is done
            when the room is gone.
        closed: How it was closed, if it was.
        open_until: The time up to which it waits for its first member.
        caught_up: Called with each member that was behind and has caught up, while it is closed.
        hooks: How many joins and hooks are under way: it does not end before these are done.
    """

    __slots__ = (
        "attendance",
        "began",
        "catching",
        "caught_up",
        "closed",
        "ending",
        "family",
        "feed",
        "follow",
        "home_until",
        "hooks",
        "is_closed",
        "is_made",
        "lease_end",
        "linger",
        "listeners",
        "making",
        "open_until",
        "outlet",
        "over",
        "params",
        "savings",
        "showing",
        "speaking",
        "state",
        "tasks",
        "term",
        "topic",
        "unasked",
    )

    def __init__(self, name: str, family: Family, params: dict[str, Any]) -> None:
        super().__init__(name, announced=family.is_announced, slow=family.policy.slow_consumer)
        self.family = family
        self.params = params
        self.tasks: RoomTasks | None = None
        self.state: Any = None
        self.is_made = family.state is None
        self.making: Making | None = None
        self.savings: tuple[Saving, ...] = ()
        self.feed: Feed | None = None
        self.topic: Topic | None = None
        self.attendance = Attendance() if family.has_members else None
        self.term: str | None = None
        self.showing: Showing | None = None
        self.home_until = 0.0
        self.lease_end: asyncio.TimerHandle | None = None
        self.follow: Callable[[Live, Recipient, Position], None] | None = None
        self.catching: dict[Recipient, CatchUp] = {}
        self.linger: asyncio.TimerHandle | None = None
        self.ending: asyncio.Task[Any] | None = None
        self.began = False
        self.speaking: asyncio.Lock | None = None
        self.over: asyncio.Future[None] | None = None
        self.closed: Leave | None = None
        self.open_until = 0.0
        self.caught_up: Callable[[Recipient], None] | None = None
        self.hooks = 0
        self.unasked: set[Recipient] | None = None
        self.listeners: dict[Recipient, Callable[[], None]] = {}
        self.outlet = Outlet(self)
        self.is_closed = False

    @property
    def owners(self) -> Iterator[Any]:
        """The sockets of the members."""
        if not self.listeners:
            return super().owners
        return iter([self.owner(recipient) for recipient in self])

    def __iter__(self) -> Iterator[Recipient]:
        members = super().__iter__()
        if not self.listeners:
            return members
        return iter([recipient for recipient in members if recipient not in self.listeners])

    def __len__(self) -> int:
        return super().__len__() - len(self.listeners)

    @property
    def late(self) -> list[Recipient]:
        """The members that are behind."""
        return [recipient for recipient in self.catching if recipient not in self.listeners]

    def has_caught_up(self, recipient: Recipient) -> None:
        """Note that a member or a listener that was behind has caught up."""
        end = self.listeners.get(recipient)
        if end is None:
            if self.caught_up is not None:
                self.caught_up(recipient)
        elif self.is_closed:
            end()

    def fell_behind(self, recipient: Recipient, position: Position) -> None:
        """Let *recipient* get what follows *position* from the history."""
        if self.follow is not None:
            self.follow(self, recipient, position)

    def has_state(self, state: Any) -> None:
        """Note the state that was created."""
        self.state = state
        self.is_made = self.began = True

    def owner(self, recipient: Recipient) -> Any:
        """Return the socket of a member."""
        if recipient in self.behind:
            return self.behind[recipient]
        return self.recipients[recipient.encoding][recipient]

    def stay(self) -> None:
        """Go on, if it was about to end."""
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        self.ending = None
