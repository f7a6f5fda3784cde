"""A Redis with replicas and three sentinels, as real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from support.redisservers import RedisServer, redis_binary

__all__ = ("RedisSentinel", "Replicated", "wait_until")

MASTER = "mymaster"


class RedisSentinel(RedisServer):
    """One sentinel, which looks after a server.

    Args:
        folder: Its working directory.
        watched: The port of the master.
        down_after: After how many milliseconds without an answer the master is away.
    """

    def __init__(self, folder: Path, watched: int, down_after: int) -> None:
        folder.mkdir()
        self._file = folder / "sentinel.conf"
        # It writes into this file what it learns.
        self._file.write_text(
            f"sentinel monitor {MASTER} 127.0.0.1 {watched} 2\n"
            f"sentinel down-after-milliseconds {MASTER} {down_after}\n"
            f"sentinel failover-timeout {MASTER} 4000\n"
        )
        super().__init__(folder, redis_binary())

    def arguments(self, port: int) -> tuple[str, ...]:
        """See `RedisServer.arguments`."""
        return (str(self._file), "--sentinel", "--port", str(port), "--bind", "127.0.0.1")


class Replicated:
    """A master, its replicas, and three sentinels.

    Args:
        folder: Their working directory.
        replicas: How many replicas there are.
        down_after: After how many milliseconds without an answer the sentinels replace the
            master; by default, not within a test, even on a busy machine.
        clocks: Whether the clocks of the servers can be put forward.
        options: The options of its URL.
    """

    def __init__(
        self,
        folder: Path,
        replicas: int = 1,
        *,
        down_after: int = 100_000,
        clocks: bool = False,
        options: str = "",
    ) -> None:
        self.servers: list[RedisServer] = []
        for number in range(replicas + 1):
            (folder / f"server{number}").mkdir()
            self.servers.append(RedisServer(folder / f"server{number}", redis_binary(), clock=clocks))
        self.sentinels: list[RedisSentinel] = []
        self._folder = folder
        self._down_after = down_after
        self._options = options

    @property
    def url(self) -> str:
        """Its URL as a broker."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{MASTER}{self._options}"

    @property
    def master(self) -> RedisServer:
        """The server that is the master, as the sentinels say."""
        port = int(self.said(self.sentinels[0])[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        """The first of the other servers."""
        return self._others()[0]

    def start(self) -> None:
        """Start all, and return when a failover is possible."""
        for server in self.servers:
            server.start()
        for server in self.servers[1:]:
            server.command("REPLICAOF", "127.0.0.1", str(self.servers[0].port))
        for number in range(3):
            sentinel = RedisSentinel(
                self._folder / f"sentinel{number}", self.servers[0].port, self._down_after
            )
            sentinel.start()
            self.sentinels.append(sentinel)
        self.wait_until_whole()

    def kill(self) -> None:
        """Kill all."""
        for server in (*self.sentinels, *self.servers):
            server.kill()

    def command(self, *arguments: str) -> str:
        """Run a command in the master; see `RedisServer.command`."""
        return self.master.command(*arguments)

    def advance(self, seconds: float) -> None:
        """Put the clocks of all servers forward."""
        for server in self.servers:
            server.advance(seconds)

    def said(self, sentinel: RedisSentinel) -> tuple[str, str]:
        """Return which master a sentinel names."""
        answer = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split("\r\n")
        return answer[2], answer[4]

    def failover(self) -> None:
        """Ask for a failover, and return when all sentinels name another master."""
        before = self.master
        wait_until(lambda: self.sentinels[0].command("SENTINEL", "FAILOVER", MASTER).startswith("+OK"))
        self.wait_for_another(before)

    def wait_for_another(self, before: RedisServer) -> None:
        """Return when all sentinels name another master."""
        wait_until(lambda: all(self.said(each)[1] != str(before.port) for each in self.sentinels))

    def mend(self) -> None:
        """Make all servers but the master its replicas, and return when they have all data.

        The sentinels do that, too, after ten seconds. A server that was killed is started only now:
        while it is empty and says that it is a master, the sentinels might choose it on a busy machine.
        """
        master = self.master
        for server in self._others():
            if not server.is_running:
                server.start()
            server.command("REPLICAOF", "127.0.0.1", str(master.port))
        self._wait_until_linked()

    def wait_until_whole(self) -> None:
        """Return when all replicas have all data, and all sentinels know each other and them."""
        self._wait_until_linked()
        for sentinel in self.sentinels:
            wait_until(lambda sentinel=sentinel: self._knows_all(sentinel))

    def _others(self) -> list[RedisServer]:
        master = self.master
        return [server for server in self.servers if server is not master]

    def _wait_until_linked(self) -> None:
        for server in self._others():
            wait_until(lambda server=server: "master_link_status:up" in server.command("INFO", "replication"))

    def _knows_all(self, sentinel: RedisSentinel) -> bool:
        answer = sentinel.command("SENTINEL", "MASTER", MASTER).split("\r\n")
        state = dict(zip(answer[2::4], answer[4::4], strict=False))
        answer = sentinel.command("SENTINEL", "REPLICAS", MASTER).split("\r\n")
        # Only a replica whose connection to the master the sentinel has seen is promoted.
        replicas = list(zip(answer, answer[2:], strict=False))
        others = len(self.servers) - 1
        return (
            (state["flags"], state["num-other-sentinels"]) == ("master", "2")
            and replicas.count(("flags", "slave")) == others
            and replicas.count(("master-link-status", "ok")) == others
        )


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds, within 60 seconds."""
    end = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except (OSError, LookupError):
            pass
        assert time.monotonic() < end
        time.sleep(0.02)
