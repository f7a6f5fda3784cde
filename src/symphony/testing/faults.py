"""What goes wrong in a simulated cluster, at random times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from symphony.errors import SymphonyError
from symphony.testing.network import Disturbances

if TYPE_CHECKING:
    from symphony.testing.cluster import Cluster
    from symphony.testing.clusternodes import ClusterNode, World
    from symphony.testing.dialing import ClientLink

__all__ = ("FAULTS", "Fault", "Faults")

Fault: TypeAlias = Literal[
    "cut",
    "isolate",
    "kill",
    "pause",
    "drop",
    "fail",
    "slow",
    "outage",
    "restart",
    "rollback",
    "wipe",
    "deaf",
    "disturb",
    "storm",
    "again",
    "misdeliver",
]
"""What can go wrong.

- `cut`: a node loses its link to the broker, and connects again.
- `isolate`: a node cannot reach the broker for a while.
- `kill`: a node is killed, and another one starts.
- `pause`: a node is stopped for a while, sometimes for longer than its leases.
- `drop`: a client loses its connection, and comes back to another node.
- `fail`: the same, but the node notices it only after 20 seconds.
- `slow`: a client does not read for a while.
- `outage`: the broker is stopped for a while.
- `restart`: the broker restarts. It has all publications, and knows no members.
- `rollback`: the broker restarts, and has lost the last publications.
- `wipe`: the broker restarts, and has lost its memory.
- `deaf`: the broker forgets that a node has subscribed to a room.
- `disturb`: messages of the broker are lost, repeated or late, and so are its answers.
- `storm`: for some seconds, many of them are, and clients lose their connections meanwhile. In the
  middle of that, the broker may restart, also twice.
- `again`: the presence store carries out some calls once more, a little later.
- `misdeliver`: a client gets a publication twice, or not at all, as from a node with a fault.
"""

FAULTS: Final[tuple[Fault, ...]] = (
    "cut",
    "isolate",
    "kill",
    "pause",
    "drop",
    "fail",
    "slow",
    "outage",
    "restart",
    "rollback",
    "wipe",
    "deaf",
    "disturb",
    "storm",
    "again",
    "misdeliver",
)

# Leases end after 30 s.
_SHORT: Final = (0.1, 8.0)
_LONG: Final = (28.0, 55.0)
_RARE: Final = ("outage", "deaf", "restart", "rollback", "wipe")
_STORM: Final = (0.5, 4.0)


class Faults:
    """Lets something go wrong in a cluster now and then.

    Args:
        cluster: The cluster.
        world: What it consists of.
        client_of: Returns the name of the client with a connection.
        kinds: What may go wrong.
        pause: How many seconds there are between two faults, on average.
    """

    def __init__(
        self,
        cluster: Cluster,
        world: World,
        client_of: Callable[[ClientLink], str],
        kinds: Collection[Fault],
        pause: float,
    ) -> None:
        self._cluster = cluster
        self._world = world
        self._client_of = client_of
        self._random = Random(f"faults of {cluster.seed}")
        self._pause = pause
        actions: dict[Fault, Callable[[], object]] = {
            "cut": self._cut,
            "isolate": self._isolate,
            "kill": self._kill,
            "pause": self._stop,
            "drop": self._drop,
            "fail": self._fail,
            "slow": self._slow,
            "outage": self._outage,
            "restart": lambda: self._restart("all"),
            "rollback": lambda: self._restart("older"),
            "wipe": lambda: self._restart("nothing"),
            "deaf": lambda: cluster.broker.forget(self._random),
            "storm": self._storm,
            "misdeliver": self._misdeliver,
        }
        self._actions = [action for kind, action in actions.items() if kind in kinds]
        self._weights = [1 if kind in _RARE else 4 for kind in actions if kind in kinds]
        self._starting: set[asyncio.Task[Any]] = set()
        self._until = 0.0
        self._context = copy_context()
        self._has_ended = False
        self._storms, self._drops = "storm" in kinds, "drop" in kinds
        again = 0.2 if "again" in kinds else 0.0
        self._usual = Disturbances(again=again)
        if "disturb" in kinds:
            self._usual = Disturbances(
                lost=0.05, repeated=0.05, late=0.05, slow=0.02, unanswered=0.02, again=again
            )
        self._stormy = Disturbances(lost=0.4, repeated=0.2, late=0.3, slow=0.2, unanswered=0.1, again=again)
        world.network.disturbances = self._usual

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while self._actions:
            await asyncio.sleep(self._random.uniform(0.0, 2 * self._pause))
            (action,) = self._random.choices(self._actions, self._weights)
            if self._random.random() < 0.5:
                action()
            else:
                self._aim(action)

    def _aim(self, action: Callable[[], object]) -> None:
        """Let something go wrong right after the next publication, when it is under way."""
        # It happens once, and without a publication, too.
        pending = [action]

        def act() -> None:
            if pending and not self._has_ended:
                pending.pop()()

        self._world.publications.after_next.append(lambda: self._in(self._random.uniform(0.0, 0.02), act))
        self._in(2.0, act)

    def _later(self, action: Callable[[], object], *, long: float = 0.2) -> None:
        """Do something after a while, how likely it is that this is *long*."""
        self._in(self._random.uniform(*(_LONG if self._random.random() < long else _SHORT)), action)

    def _in(self, seconds: float, action: Callable[[], object]) -> None:
        # In no process: one that is stopped would not be continued by itself.
        timer = asyncio.get_running_loop().call_later(seconds, action, context=self._context)
        self._until = max(self._until, timer.when())

    def _node(self, *, spared: int = 0) -> ClusterNode | None:
        """Return a node that runs; `None` if there are not more than those to be *spared*."""
        nodes = [node for node in self._cluster.nodes if not node.is_paused]
        return self._random.choice(nodes) if len(nodes) > spared else None

    def _cut(self) -> None:
        if (node := self._node()) is not None:
            node.cut()

    def _isolate(self) -> None:
        if (node := self._node()) is not None:
            node.isolate()
            self._later(node.rejoin, long=0.5)

    def _kill(self) -> None:
        if (node := self._node(spared=1)) is not None:
            node.kill()
            self._start(self._start_another())

    def _stop(self) -> None:
        if (node := self._node(spared=1)) is not None:
            node.pause()
            self._later(node.resume, long=0.5)

    def _link(self, action: str) -> Any:
        links = [link for node in self._cluster.nodes for link in node.links if link.accepted]
        if not links:
            return None
        link = self._random.choice(links)
        self._cluster.note(f"{self._client_of(link)} {action}")
        return link

    def _drop(self) -> None:
        if (link := self._link("loses its connection")) is not None:
            link.cut()

    def _fail(self) -> None:
        if (link := self._link("loses its connection, and the node does not notice it")) is not None:
            link.fail()

    def _slow(self) -> None:
        if (link := self._link("does not read")) is not None:
            link.reads = False
            self._world.publications.stop(link)
            self._later(lambda: self._reads_again(link))

    def _reads_again(self, link: ClientLink) -> None:
        link.read_again()
        self._world.publications.go_on(link)

    def _storm(self) -> None:
        """Disturb many messages for a while."""
        network = self._world.network
        if network.disturbances is self._stormy:
            return
        self._cluster.note("many messages are lost or late")
        network.disturbances = self._stormy
        self._world.publications.stop(self)
        takes = self._random.uniform(*_STORM)
        self._in(takes, self._calm)
        if self._drops:
            for _ in range(self._random.randint(0, 4)):
                self._in(self._random.uniform(0.0, takes), self._drop)

    def _calm(self) -> None:
        self._world.publications.go_on(self)
        if self._world.network.disturbances is self._stormy:
            self._cluster.note("messages arrive as usual")
            self._world.network.disturbances = self._usual

    def _restart(self, keeps: Literal["nothing", "older", "all"]) -> None:
        """Restart the broker, also when much is under way, and when nodes have just come back."""
        at = 0.0
        if self._storms and self._random.random() < 0.7:
            self._storm()
            at = self._random.uniform(0.2, 1.5)
        for _ in range(2 if self._random.random() < 0.3 else 1):
            self._in(at, lambda: self._cluster.broker.restart(keeps=keeps))
            at += self._random.uniform(0.0, 3.0)

    def _misdeliver(self) -> None:
        how: Literal["twice", "never"] = "twice" if self._random.random() < 0.5 else "never"
        if (link := self._link(f"gets the next publication {how}")) is not None:
            link.misdelivers = how

    def _outage(self) -> None:
        broker = self._cluster.broker
        if broker.host.stopped is None:
            broker.pause()
            self._later(broker.resume)

    async def _start_another(self) -> None:
        """Start a node, as often as the broker is out of reach."""
        while True:
            try:
                await self._cluster.start_node()
                return
            except SymphonyError:
                await asyncio.sleep(1)

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def end(self) -> None:
        """Wait for the nodes that are starting, and sometimes until what is stopped goes on."""
        self._has_ended = True
        left = self._until - asyncio.get_running_loop().time()
        if left > 0 and self._random.random() < 0.5:
            await asyncio.sleep(left)
        if self._starting:
            await asyncio.wait(self._starting)
