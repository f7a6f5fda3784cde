"""The rooms of a client: joins them, and again on every connection."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from symphony.client.answers import Answers
from symphony.client.backlog import Gate
from symphony.client.backoff import Backoff
from symphony.client.delivery import Delivery, End
from symphony.client.dispatch import Dispatch
from symphony.client.joining import Joining, Leaving, Since, failure_of
from symphony.client.loss import Loss
from symphony.client.members import Members
from symphony.client.membership import Membership
from symphony.client.options import Options
from symphony.client.payload import Decoding, error_said
from symphony.client.publishing import Publishing
from symphony.client.room import Room
from symphony.errors import DisconnectedError, RemoteError, RequestTimeoutError, SymphonyError
from symphony.protocol.envelopes import Joined, Left, Lost, Presence, Published
from symphony.tasks import start

__all__ = ("MAX_REMEMBERED_ROOMS", "Rooms")

logger = logging.getLogger("symphony.client")

MAX_REMEMBERED_ROOMS: Final = 1000
"""Of so many rooms that the program has not joined, a client remembers the positions."""


class Rooms:
    """The rooms of one client.

    Args:
        answers: The requests of the client.
        dispatch: Runs the handlers.
        gate: The gate of the client.
        decoding: How received data is decoded.
        options: The options of the client.
        where: The address of the server, for messages.

    Attributes:
        publishing: What the client publishes.
    """

    __slots__ = (
        "_answers",
        "_decoding",
        "_dispatch",
        "_forgot",
        "_gate",
        "_members",
        "_memberships",
        "_options",
        "_outgoing",
        "_tasks",
        "_where",
        "publishing",
    )

    def __init__(
        self,
        answers: Answers,
        dispatch: Dispatch,
        gate: Gate,
        decoding: Decoding,
        options: Options,
        where: str,
    ) -> None:
        self._answers = answers
        self._outgoing = answers.outgoing
        self._dispatch = dispatch
        self._gate = gate
        self._decoding = decoding
        self._options = options
        self._where = where
        self.publishing = Publishing(answers, gate, decoding, options, where)
        self._members = Members(answers, gate, decoding, options, where)
        self._memberships: dict[str, Membership] = {}
        self._tasks: set[asyncio.Task[SymphonyError | None]] = set()
        self._forgot = False

    # What the program does

    async def join(self, name: str, since: Since, timeout: float) -> Room:
        """Join a room, or return the room that the client holds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (membership := self._memberships.get(name)) is not None and membership.room is not None:
            room = membership.room
            if membership.held and not membership.ending:
                if self._outgoing.ahead and not membership.asked:
                    await self._join_ahead(membership)
                return room
            try:
                async with asyncio.timeout_at(deadline):
                    await self._wait(membership)
            except TimeoutError:
                raise RequestTimeoutError(
                    f"The join of {name!r} was not answered by {self._where} within {timeout:g} s."
                ) from None
        if membership is None:
            membership = self._add(name)
        return await self._enter(membership, since, max(deadline - loop.time(), 0.0))

    async def _enter(self, membership: Membership, since: Since, timeout: float) -> Room:
        membership.delivery = self._deliver(membership)
        membership.delivery.hold()
        membership.wanted = since
        room = membership.room = Room(membership)
        request = membership.request = Joining(
            self._answers,
            membership.name,
            lambda: self._sends(membership),
            timeout=timeout,
            bound=False,
            where=self._where,
        )
        self._gate.wait()
        try:
            await request.reply()
            if membership.left is not None:
                raise membership.left
        except BaseException:
            self._not_entered(membership)
            raise
        finally:
            self._gate.waited()
            membership.request = None
            self._wake(membership)
        membership.held = True
        membership.delivery.release()
        return room

    def _not_entered(self, membership: Membership) -> None:
        """Let a room be as it was before the join."""
        membership.room = membership.wanted = None
        membership.delivery = self._deliver(membership)
        # What was kept for the program is to be sent again if the server has put the client there.
        membership.place.restart(membership.place.handled)
        membership.ignoring = False
        if not membership.member:
            self._memberships.pop(membership.name, None)

    async def _join_ahead(self, membership: Membership) -> None:
        """Join a room again now, because `on_open` asks for it."""
        request = self._request(membership)
        task = self._watch(membership, request)
        self._send([request])
        if (error := await asyncio.shield(task)) is not None:
            raise error

    async def leave(self, membership: Membership) -> None:
        """Leave a room; if the client is not connected, it has left already."""
        if membership.ending:
            await self._wait(membership)
        if not membership.held:
            return
        membership.ending = True
        membership.stop_timer()
        membership.withdraw(RemoteError("left", "the client has left the room"))
        try:
            if self._outgoing.live and (membership.member or membership.asked):
                request = membership.request = Leaving(
                    self._answers, membership.name, timeout=self._options.request_timeout, where=self._where
                )
                self._outgoing.put(request, refuse=False)
                self._outgoing.flush()
                await request.answered()
        except DisconnectedError:
            pass
        finally:
            left = membership.left or RemoteError("left", "the client has left the room")
            self._end(membership, left, "left")

    # Connections

    def rejoin(self) -> None:
        """Join the rooms of the program again, before anything that is queued."""
        again = [one for one in self._memberships.values() if one.held and not one.asked and not one.ending]
        if again:
            requests = [self._request(membership) for membership in again]
            for membership, request in zip(again, requests, strict=True):
                self._watch(membership, request)
            self._send(requests)

    def lost(self, loss: Loss) -> None:
        """Handle the loss of the connection."""
        for membership in tuple(self._memberships.values()):
            membership.disconnect()
            request = membership.request
            if request is not None and request.bound:
                # If it was not sent, it is dropped with the connection.
                membership.request = None
                request.dropped(loss)
            if loss.final and membership.held:
                self._end(membership, loss.error(), "closed")
            elif membership.room is None and membership.place.seen is None:
                del self._memberships[membership.name]

    # What the server sends

    def published(self, event: Published, size: int) -> None:
        """Handle a publication, in a message of so many bytes."""
        membership = self._memberships.get(event.room or "")
        if membership is None:
            self._dispatch.event(event, self._decoding, size)
        elif membership.publish(event, size):
            self._recover(membership, f"the publication with the offset {event.offset} came too early")

    def take(self, envelope: Joined | Left | Lost | Presence) -> None:
        """Handle an envelope about a room."""
        if isinstance(envelope, Joined):
            membership = self._memberships.get(envelope.joined) or self._add(envelope.joined)
            membership.show(membership.roster.restart(envelope.members))
            if membership.joined(envelope) and not membership.ending:
                if membership.held and not membership.asked:
                    # It joins again when `on_open` is done.
                    membership.ignoring = True
                else:
                    self._ask(membership)
        elif isinstance(envelope, Presence):
            if (membership := self._memberships.get(envelope.presence)) is not None:
                membership.show(membership.roster.take(envelope))
        elif isinstance(envelope, Lost):
            membership = self._memberships.get(envelope.lost)
            if membership is not None and not membership.ignoring:
                membership.lost(envelope)
        elif (membership := self._memberships.get(envelope.left)) is not None:
            self._left(membership, envelope)

    def _left(self, membership: Membership, envelope: Left) -> None:
        error = error_said(envelope.data, self._decoding) or RemoteError("left", "the server has ended it")
        membership.member = False
        if membership.request is not None:
            # The answer says whether the client is a member.
            membership.left = error
            return
        if membership.room is not None:
            logger.warning(
                "%s has ended the membership in the room %r: %r, %r.",
                self._where,
                membership.name,
                error.code,
                error.message,
            )
        self._end(membership, error, "removed")

    # Joins that the client sends without the program

    def _recover(self, membership: Membership, why: str) -> None:
        """Join again, because something is missing: at once, then with delays."""
        logger.warning("%s: something of the room %r is missing: %s.", self._where, membership.name, why)
        membership.ignoring = True
        if membership.backoff is None:
            membership.backoff = self._backoff()
            self._ask(membership)
        else:
            self._later(membership)

    def _ask(self, membership: Membership) -> None:
        request = self._request(membership)
        self._watch(membership, request)
        self._send([request])

    def _again(self, membership: Membership) -> None:
        membership.timer = None
        if self._memberships.get(membership.name) is membership and not membership.ending:
            self._ask(membership)

    def _caught_up(self, membership: Membership) -> None:
        # Without a connection, the next one does this.
        if membership.asked:
            self._again(membership)

    def _request(self, membership: Membership) -> Joining:
        membership.stop_timer()
        membership.asked = True
        membership.ignoring = membership.place.seen is not None
        request = membership.request = Joining(
            self._answers,
            membership.name,
            lambda: self._sends(membership),
            timeout=self._options.request_timeout,
            bound=True,
            where=self._where,
        )
        return request

    def _sends(self, membership: Membership) -> Since:
        """Return the position to join with, when the join is sent."""
        membership.asked = True
        membership.left = None
        # What was taken waits in the client's own queue, which outlives the connection.
        position = membership.wanted or membership.place.seen
        membership.ignoring = position is not None
        return position

    def _send(self, requests: list[Joining]) -> None:
        self._outgoing.put_first(requests)
        self._outgoing.flush()

    def _watch(self, membership: Membership, request: Joining) -> asyncio.Task[SymphonyError | None]:
        request.settled = lambda failure: self._settled(membership, request, failure)
        task = start(failure_of(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _settled(self, membership: Membership, request: Joining, failure: Exception | None) -> None:
        """Handle the answer to a join, or its failure."""
        if membership.request is not request:
            return
        membership.request = None
        if failure is None:
            if membership.left is not None:
                self._end(membership, membership.left, "removed")
        elif isinstance(failure, RemoteError) and not failure.retryable:
            self._refused(membership, failure)
        elif isinstance(failure, RemoteError | RequestTimeoutError):
            logger.info("%s: the room %r is joined again later: %s", self._where, membership.name, failure)
            self._later(membership, failure.retry_after if isinstance(failure, RemoteError) else None)

    def _refused(self, membership: Membership, error: RemoteError) -> None:
        logger.warning(
            "%s refuses to let the client join the room %r again: %r, %r. What it has missed is lost.",
            self._where,
            membership.name,
            error.code,
            error.message,
        )
        self._end(membership, error, "removed")

    def _later(self, membership: Membership, retry_after: float | None = None) -> None:
        backoff = membership.backoff = membership.backoff or self._backoff()
        if retry_after is not None:
            backoff.hint(retry_after)
        membership.stop_timer()
        loop = asyncio.get_running_loop()
        membership.timer = loop.call_later(backoff.next(), self._again, membership)

    def _backoff(self) -> Backoff:
        return Backoff(self._options.backoff, self._options.max_backoff, self._options.uniform)

    # The table

    def _add(self, name: str) -> Membership:
        membership = Membership(name, self._deliver, self.leave, self.publishing, self._members)
        self._memberships[name] = membership
        if len(self._memberships) > MAX_REMEMBERED_ROOMS:
            others = [one for one in self._memberships.values() if one.room is None and one is not membership]
            if len(others) >= MAX_REMEMBERED_ROOMS:
                self._forget(min(others, key=lambda one: one.member))
        return membership

    def _forget(self, membership: Membership) -> None:
        del self._memberships[membership.name]
        if not self._forgot:
            self._forgot = True
            logger.warning(
                "%s has put the client into more than %d rooms. The client forgets the positions of the "
                "oldest ones, and cannot recover these.",
                self._where,
                MAX_REMEMBERED_ROOMS,
            )

    def _deliver(self, membership: Membership) -> Delivery:
        return Delivery(
            membership.name,
            self._where,
            membership.place,
            self._dispatch,
            self._decoding,
            limit=self._options.max_queue,
            max_bytes=self._options.max_queue_bytes,
            caught_up=lambda: self._caught_up(membership),
        )

    def _end(self, membership: Membership, error: SymphonyError, how: End) -> None:
        membership.stop_timer()
        membership.held = membership.ending = False
        self._memberships.pop(membership.name, None)
        membership.delivery.end(error, how)
        membership.withdraw(error)
        self._wake(membership)

    async def _wait(self, membership: Membership) -> None:
        """Wait until the program has joined a room, or left it."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        membership.waiters.append(waiter)
        await waiter

    def _wake(self, membership: Membership) -> None:
        waiters, membership.waiters = membership.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
