"""What users do in the rooms of `games.py`, and what they check themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from cluster.games import ROOMS
from symphony import DisconnectedError, Limits, RemoteError, RequestTimeoutError
from symphony.client.client import Client
from symphony.client.room import Room
from symphony.errors import SymphonyError
from symphony.protocol.positions import Position
from symphony.testing import Cluster, Follower

T = TypeVar("T")

USERS = ("ann", "bob", "cleo", "dan", "eve")
# A call is answered or has failed so soon after its timeout.
LATE = 1.0


class Said(NamedTuple):
    """A publication that was acknowledged.

    Attributes:
        room: The room.
        position: Its position.
        text: What was said.
        key: Its key; `None`: it had none.
        replaces: What it replaces.
        way: How it was published: by a handler of the app, or by the client.
        client: The client.
    """

    room: str
    position: Position
    text: Any
    key: str | None
    replaces: Position | None
    way: str
    client: Client


class Followed(NamedTuple):
    """What was taken of a room: by a client, and before that by those whose positions it goes back to."""

    room: str
    follower: Follower
    before: tuple[Follower, ...]


class User:
    """A user who joins rooms, publishes, leaves, and comes back.

    Attributes:
        said: What was acknowledged.
        once: What was published by one call without a key.
        followed: What was taken of each room.

    Args:
        cluster: The cluster.
        name: The name of the user.
        rooms: The rooms in which they are.
        hears: Whether they read all the time, so that they hear what they publish before it
            is acknowledged.
    """

    def __init__(self, cluster: Cluster, name: str, rooms: list[str], *, hears: bool) -> None:
        self.said: list[Said] = []
        self.once: list[str] = []
        self.followed: list[Followed] = []
        self._cluster = cluster
        self._rooms = rooms
        self._name = name
        self._number = 0
        self._random = cluster.random
        self._hears = hears
        self._visit = 0
        self._wrote: set[tuple[Client, str]] = set()
        self._left_at: dict[str, Position] = {}
        self._given_up: set[tuple[Client, str]] = set()
        self._before: dict[str, tuple[Follower, ...]] = {}
        self._joined_at: dict[str, float] = {}

    async def play(self, visits: int, steps: int) -> None:
        random = self._random
        for visit in range(visits):
            self._visit = visit
            token = self._name if random.random() < 0.8 else None
            path = "/play?watch=1" if random.random() < 0.2 else "/play"
            client = await self._connect(path, f"{self._name}{visit}", token)
            if client is None:
                continue
            rooms: dict[str, Room] = {}
            for _ in range(steps):
                await asyncio.sleep(random.uniform(0.0, 2.0))
                await self._step(client, rooms)
            if visit + 1 < visits:
                # A position is done when the next publication is asked for.
                await asyncio.sleep(0)
                self._left_at = {name: room.position for name, room in rooms.items() if room.position}
                await client.close()
                await asyncio.sleep(random.uniform(0.0, 10.0))

    async def sit(self, visits: int) -> None:
        """Open sockets of which the user may have one."""
        random = self._random
        before: Client | None = None
        for visit in range(visits):
            path = "/solo" if random.random() < 0.7 else "/exam"
            await asyncio.sleep(random.uniform(0.0, 12.0))
            client = await self._connect(path, f"{self._name} {path} {visit}", self._name)
            if before is not None and random.random() < 0.3:
                await before.close()
            before = client or before

    async def _connect(self, path: str, name: str, token: str | None) -> Client | None:
        protocol = "msgpack" if self._random.random() < 0.5 else "json"
        try:
            return await self._cluster.connect(path, name=name, token=token, protocol=protocol)
        except (DisconnectedError, RemoteError) as error:
            self._cluster.note(f"{name} gives up: {error}")
            return None

    async def _step(self, client: Client, rooms: dict[str, Room]) -> None:
        random = self._random
        room = random.choice(self._rooms)
        step = random.random()
        try:
            if room not in rooms or rooms[room].ended is not None:
                rooms[room] = await self._join(client, room)
            elif step < 0.1:
                await self._leave(client, rooms, room)
            elif step < 0.12:
                await self._close(client, rooms, room)
            elif step < 0.2 and room.startswith(("chat:", "board:")):
                await self._burst(client, rooms[room])
            elif room.startswith("chat:"):
                await self._chat(client, rooms[room])
            elif room.startswith("board:"):
                await self._write(client, rooms[room], "marked", self._text())
            elif room.startswith("pad:"):
                await self._emit(rooms[room], "drew", self._text(), None)
        except (SymphonyError, TimeoutError) as error:
            self._cluster.note(f"{self._name} has failed in {room}: {type(error).__name__}: {error}")

    async def _leave(self, client: Client, rooms: dict[str, Room], name: str) -> None:
        room = rooms.pop(name)
        # A position is done when the next publication is asked for.
        await asyncio.sleep(0)
        if room.position is not None:
            self._left_at[name] = room.position
        leaving = asyncio.ensure_future(self._in_time(12, room.leave()))
        if self._random.random() < 0.5:
            await leaving
            return
        try:
            # While it still leaves.
            await asyncio.sleep(0)
            rooms[name] = await self._join(client, name)
        finally:
            await leaving

    async def _close(self, client: Client, rooms: dict[str, Room], name: str) -> None:
        """End a room, and sometimes join it meanwhile."""
        joins = self._random.random() < 0.5
        if joins:
            await self._in_time(12, rooms.pop(name).leave())
        closing = asyncio.ensure_future(self._in_time(12, client.request("close", name)))
        try:
            if joins:
                await asyncio.sleep(self._random.uniform(0.0, 0.1))
                rooms[name] = await self._join(client, name)
        finally:
            await closing

    async def _burst(self, client: Client, room: Room) -> None:
        """Publish more at once than the history keeps."""
        event = "wrote" if room.name.startswith("chat:") else "marked"
        number = self._random.randint(3, 8)
        is_big = self._random.random() < 0.5
        for result in await asyncio.gather(
            *(self._write(client, room, event, self._text(is_big=is_big)) for _ in range(number)),
            return_exceptions=True,
        ):
            if isinstance(result, BaseException) and not isinstance(result, SymphonyError | TimeoutError):
                raise result

    async def _join(self, client: Client, name: str) -> Room:
        random = self._random
        since: Position | str | None = None
        if random.random() < 0.3 and not name.startswith("board:"):
            # A board begins with its snapshot.
            since = "start"
        if random.random() < 0.5:
            # Where the client before it has stopped.
            since = self._left_at.pop(name, since)
        try:
            room = await self._in_time(12, client.join(name, since=since))  # type: ignore[arg-type]
        except RequestTimeoutError:
            self._given_up.add((client, name))
            raise
        if room.recovered and isinstance(since, Position):
            assert room.position == since, f"{self._name} has joined {name} with {since}: {room.position}"
        follower = self._cluster.follow(client, room)
        before = self._before.get(name, ()) if room.recovered and isinstance(since, Position) else ()
        self._before[name] = *before, follower
        # A join that was given up may have been carried out, and what it brought went nowhere.
        if (client, name) not in self._given_up:
            self.followed.append(Followed(name, follower, before))
        self._joined_at[name] = asyncio.get_running_loop().time()
        return room

    async def _chat(self, client: Client, room: Room) -> None:
        random = self._random
        said = [one for one in self.said if one.room == room.name]
        what = random.random()
        if said and what < 0.15:
            await self._repeat(client, room, random.choice(said))
        elif said and what < 0.4:
            await self._say(client, room.name, replaces=random.choice(said[-3:]).position)
        elif what < 0.7:
            await self._say(client, room.name)
        else:
            await self._write(client, room, "wrote", self._text())

    async def _say(self, client: Client, room: str, *, replaces: Position | None = None) -> None:
        """Publish by a handler of the app, also several times if it fails."""
        text = self._text()
        key = f"key {self._number}" if self._random.random() < 0.5 else None
        key = key and f"{self._name} {key}"
        for attempt in range(4):
            of_attempt = text if key is not None else f"{text} attempt {attempt}"
            if key is None:
                self.once.append(of_attempt)
            said = {"room": room, "text": of_attempt, "key": key, "replaces": _pair(replaces)}
            asked = self._link(client), asyncio.get_running_loop().time()
            try:
                position = await self._in_time(8, client.request("say", said, timeout=8))
            except RemoteError as error:
                if not error.retryable:
                    raise
            except SymphonyError:
                pass
            else:
                self._check_heard(client, room, Position(*position), asked)
                self.said.append(Said(room, Position(*position), of_attempt, key, replaces, "say", client))
                return
            await asyncio.sleep(1)

    async def _write(self, client: Client, room: Room, event: str, text: str) -> None:
        """Publish as a client."""
        # Other users have the same keys.
        number = text.rstrip(".").rpartition(" ")[2]
        key = f"key {number}" if self._random.random() < 0.7 else None
        if (client, room.name) not in self._wrote:
            # The same for all users, and in all rooms.
            key = f"first of visit {self._visit}"
            self._wrote.add((client, room.name))
        asked = self._link(client), asyncio.get_running_loop().time()
        try:
            position = await self._emit(room, event, text, key)
        except RemoteError as error:
            if error.code == "conflict":
                raise AssertionError(f"the key {key} is not new: {error}") from None
            raise
        assert position is not None
        self._check_heard(client, room.name, position, asked)
        self.said.append(Said(room.name, position, text, key, None, event, client))

    async def _emit(self, room: Room, event: str, text: str, key: str | None) -> Position | None:
        # It goes on if nothing waits for it. In the end, all of them are answered.
        return await asyncio.wait_for(self._in_time(240, room.emit(event, text, key=key)), 10)

    async def _repeat(self, client: Client, room: Room, said: Said) -> None:
        """Publish again with the same key: the same, or something else."""
        if said.key is None or said.position.epoch != self._epoch(room.name):
            return
        other = self._random.random() < 0.5
        text = said.text + " or not" if other else said.text
        known = said.position
        try:
            if said.way == "say":
                what = {"room": room.name, "text": text, "key": said.key, "replaces": _pair(said.replaces)}
                position = Position(*await self._in_time(8, client.request("say", what, timeout=8)))
            elif said.client is client:
                answer = await self._emit(room, said.way, text, said.key)
                assert answer is not None
                position = answer
            else:
                return
        except RemoteError as error:
            if error.code != "conflict" or not other:
                raise self._unless_restarted(room.name, known, error) from None
            return
        if position.epoch == known.epoch:
            assert not other, f"{said} was published with another text at {position}"
            assert position == known, f"{said} was repeated, and is at {position}"

    def _link(self, client: Client) -> Any:
        """Return the present connection of a client."""
        return next(dial.link for one, dial in self._cluster._clients.values() if one is client)

    def _check_heard(self, client: Client, room: str, position: Position, asked: tuple[Any, float]) -> None:
        """Check that a client has heard its own publication, if it was in the room all the time.

        Args:
            client: The client.
            room: The room.
            position: The position of the publication.
            asked: The connection on which it was asked for, and when.
        """
        link, at = asked
        now = asyncio.get_running_loop().time()
        if link.withheld or now - at >= Limits().finish_timeout:
            # It has a hole before it, or its node has waited for it in vain.
            return
        membership = client._core.rooms._memberships.get(room)
        # One that has come back may still be reading the history.
        begun = max(self._joined_at.get(room, 0.0), link._watch._began)
        since = now - begun
        lives = (node.app._core.node.rooms._rooms.get(room) for node in self._cluster.nodes)
        if any(live is not None and live.catching for live in lives):
            # Those who are behind get it from the history.
            return
        if not self._hears or membership is None or not membership.member or since < 5:
            return
        seen = membership.place.seen
        if link is self._link(client) and seen is not None and seen.epoch == position.epoch:
            assert seen.offset >= position.offset, f"{self._name} is at {seen} of {room}, not at {position}"

    def _unless_restarted(self, room: str, known: Position, error: RemoteError) -> Exception:
        if error.code == "conflict" and self._epoch(room) == known.epoch:
            return AssertionError(f"{known} of {room} was repeated, and is a conflict: {error}")
        return error

    def _epoch(self, room: str) -> str:
        return self._cluster.broker.engine.top(room).epoch

    def _text(self, *, is_big: bool = False) -> str:
        self._number += 1
        is_big = is_big or self._random.random() < 0.05
        return f"{self._name} {self._number}" + "." * (20_000 if is_big else 0)

    async def _in_time(self, seconds: float, call: Awaitable[T]) -> T:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            return await call
        finally:
            took = loop.time() - begun
            assert took < seconds + LATE, f"{self._name} has waited {took:.1f} s for {call}"


def _pair(position: Position | None) -> list[Any] | None:
    return None if position is None else [position.epoch, position.offset]


async def play(
    cluster: Cluster,
    rooms: list[str],
    *,
    seats: bool,
    hears: bool,
    forgets: bool,
    users: int = 4,
    visits: int = 2,
    steps: int = 7,
) -> None:
    """Let users play, and check what they were told."""
    everybody = [User(cluster, name, rooms, hears=hears) for name in USERS[:users]]
    playing = [asyncio.ensure_future(user.play(visits, steps)) for user in everybody]
    if seats:
        playing += [asyncio.ensure_future(user.sit(4)) for user in everybody[:2]]
    try:
        for each in playing:
            await each
    finally:
        for each in playing:
            each.cancel()
    await cluster.settle()
    for number in range(2):
        # If the broker has forgotten a subscription, that is noticed after the first of the two.
        for name in rooms:
            if name.startswith(("chat:", "board:")):
                node = cluster.nodes[0]
                await node.run(node.app.room(name).emit("probed", f"probe {number} of {name}"))
        await asyncio.sleep((45, 5)[number])
    for user in everybody:
        for room, follower, _ in user.followed:
            if follower.ended is None and room.startswith(("chat:", "board:")):
                last = follower.publications[-1:]
                is_there = [one.event for one in last] == ["probed"]
                assert is_there, f"{follower.who} has no probe in {room}: {last}"
    check_said(cluster, everybody)
    # After its restart, the store knows no homes: for a while, two nodes may have the same room.
    check_followed(cluster, everybody, with_homes=not forgets)


def check_said(cluster: Cluster, users: list[User]) -> None:
    """Check that what was acknowledged is there, and once."""
    published = {room: cluster.stored(room) for room in ROOMS}
    stored = {(room, one.position): one.data for room, all in published.items() for one in all}
    for user in users:
        for room, position, text, *_ in user.said:
            found = stored.get((room, position))
            assert found == text, (
                f"somebody was told that {room} has {text!r} at {position}, and not {found!r}"
            )
    # What a restarted broker had kept is there in each of its epochs.
    counts = Counter((room, one.data, one.position.epoch) for (room, all) in published.items() for one in all)
    for user in users:
        for text in user.once:
            twice = [where for where, count in counts.items() if where[1] == text and count > 1]
            assert not twice, f"{text!r} was published twice: {twice}"


def check_followed(cluster: Cluster, users: list[User], *, with_homes: bool) -> None:
    """Check that a snapshot, and what was published after it, is the state of a room."""
    for user in users:
        for room, follower, before in user.followed:
            if room.startswith("board:"):
                check_board(cluster, room, follower, before)
            elif room.startswith("pad:") and with_homes:
                check_pad(room, follower)


def check_board(cluster: Cluster, room: str, follower: Follower, before: tuple[Follower, ...]) -> None:
    """A snapshot that is read before may have what comes later, too. Nothing may be missing."""
    marks: set[str] = set()
    for publication in chain.from_iterable(one.publications for one in (*before, follower)):
        if publication.event == "snapshot":
            marks = set(publication.data)
        else:
            marks.add(publication.data)
    if follower.ended is None:
        marked = [one.data for one in cluster.stored(room) if one.event == "marked"]
        missing = [data for data in marked if data not in marks]
        assert not missing, f"{follower.who} has no {missing} in {room}"


def check_pad(room: str, follower: Follower) -> None:
    """A snapshot that is taken in the step of the join has nothing of what comes later."""
    strokes: list[str] | None = None
    for publication in follower.publications:
        if publication.event == "snapshot":
            strokes = list(publication.data)
        else:
            assert strokes is not None, f"{follower.who} has {publication} of {room}, and no snapshot"
            number, text = publication.data
            assert number == len(strokes) + 1, f"{follower.who} has {publication} of {room} after {strokes}"
            strokes.append(text)
