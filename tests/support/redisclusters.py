"""Real clusters of Redis and Valkey servers for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.redisservers import RedisServer

__all__ = ("Node", "RedisCluster")

# The ports of their bus are 10,000 higher, and below those of outgoing connections.
_PORTS = range(11_000, 22_000)
_SLOTS = 16_384


class Node(NamedTuple):
    """What a server knows of another one.

    Attributes:
        id: Its name in the cluster.
        server: Its process.
        is_master: Whether it is a master that has not failed.
        slots: The slots that it has.
        link: Whether they are connected.
    """

    id: str
    server: RedisServer
    is_master: bool
    slots: frozenset[int]
    link: bool


class RedisCluster:
    """Three masters, and replicas of each.

    Args:
        folder: The working directories are in it.
        binary: The path of the program.
        replicas: How many replicas each master has.
        node_timeout: After how many milliseconds without a sign a server has failed.
        clock: Whether the clocks can be put forward. A server of a cluster that sees a clock leap
            thinks that the others have failed, unless *node_timeout* is longer.
    """

    def __init__(
        self, folder: Path, binary: str, *, replicas: int = 1, node_timeout: int = 2000, clock: bool = False
    ) -> None:
        self.servers: list[RedisServer] = []
        self._replicas = replicas
        for number in range(3 * (1 + replicas)):
            own = folder / str(number)
            own.mkdir()
            self.servers.append(
                RedisServer(
                    own,
                    binary,
                    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout)),
                    # A replica takes over however long its master has been away.
                    *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
                    # Not so few that a replica that was stopped begins anew.
                    *("--repl-backlog-size", "64mb"),
                    clock=clock,
                    ports=_PORTS,
                )
            )

    @property
    def url(self) -> str:
        """Its URL as a broker."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:3])

    def start(self) -> None:
        """Start all servers; return when the cluster is up."""
        for number, server in enumerate(self.servers):
            server.start()
            server.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for number, server in enumerate(self.servers[:3]):
            first, last = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            server.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for server in self.servers[1:]:
            server.command("CLUSTER", "MEET", "127.0.0.1", str(self.servers[0].port))
        self._until(lambda: all(len(self.nodes(server)) == len(self.servers) for server in self.servers))
        for number, server in enumerate(self.servers[3:]):
            server.command("CLUSTER", "REPLICATE", self.id_of(self.servers[number % 3]))
        self.settle()

    def settle(self) -> None:
        """Return when all servers agree who has what, and each master has its replicas."""
        self._until(lambda: len(set(map(self._view, self.servers))) == 1)
        self._until(
            lambda: all("cluster_state:ok" in server.command("CLUSTER", "INFO") for server in self.servers)
        )
        self._until(
            lambda: all(f"connected_slaves:{self._replicas}" in self._info(each) for each in self.masters())
        )
        self._until(lambda: all(self._is_ready(server) for server in self.servers))

    def kill(self) -> None:
        """Kill all servers."""
        for server in self.servers:
            server.kill()

    def advance(self, seconds: float) -> None:
        """Put all clocks forward."""
        for server in self.servers:
            server.advance(seconds)

    def command(self, *arguments: str) -> None:
        """Run a command in each server."""
        for server in self.servers:
            server.command(*arguments)

    def nodes(self, server: RedisServer) -> list[Node]:
        """Return what a server knows."""
        by_port = {each.port: each for each in self.servers}
        found: list[Node] = []
        for line in server.command("CLUSTER", "NODES").split("\r\n", 1)[1].strip().splitlines():
            id, address, flags, _, _, _, _, link, *ranges = line.split(" ")
            port = int(address.split("@")[0].rsplit(":", 1)[1])
            slots: set[int] = set()
            for part in ranges:
                if not part.startswith("["):
                    first, _, last = part.partition("-")
                    slots |= set(range(int(first), int(last or first) + 1))
            is_master = "master" in flags and "fail" not in flags
            found.append(Node(id, by_port[port], is_master, frozenset(slots), link == "connected"))
        return found

    def id_of(self, server: RedisServer) -> str:
        """Return the name of a server in the cluster."""
        return server.command("CLUSTER", "MYID").split("\r\n")[1]

    def masters(self) -> list[RedisServer]:
        """Return the servers that have slots."""
        living = next(server for server in self.servers if server.is_running)
        return [node.server for node in self.nodes(living) if node.is_master and node.slots]

    def master_of(self, slot: int) -> RedisServer:
        """Return the server that has a slot."""
        living = next(server for server in self.servers if server.is_running)
        return next(node.server for node in self.nodes(living) if slot in node.slots)

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return a replica of a server."""
        port = f"master_port:{master.port}\r"
        return next(server for server in self.servers if server is not master and port in self._info(server))

    def begin_move(self, slot: int, to: RedisServer) -> None:
        """Begin to move a slot key by key."""
        source = self.master_of(slot)
        to.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id_of(source))
        source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id_of(to))

    def move_keys(self, slot: int, source: RedisServer, to: RedisServer) -> None:
        """Move all keys of a slot, one after the other."""
        while True:
            answer = source.command("CLUSTER", "GETKEYSINSLOT", str(slot), "1")
            if answer.startswith("*0"):
                return
            key = answer.split("\r\n")[2]
            moved = source.command("MIGRATE", "127.0.0.1", str(to.port), key, "0", "5000")
            assert moved.startswith(("+OK", "+NOKEY")), moved

    def end_move(self, slot: int, source: RedisServer, to: RedisServer) -> None:
        """Hand a slot over whose keys were moved."""
        for server in (to, source):
            answer = server.command("CLUSTER", "SETSLOT", str(slot), "NODE", self.id_of(to))
            assert answer.startswith("+OK"), answer

    def move(self, slot: int, to: RedisServer) -> None:
        """Move a slot key by key."""
        source = self.master_of(slot)
        self.begin_move(slot, to)
        self.move_keys(slot, source, to)
        self.end_move(slot, source, to)

    def _view(self, server: RedisServer) -> object:
        return frozenset(
            (node.id, node.is_master, node.slots, node.link) for node in self.nodes(server) if node.link
        )

    def _info(self, server: RedisServer) -> str:
        return server.command("INFO", "replication")

    def _is_ready(self, server: RedisServer) -> bool:
        info = self._info(server)
        return "role:master" in info or "master_link_status:up" in info

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(
                    "\n\n".join(s.command("CLUSTER", "NODES") for s in self.servers if s.is_running)
                )
            time.sleep(0.02)
