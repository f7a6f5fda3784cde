"""A room that has members, or had them less than its linger ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symphony.outgoing.batch import Batch, Recipient
from symphony.rooms.members import Attendance

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.catchup import CatchUp
    from symphony.rooms.family import Family
    from symphony.rooms.feed import Feed
    from symphony.rooms.making import Making
    from symphony.rooms.relaying import Topic
    from symphony.rooms.saving import Saving
    from symphony.rooms.showing import Showing
    from symphony.rooms.tasks import RoomTasks

__all__ = ("Live",)


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
        open_until: The time up to which it waits for its first member.
        caught_up: Called with each member that was behind and has caught up, while it is closed.
        hooks: How many joins and hooks are under way: it does not end before these are done.
    """

    __slots__ = (
        "attendance",
        "began",
        "catching",
        "caught_up",
        "ending",
        "family",
        "feed",
        "follow",
        "home_until",
        "hooks",
        "is_made",
        "lease_end",
        "linger",
        "making",
        "open_until",
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
        super().__init__(name, announced=family.is_announced)
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
        self.open_until = 0.0
        self.caught_up: Callable[[Recipient], None] | None = None
        self.hooks = 0
        self.unasked: set[Recipient] | None = None

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
