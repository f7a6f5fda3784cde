"""What a simulated cluster watches: the calls of the presence store, and the hooks of members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from symphony.broker.attendance import Diff
from symphony.broker.hub import Hub
from symphony.broker.presencehub import PRESENCE

if TYPE_CHECKING:
    from symphony.app import Symphony
    from symphony.broker.base import Broker
    from symphony.rooms.family import Hook
    from symphony.testing.memberpromises import MemberPromises
    from symphony.testing.promises import Trace

__all__ = ("HOOK_OF", "Hooks", "WatchedHub")

HOOK_OF: Final = {"arrive": "on_arrive", "back": "on_back", "away": "on_away", "depart": "on_depart"}
"""The hook of each decision of a presence store."""


class WatchedHub(Hub):
    """A hub that tells what the presence store is asked, answers and says.

    Args:
        broker: See `Hub`.
        life: See `Hub`.
        promises: Checks it.
        again: Returns how likely it is that a call is carried out once more.
        random: Decides about that.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        life: str,
        promises: MemberPromises,
        again: Callable[[], float],
        random: Random,
    ) -> None:
        super().__init__(broker, life=life)
        self._promises = promises
        self._again = again
        self._random = random
        self._has_ended = False

    def offer(self, method: str, function: Callable[..., Any]) -> None:
        """See `Hub.offer`."""
        name = method.removeprefix(PRESENCE)

        def called(*arguments: Any) -> Any:
            promises = self._promises
            promises.before(name)
            result = function(*arguments)
            promises.after(name, arguments, result)
            return result

        def called_again(*arguments: Any) -> None:
            if not self._has_ended:
                called(*arguments)

        def called_once_or_twice(*arguments: Any) -> Any:
            result = called(*arguments)
            if self._random.random() < self._again():
                later = self._random.uniform(0.0, 8.0)
                asyncio.get_running_loop().call_later(later, called_again, *arguments)
            return result

        super().offer(method, called_once_or_twice)

    def when_ended(self, function: Callable[[str], object]) -> None:
        """See `Hub.when_ended`."""

        def told(node: str) -> None:
            self._promises.node_ended(node)
            function(node)

        super().when_ended(told)

    def close(self) -> None:
        """See `Hub.close`."""
        self._has_ended = True
        super().close()

    def say(self, topic: str, value: Any) -> None:
        """See `Hub.say`."""
        if isinstance(value, Diff):
            self._promises.said(value)
        super().say(topic, value)


class _Run(NamedTuple):
    """A hook that has run."""

    hook: str
    room: str
    member: str
    arrival: str
    reason: str


class Hooks:
    """The hooks of members that have run, on all nodes.

    Args:
        trace: Notes what happens.
        at_home: Called with a node and a room when a tick of the room runs.
    """

    def __init__(self, trace: Trace, at_home: Callable[[str, str], object]) -> None:
        self._trace = trace
        self._at_home = at_home
        self.runs: list[_Run] = []

    def watch(self, app: Symphony, node: str) -> None:
        """Note from now on what runs on a node, whose app has started."""
        # Compiling hooks for each node would take a good part of a simulation.
        families: Any = cast("Any", app)._core.node.rooms._find_family.__self__
        for family in chain.from_iterable(families._by_form.values()):
            if family.has_members:
                family.on_arrive = self._noting("on_arrive", node, family.on_arrive)
                family.on_back = self._noting("on_back", node, family.on_back)
                family.on_away = (self._noting("on_away", node), *family.on_away)
                family.on_depart = (self._noting("on_depart", node), *family.on_depart)
            if family.has_home:
                family.ticks = tuple((seconds, self._ticking(node, hook)) for seconds, hook in family.ticks)

    def _noting(self, hook: str, node: str, then: Hook | None = None) -> Hook:
        async def noted(socket: Any, visit: Any) -> None:
            room, member = visit.room.name, visit.member
            reason = "" if visit.leave is None else visit.leave.reason
            self.runs.append(_Run(hook, room, member.id, member.arrival, reason))
            self._trace.note(f"{node} runs {hook} for {member.id} in {room}")
            if then is not None:
                await then(socket, visit)

        return noted

    def _ticking(self, node: str, tick: Hook) -> Hook:
        async def ticked(socket: Any, subject: Any) -> None:
            self._at_home(node, subject.room.name)
            await tick(socket, subject)

        return ticked
