"""The nodes and the broker of a simulated cluster."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from random import Random
from typing import Any, Final, Literal

from symphony.app import Symphony
from symphony.broker.presencehub import serve_presence
from symphony.broker.presencetable import PresenceTable
from symphony.limits import Limits
from symphony.node.asgi import MEMORY
from symphony.node.brokers import DIAL
from symphony.testing.dialing import Server
from symphony.testing.memberpromises import MemberPromises
from symphony.testing.network import Network
from symphony.testing.promises import Engine, Publications, Trace
from symphony.testing.simulation import Host, SimulatedLoop
from symphony.testing.watching import WatchedHub

__all__ = ("ClusterBroker", "ClusterNode", "World")

# Handlers would be interrupted after so much real time, which differs from run to run.
_UNLIMITED: Final = 10.0**6


class World:
    """What the parts of one simulated cluster share.

    Args:
        loop: The event loop.
        seed: Decides about all that is random.

    Attributes:
        trace: What has happened.
        publications: What the broker has accepted, in all of its lives.
        members: Checks what is promised about members.
        network: Connects the nodes with the broker.
        nodes: The nodes that were not killed.
        killed: Those that were. They must not be freed before the end: that would run their
            `finally` blocks.
        broker: The broker.
    """

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.trace = Trace(loop)
        self.publications = Publications(self.trace)
        self.members = MemberPromises(
            self.trace, lambda: self.broker.table, loop.time, self.publications.members_changed
        )
        random = Random(f"network of {seed}")
        self.network = Network(
            loop, random, lambda: self.broker.host, lambda link: self.broker.hub.attach(link)
        )
        self.nodes: list[ClusterNode] = []
        self.killed: list[ClusterNode] = []
        self.broker = ClusterBroker(self)


class ClusterNode(Server):
    """One node of a world.

    Attributes:
        name: Its name.
        app: The app that it runs.
        is_alive: Whether it was not killed.
    """

    def __init__(self, world: World, name: str, app: Symphony) -> None:
        super().__init__(Host(name), app)
        self.name = name
        self.app: Symphony = app
        self.is_alive = True
        self._world = world
        self._phases: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._life: asyncio.Task[None] | None = None
        app.limits = replace(app.limits, max_turn_time=_UNLIMITED, blocking_warning=_UNLIMITED)

    @property
    def is_paused(self) -> bool:
        """Whether its process is stopped."""
        return self.host.stopped is not None

    def kill(self) -> None:
        """End its process at once: nothing of it runs any more."""
        if self.is_alive:
            self._world.trace.note(f"{self.name} is killed")
            self.is_alive = self.accepts = False
            self._world.loop.stop_host(self.host)
            self._world.network.cut(self.host)
            self._world.nodes.remove(self)
            self._world.killed.append(self)
            for link in tuple(self.links):
                link.lose_server()

    def pause(self) -> None:
        """Stop its process. What is sent to it waits."""
        self._world.trace.note(f"{self.name} is paused")
        self._world.publications.stop(self.host)
        self._world.loop.stop_host(self.host)

    def resume(self) -> None:
        """Continue its process."""
        if self.is_alive and self.is_paused:
            self._world.trace.note(f"{self.name} goes on")
            self._world.loop.continue_host(self.host)
            self._world.publications.go_on(self.host)

    def cut(self) -> None:
        """End its link to the broker. It connects again."""
        self._world.trace.note(f"the link of {self.name} is cut")
        self._world.network.cut(self.host)

    def isolate(self) -> None:
        """End its link to the broker, and let it make no other one."""
        self._world.trace.note(f"{self.name} cannot reach the broker")
        self._world.publications.stop(self)
        self._world.network.cut_off[self.host] = None
        self._world.network.cut(self.host)

    def rejoin(self) -> None:
        """Let it reach the broker again."""
        if self._world.network.cut_off.pop(self.host, self) is not self:
            self._world.trace.note(f"{self.name} can reach the broker")
            self._world.publications.go_on(self)

    def run(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine in this node, such as `node.app.room("chat:a").emit("said", 1)`."""

        async def running() -> Any:
            return await work

        return asyncio.Task(running(), loop=self._world.loop, context=self.host.context.copy())

    async def start(self) -> None:
        """Start the app; used by `Cluster`."""
        self.host.context.run(DIAL.set, self._world.network.dial_of(self.host))
        started = asyncio.Event()

        async def send(event: Any) -> None:
            if event["type"] == "lifespan.startup.complete":
                started.set()

        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "extensions": {MEMORY: {}}}
        self._phases.put_nowait({"type": "lifespan.startup"})

        async def live() -> None:
            await self.app(scope, self._phases.get, send)

        self._life = life = asyncio.Task(live(), loop=self._world.loop, context=self.host.context.copy())
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait((life, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if life.done():
            life.result()

    async def stop(self) -> None:
        """Stop the app in order; used by `Cluster`."""
        if self._life is not None and self.is_alive:
            self._phases.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait((self._life,))
            self._life.result()


class ClusterBroker:
    """The broker of a cluster.

    Attributes:
        engine: Keeps the publications.
        table: Keeps the members.
        hub: Serves both to the nodes.
        host: Its process.
        lives: How often it has started.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.lives = 1
        self.host = Host("broker1")
        self.engine, self.hub, self.table = self.host.context.run(self._make)

    def restart(self, *, keeps: Literal["nothing", "older", "all"] = "nothing") -> None:
        """End its process, and start another one. It knows no members.

        Args:
            keeps: The publications that it has then: none, as a broker in memory; all, as one
                with a file; or those of a file that is *older*, without the last ones.
        """
        words = {"nothing": "has lost its memory", "older": "has lost the last", "all": "has its file"}
        self._world.trace.note(f"the broker restarts, and {words[keeps]}")
        host, hub, earlier = self.host, self.hub, self.engine
        self.lives += 1
        self.host = Host(f"broker{self.lives}")
        self.engine, self.hub, self.table = self.host.context.run(self._make)
        if keeps != "nothing":
            random = self._world.network.random

            def back(most: int) -> int:
                return random.randint(0, most)

            self.host.context.run(self.engine.take_over, earlier, None if keeps == "all" else back)
        self._end(host, hub, earlier)
        self._world.members.wiped(
            [
                connection
                for node in self._world.nodes
                for live in node.app._core.node.rooms._rooms.values()  # pyright: ignore
                if live.attendance is not None
                for connection in live.attendance.connections
            ]
        )

    def pause(self) -> None:
        """Stop its process: it is out of reach."""
        self._world.trace.note("the broker is paused")
        self._world.publications.stop(self)
        self._world.loop.stop_host(self.host)

    def resume(self) -> None:
        """Continue its process."""
        if self.host.stopped is not None:
            self._world.trace.note("the broker goes on")
            self._world.loop.continue_host(self.host)
            self._world.publications.go_on(self)

    def forget(self, random: Random) -> None:
        """Forget one subscription, without a word to its node."""
        subscribed = [(room, port) for room, ports in self.hub._rooms.items() for port in ports]  # pyright: ignore
        if subscribed:
            room, port = random.choice(subscribed)
            self._world.trace.note(f"the broker forgets a subscription to {room}")
            # Its node finds out when it has missed something.
            self._world.publications.stop((port, room))
            self.hub._unsubscribe(port, room)  # pyright: ignore

    def close(self) -> None:
        """End it with the cluster."""
        self._end(self.host, self.hub, self.engine)

    def _make(self) -> tuple[Engine, WatchedHub, PresenceTable]:
        world = self._world
        engine = Engine(
            max_bytes=Limits().max_history_bytes,
            publications=world.publications,
            new_epoch=lambda: secrets.token_urlsafe(6),
        )
        hub = WatchedHub(
            engine,
            life=secrets.token_urlsafe(9),
            promises=world.members,
            again=lambda: world.network.disturbances.again,
            random=world.network.random,
        )
        table = serve_presence(hub, clock=world.loop.time, new_id=lambda: secrets.token_urlsafe(9))
        return engine, hub, table

    def _end(self, host: Host, hub: WatchedHub, engine: Engine) -> None:
        self._world.loop.continue_host(host)
        self._world.network.cut_all()
        hub.close()
        engine.close()
