"""Connects to a Redis server, and checks whether it can be used."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias, cast

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from symphony.broker.redis.target import Target
from symphony.errors import ConfigurationError

__all__ = ("Connected", "Dial", "Dialer", "dial_to")

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


class Dialer:
    """Connects again and again, with a pause after each connection that was of no use.

    Args:
        dial: Connects to the server.
        timeout: How many seconds one attempt may take.
        random: Returns a number from 0 to 1.

    Attributes:
        why: Why the last attempt has failed.
    """

    def __init__(self, dial: Dial, timeout: float, random: Callable[[], float]) -> None:
        self.why = "it does not answer"
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
            except ConfigurationError as error:
                if not again:
                    raise
                logger.error("The broker of the rooms cannot be used: %s", error)

    def worked(self) -> None:
        """Note that the connection is of use."""
        self._attempts = 0


def dial_to(target: Target) -> Dial:
    """Return what connects to a server.

    It raises `ConfigurationError` if the server is there, and cannot be used.
    """

    async def dial() -> Connected:
        connection = _connection(target)
        try:
            await connection.connect()
            await _check(connection, target)
        except (AuthenticationError, NoPermissionError) as error:
            await connection.disconnect(nowait=True)
            raise ConfigurationError(f"The broker {target.shown} refuses this user: {error}") from error
        except (RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            if isinstance(error.__cause__, ssl.SSLError):
                raise ConfigurationError(f"The broker {target.shown}: {error.__cause__}") from error
            raise ConnectionError(str(error)) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cast("Connected", connection)

    return dial


def _connection(target: Target) -> AbstractConnection:
    # Each call has a timeout of its own. Nothing is repeated here: after a
    # cut, a publication may have been carried out.
    options: dict[str, Any] = {
        **target.certificates,
        "host": target.host,
        "port": target.port,
        "db": target.database,
        "username": target.username,
        "password": target.password,
        "socket_timeout": None,
        "driver_info": None,
        "protocol": 2,
    }
    return SSLConnection(**options) if target.tls else Connection(**options)


async def _check(connection: AbstractConnection, target: Target) -> None:
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
        return
    except ResponseError as error:
        raise ConfigurationError(f"The broker {target.shown} does not tell what it is: {error}") from error
    # Valkey has its own version beside the one of Redis that it stands for.
    version = server.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ConfigurationError(f"The broker {target.shown} is Redis {version}. 7.0 or newer is needed.")
    if server.get("redis_mode") == "cluster":
        raise ConfigurationError(
            f"The broker {target.shown} is a node of a Redis Cluster, which is not supported."
        )
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


async def _info(connection: AbstractConnection, section: str) -> dict[str, str]:
    await connection.send_command("INFO", section, check_health=False)
    text = cast("bytes", await connection.read_response(disable_decoding=True))
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in lines if separator}
