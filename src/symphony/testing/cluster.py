"""Several nodes of an app in one process, on one broker, with a simulated network and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import Any, Final, Literal

from symphony.app import Symphony
from symphony.client.client import Client
from symphony.client.options import Options, Token
from symphony.client.room import Room
from symphony.testing.client import scope_of
from symphony.testing.clusternodes import ClusterBroker, ClusterNode, World
from symphony.testing.dialing import ClientDial, ClientLink
from symphony.testing.faults import FAULTS, Fault, Faults
from symphony.testing.finalchecks import (
    check_agreement,
    check_calls,
    check_home,
    check_leftovers,
    check_vacated,
    topics_of,
)
from symphony.testing.followers import Follower
from symphony.testing.network import CALM
from symphony.testing.promises import BrokenPromiseError, Stored
from symphony.testing.simulation import SimulatedLoop, simulated
from symphony.testing.watching import Hooks
from symphony.testing.wirepromises import Wire

__all__ = ("Cluster",)

Scenario = Callable[["Cluster"], Awaitable[None]]

# How long a cluster has until everything is as it should be: leases, grace periods and reaps.
_SETTLING: Final = 110.0
# How long until what was done last has arrived everywhere.
_LAST: Final = 5.0
# How long until nothing is left of those that have gone.
_FORGETTING: Final = 60.0
# How long until the homes of rooms are given up that nobody is in, long before their leases end.
_VACATING: Final = 12.0
# How many lines of the trace a failed scenario shows.
_SHOWN: Final = 80
# Faults after which each hook runs once.
_HARMLESS: Final = frozenset(("drop", "slow", "disturb", "storm", "again", "misdeliver"))
# How often it is looked for calls that are not answered.
_LOOKS: Final = 3.0
# In so many seconds, a client hears of a publication: its node may have to connect again. It takes
# longer if answers are lost.
_PROMPT: Final = 4.0
_LATE: Final = 20.0


class Cluster:
    """Runs several nodes of an app on one broker, in one process.

    The nodes, their broker and the clients are real: only the network, the time and the
    random numbers are simulated. One seed always does the same.

    Args:
        make_app: Makes the app of one node. It is called for each.
        nodes: How many nodes there are.
        seed: Decides about all that is random.
        faults: What may go wrong while the scenario runs; see `Fault`.
        pause: How many seconds there are between two faults, on average.

    Attributes:
        seed: The seed.
        random: Random numbers for the scenario.
    """

    def __init__(
        self,
        make_app: Callable[[], Symphony],
        *,
        nodes: int = 2,
        seed: int = 0,
        faults: Collection[Fault] = (),
        pause: float = 2.0,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"A cluster has at least one node, not {nodes}.")
        if unknown := [kind for kind in faults if kind not in FAULTS]:
            raise ValueError(f"{unknown[0]!r} is not a fault. These are: {', '.join(FAULTS)}.")
        self._kinds = tuple(faults)
        self._pause = pause
        self.seed = seed
        self.random = Random(f"scenario of {seed}")
        self._make_app = make_app
        self._size = nodes
        self._number = 0
        self._clients: dict[str, tuple[Client, ClientDial]] = {}
        self._followers: list[Follower] = []
        self._topics: dict[str, list[str]] = {}
        self._world: World | None = None
        self._is_settled = False

    @property
    def _running(self) -> World:
        """What the cluster consists of, while a scenario runs and after it.

        Raises:
            RuntimeError: No scenario was run yet.
        """
        if self._world is None:
            raise RuntimeError("The cluster does not run. Use it in the scenario that you pass to run().")
        return self._world

    @property
    def nodes(self) -> list[ClusterNode]:
        """The nodes that were not killed."""
        return self._running.nodes

    @property
    def broker(self) -> ClusterBroker:
        """The broker."""
        return self._running.broker

    @property
    def trace(self) -> list[str]:
        """What has happened, line by line."""
        return self._running.trace.lines

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        self._running.trace.note(line)

    def run(self, scenario: Scenario) -> None:
        """Run a scenario, let everything settle, and check what Symphony promises.

        Raises:
            BrokenPromiseError: A promise was broken. It names the seed, and what happened.
            Exception: What the scenario has raised, with a note of the same.
            RuntimeError: It is called in a running event loop.
        """
        if asyncio._get_running_loop() is not None:  # pyright: ignore[reportPrivateUsage]
            raise RuntimeError("A cluster has its own event loop: call run() in a test without `async`.")
        simulated(self.seed, lambda loop: self._run(loop, scenario))

    async def start_node(self) -> ClusterNode:
        """Start one more node.

        Raises:
            SymphonyError: The broker cannot be reached.
        """
        self._number += 1
        node = ClusterNode(self._running, f"node{self._number}", self._make_app())
        self.note(f"{node.name} starts")
        await node.start()
        self._hooks.watch(node.app, node.name)
        self._topics[node.name] = topics_of(node)
        self.nodes.append(node)
        return node

    async def connect(
        self,
        path: str,
        *,
        name: str | None = None,
        token: Token = None,
        protocol: Literal["json", "msgpack"] = "json",
    ) -> Client:
        """Connect a client, as `symphony.connect` does, to a random node.

        Each time that it reconnects, it takes another one.

        Args:
            path: The path, with an optional query string.
            name: Its name in the trace.
            token: The token that the app reads from `handshake.token`.
            protocol: The encoding of events.
        """
        name = name or f"client{len(self._clients) + 1}"
        random = Random(f"network of {name} of {self.seed}")

        def choose() -> ClusterNode | None:
            able = [node for node in self.nodes if node.accepts]
            return random.choice(able) if able else None

        def scope(offered: Sequence[str], headers: Any) -> Any:
            return scope_of(path, offered, {name.lower(): value for name, value in headers.items()})

        world = self._running
        dial = ClientDial(
            path,
            choose,
            scope,
            random,
            lambda line: self.note(f"{name} {line}"),
            lambda: Wire(name, world.publications, world.trace),
        )
        client = Client(dial, Options(token=token, protocol=protocol))
        self._clients[name] = client, dial
        await client
        return client

    def follow(self, client: Client, room: Room) -> Follower:
        """Take all publications of a room, and check them; call it before the next `await` after the join.

        Args:
            client: The client.
            room: What `client.join` has returned.
        """
        name = next(name for name, (one, _) in self._clients.items() if one is client)
        follower = Follower(
            name,
            room,
            self._running.publications,
            self._running.trace,
            lambda: self.broker.engine,
            self.nodes[0].app.limits.max_recovery,
        )
        self._followers.append(follower)
        return follower

    def stored(self, room: str) -> list[Stored]:
        """Return all publications that the broker has accepted for a room, in order."""
        return list(self._running.publications.rooms.get(room, {}).values())

    def _client_of(self, link: ClientLink) -> str:
        """Return the name of the client with a connection."""
        return next((name for name, (_, dial) in self._clients.items() if dial.link is link), "a client")

    async def settle(self) -> None:
        """End all faults, and wait until everything is as it should be.

        Without it, the cluster does this when the scenario has ended.
        """
        if self._is_settled:
            return
        self._is_settled = True
        if self._injecting.done():
            self._injecting.result()
        self._injecting.cancel()
        await self._faults.end()
        self._running.network.disturbances = CALM
        self.broker.resume()
        for node in self.nodes:
            node.resume()
            node.rejoin()
        for _, dial in self._clients.values():
            if dial.link is not None:
                dial.link.read_again()
        self.note("there are no more faults")
        await asyncio.sleep(_SETTLING)

    async def _run(self, loop: SimulatedLoop, scenario: Scenario) -> None:
        self._world = world = World(loop, self.seed)
        self._hooks = Hooks(world.trace, lambda node, room: check_home(world, node, room))
        trace = world.trace
        playing = asyncio.ensure_future(self._play(scenario))
        await asyncio.wait((playing, trace.is_broken), return_when=asyncio.FIRST_COMPLETED)
        if trace.broken is not None:
            playing.cancel()
            raise BrokenPromiseError(trace.broken, self.seed, trace.lines)
        try:
            await playing
            if loop.errors:
                raise loop.errors[0]
        except Exception as error:
            last = "\n".join(trace.lines[-_SHOWN:])
            error.add_note(f"This is seed {self.seed}. What happened last:\n{last}")
            raise

    async def _look(self, world: World) -> None:
        while True:
            await asyncio.sleep(_LOOKS)
            check_calls(world)

    async def _play(self, scenario: Scenario) -> None:
        world = self._running
        for _ in range(self._size):
            await self.start_node()
        world.publications.prompt = _LATE if {"disturb", "storm"} & {*self._kinds} else _PROMPT
        self._faults = Faults(self, world, self._client_of, self._kinds, self._pause)
        self._injecting = asyncio.ensure_future(self._faults.run())
        looking = asyncio.ensure_future(self._look(world))
        try:
            await scenario(self)
            await self.settle()
        finally:
            self._injecting.cancel()
            looking.cancel()
        # What the scenario has done after it has settled.
        await asyncio.sleep(_LAST)
        for follower in self._followers:
            follower._check_end()  # pyright: ignore[reportPrivateUsage]
        check_agreement(world, {name: client for name, (client, _) in self._clients.items()})
        for client, _ in self._clients.values():
            await client.close()
        await asyncio.sleep(_VACATING)
        check_vacated(world)
        await asyncio.sleep(_FORGETTING - _VACATING)
        world.members.check_hooks(self._hooks, calm=not set(self._kinds) - _HARMLESS)
        check_leftovers(world, self._topics)
        for node in tuple(self.nodes):
            await node.stop()
        self.broker.close()
        # What was broken last is found in `_run`, which waits for both.
        await asyncio.sleep(0)
