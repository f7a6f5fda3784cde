"""Connects to a Redis server, and checks whether it can be used."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from symphony.broker.redis.target import Target, shown_address
from symphony.errors import ConfigurationError

__all__ = (
    "Connected",
    "Dial",
    "Dialer",
    "OneServer",
    "ReplicaError",
    "Server",
    "Source",
    "connect",
    "connect_to_server",
    "cut",
)

logger = logging.getLogger("symphony.app")

_OLDEST: Final = (7, 0)

_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Connected(Protocol):
    """What is used of a connection of redis-py."""

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = True) -> None:
        """Write commands."""
        ...

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> object:
        """Read an answer, or raise it."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """End the connection."""
        ...


Dial: TypeAlias = "Callable[[], Awaitable[Connected]]"
"""Connects to a server. Raises `OSError` if that fails."""


class ReplicaError(ConnectionError):
    """The server is the replica of another one, and takes no publications."""


class Server(NamedTuple):
    """A server that can be used.

    Attributes:
        connection: A connection to it.
        run: Names this run of its process; empty if it does not tell.
    """

    connection: Connected
    run: str


async def cut(connection: Connected, *, nowait: bool = True) -> None:
    """End a connection. One that is only closed stays until the server has read all, and answered to TLS.

    Args:
        connection: The connection.
        nowait: Whether it ends at once. If not, what was sent is written before, until this is
            cancelled.
    """
    # redis-py does not show it.
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
    try:
        await connection.disconnect(nowait=nowait)
    finally:
        if writer is not None:
            writer.transport.abort()


class Dialer:
    """Connects again and again, with a pause after each connection that was of no use.

    Args:
        dial: Connects to the server.
        timeout: How many seconds one attempt may take.
        random: Returns a number from 0 to 1.
        failed: Called with the error of an attempt; without it, one is logged if it is not the network.

    Attributes:
        why: Why the last attempt has failed.
    """

    def __init__(
        self,
        dial: Dial,
        timeout: float,
        random: Callable[[], float],
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        self.why = "it does not answer"
        self._failed = failed
        self._dial = dial
        self._timeout = timeout
        self._random = random
        self._attempts = 0

    async def connected(self, *, again: bool) -> Connected:
        """Return a connection, once there is one.

        Args:
            again: Whether there was one before. Then a server that cannot be used may be
                one that is being replaced.

        Raises:
            ConfigurationError: The server cannot be used.
        """
        while True:
            if self._attempts:
                pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** (self._attempts - 1))
                await asyncio.sleep(pause * (0.5 + self._random() / 2))
            self._attempts = min(self._attempts + 1, 10)
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._dial()
            except (OSError, TimeoutError) as error:
                self.why = str(error) or "it does not answer"
                if self._failed is not None:
                    self._failed(error)
            except ConfigurationError as error:
                if not again:
                    raise
                if self._failed is not None:
                    self._failed(error)
                else:
                    logger.error("The broker of the rooms cannot be used: %s", error)

    def worked(self) -> None:
        """Note that the connection is of use."""
        self._attempts = 0


class Source(Protocol):
    """Connects to the server of a broker, wherever that is at the time.

    Attributes:
        where: Its URL without secrets.
    """

    where: str

    async def dial(self) -> Connected:
        """Connect to the server.

        Raises:
            OSError: It cannot be reached.
            ConfigurationError: It is there, and cannot be used.
        """
        ...

    def watch(self, *moved: Callable[[], object]) -> None:
        """Look where the server is, from now on.

        Args:
            moved: Called when another server has taken its place, so that all connections to the
                one before end.
        """
        ...

    def close(self) -> None:
        """Stop to look."""
        ...


class OneServer:
    """A server that is always at the same place. See `Source`."""

    def __init__(self, target: Target) -> None:
        self.where = target.shown
        self._target = target

    async def dial(self) -> Connected:
        """See `Source.dial`."""
        return (await connect_to_server(self._target)).connection

    def watch(self, *moved: Callable[[], object]) -> None:
        """See `Source.watch`."""

    def close(self) -> None:
        """See `Source.close`."""


async def connect_to_server(target: Target) -> Server:
    """Connect to a server, and check it.

    Raises:
        ReplicaError: It is a replica.
        OSError: The network has failed.
        ConfigurationError: The server is there, and cannot be used.
    """
    run = ""

    async def check(connection: AbstractConnection) -> None:
        nonlocal run
        run = await _check(connection, target)

    return Server(await connect(target, check), run)


async def connect(
    target: Target, check: Callable[[AbstractConnection], Awaitable[None]] | None = None
) -> Connected:
    """Connect to the first address of a target.

    Args:
        target: The target.
        check: Checks the connection, with its errors.

    Raises:
        OSError: The network has failed.
        ConfigurationError: The server is there, and cannot be used.
    """
    connection = _connection(target)
    try:
        await connection.connect()
        if check is not None:
            await check(connection)
    except BaseException as error:
        await cut(cast("Connected", connection))
        if isinstance(error, AuthenticationError | NoPermissionError):
            raise ConfigurationError(f"The broker {target.shown} refuses this user: {error}") from error
        if isinstance(error, ReplicaError) or not isinstance(error, RedisError | OSError):
            raise
        # The library does not say why by `raise … from`.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ConfigurationError(f"The broker {target.shown}: {cause}") from error
        raise ConnectionError(str(error)) from error
    return cast("Connected", connection)


def _connection(target: Target) -> AbstractConnection:
    # Each call has a timeout of its own. Nothing is repeated here: after a
    # cut, a publication may have been carried out.
    host, port = target.addresses[0]
    options: dict[str, Any] = {
        **target.certificates,
        "host": host,
        "port": port,
        "db": target.database,
        "username": target.username,
        "password": target.password,
        "socket_timeout": None,
        "driver_info": None,
        "protocol": 2,
    }
    return SSLConnection(**options) if target.tls else Connection(**options)


async def _check(connection: AbstractConnection, target: Target) -> str:
    """Check a server; return what names this run of its process."""
    if target.cluster:
        await _check_cluster(connection)
    try:
        server = await _info(connection, "server")
        memory = await _info(connection, "memory")
        replication = await _info(connection, "replication")
    except NoPermissionError:
        logger.warning(
            "The broker %s does not permit INFO to this user. It will not be noticed if the server "
            "loses its last publications.",
            target.shown,
        )
        return ""
    except ResponseError as error:
        raise ConfigurationError(f"The broker {target.shown} does not tell what it is: {error}") from error
    # Valkey has its own version beside the one of Redis that it stands for.
    version = server.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ConfigurationError(f"The broker {target.shown} is Redis {version}. 7.0 or newer is needed.")
    if not target.cluster and "cluster" in (server.get("redis_mode"), server.get("server_mode")):
        scheme = f"{'rediss' if target.tls else 'redis'}+cluster"
        address = shown_address(target.addresses[0])
        raise ConfigurationError(
            f"The broker {target.shown} is a server of a cluster. Write {scheme}://{address}."
        )
    if replication.get("role") == "slave":
        raise ReplicaError(f"The server {target.shown} is a replica, which takes no publications")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory", "0") != "0" and policy != "noeviction":
        if not target.allow_eviction:
            raise ConfigurationError(
                f"The broker {target.shown} may evict publications and members (maxmemory-policy "
                f"{policy}), which would be lost without a sign. Set maxmemory-policy noeviction, or write "
                "?allow_eviction=1 behind the URL if that does not matter."
            )
        logger.warning("The broker %s may evict publications and members (%s).", target.shown, policy)
    if "master_replid" not in replication:
        logger.warning(
            "The broker %s does not tell its master_replid. It will not be noticed if the server loses "
            "its last publications.",
            target.shown,
        )
    return server.get("run_id", "")


async def _check_cluster(connection: AbstractConnection) -> None:
    """See to it that nothing is sent to a server that would refuse it now, and not a moment later.

    Otherwise, later calls could be carried out before earlier ones.
    """
    await connection.send_command("CLUSTER", "INFO", check_health=False)
    state = cast("bytes", await connection.read_response(disable_decoding=True))
    if b"cluster_state:ok" not in state:
        raise ConnectionError("the cluster is down")


async def _info(connection: AbstractConnection, section: str) -> dict[str, str]:
    await connection.send_command("INFO", section, check_health=False)
    text = cast("bytes", await connection.read_response(disable_decoding=True))
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in lines if separator}
