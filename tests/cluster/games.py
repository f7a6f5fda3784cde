"""An app with rooms of all kinds, and what its users do in a cluster where things go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from symphony import DisconnectedError, History, Identity, RemoteError, Room, Socket, Symphony
from symphony.client.client import Client
from symphony.errors import SymphonyError
from symphony.testing import Cluster

ROOMS = ("chat:a", "chat:b", "club:a", "game:a")
USERS = ("ann", "bob", "cleo", "dan", "eve")


def make_app() -> Symphony:
    app = Symphony()
    app.rooms("chat:{name}", history=History(size=15, ttl=120), client_join=True)
    app.rooms("club:{name}", presence=True, max_members=3, grace=8, client_join=True)
    games = app.rooms("game:{name}", state=dict, grace=4, client_join=True)
    play = app.route("/play", events=True)

    @play.on_connect
    async def enter(socket: Socket) -> None:
        token = socket.handshake.token
        if token:
            socket.login(Identity(token))

    @play.on("say")
    async def say(data: dict[str, Any]) -> list[Any]:
        position = await app.room(data["room"]).emit("said", data["text"])
        assert position is not None
        return [position.epoch, position.offset]

    @games.every(1.0)
    async def tick(room: Room[dict[str, int]]) -> None:
        room.state["ticks"] = room.state.get("ticks", 0) + 1

    return app


class User:
    """A user who joins rooms, says something, leaves, and comes back.

    Attributes:
        acknowledged: What was answered: the room, the position and what was said.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.acknowledged: list[tuple[str, tuple[str, int], str]] = []
        self._cluster = cluster
        self._name = name
        self._said = 0

    async def play(self, visits: int, steps: int) -> None:
        random = self._cluster.random
        for visit in range(visits):
            token = self._name if random.random() < 0.8 else None
            protocol = "msgpack" if random.random() < 0.5 else "json"
            name = f"{self._name}{visit}"
            try:
                client = await self._cluster.connect("/play", name=name, token=token, protocol=protocol)
            except DisconnectedError as error:
                self._cluster.note(f"{name} gives up: {error}")
                continue
            rooms: dict[str, Any] = {}
            for _ in range(steps):
                await asyncio.sleep(random.uniform(0.0, 2.0))
                await self._step(client, rooms)
            if visit + 1 < visits:
                await client.close()
                await asyncio.sleep(random.uniform(0.0, 10.0))

    async def _step(self, client: Client, rooms: dict[str, Any]) -> None:
        random = self._cluster.random
        room = random.choice(ROOMS)
        step = random.random()
        try:
            if room not in rooms or rooms[room].ended is not None:
                since = "start" if random.random() < 0.3 else None
                rooms[room] = await client.join(room, since=since)
                self._cluster.follow(client, rooms[room])
            elif step < 0.08:
                await rooms.pop(room).leave()
            elif room.startswith("chat:"):
                await self._say(client, room)
        except (SymphonyError, TimeoutError) as error:
            self._cluster.note(f"{self._name} has failed in {room}: {type(error).__name__}: {error}")

    async def _say(self, client: Client, room: str) -> None:
        self._said += 1
        key = text = f"{self._name} {self._said}"
        if self._cluster.random.random() < 0.1:
            text += "." * 20_000
        for _ in range(4):
            try:
                said = {"room": room, "text": text, "key": key}
                epoch, offset = await client.request("say", said, timeout=8)
            except RemoteError as error:
                if not error.retryable:
                    raise
            except SymphonyError:
                pass
            else:
                self.acknowledged.append((room, (epoch, offset), text))
                return
            await asyncio.sleep(1)


async def play(cluster: Cluster, *, users: int = 4, visits: int = 2, steps: int = 9) -> None:
    """Let users play, and check what was acknowledged to them."""
    everybody = [User(cluster, name) for name in USERS[:users]]
    playing = [asyncio.ensure_future(user.play(visits, steps)) for user in everybody]
    try:
        for each in playing:
            await each
    finally:
        for each in playing:
            each.cancel()
    for user in everybody:
        for room, position, text in user.acknowledged:
            stored = {(one.position.epoch, one.position.offset): one.data for one in cluster.stored(room)}
            assert stored.get(position) == text, f"somebody was told that {room} has {text!r} at {position}"
