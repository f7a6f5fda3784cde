"""The engines by the schemes of their URLs."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from symphony.broker.base import Broker
from symphony.broker.ipc import ServedBroker, dial_to
from symphony.broker.ipc import serve as serve_engine
from symphony.broker.ipc import shown as shown_ipc
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.memory import MemoryBroker
from symphony.broker.memorypresence import MemoryPresence
from symphony.broker.presence import PresenceStore
from symphony.broker.redis.target import SCHEMES as REDIS_SCHEMES
from symphony.broker.redis.target import target_of as redis_target_of
from symphony.broker.remote import RemoteBroker
from symphony.broker.remotepresence import RemotePresence
from symphony.broker.sqlite import SqliteBroker
from symphony.broker.sqlitetarget import target_of
from symphony.broker.storedpresence import StoredPresence
from symphony.errors import BrokerUnavailableError, ConfigurationError
from symphony.limits import Limits

__all__ = (
    "MEMORY",
    "check",
    "is_elsewhere",
    "is_in_memory",
    "is_in_redis",
    "name_beside",
    "note_of",
    "open_broker",
    "presence_beside",
    "reachable_at",
    "serve",
    "shown",
)

MEMORY: Final = "memory://"
"""The URL of the broker in the memory of the process."""

_SCHEMES: Final = ("memory", "ipc", "sqlite", *REDIS_SCHEMES)


@runtime_checkable
class _Named(Protocol):
    """A broker that has a name for this node."""

    name: str


@runtime_checkable
class _WithMembers(Protocol):
    """A broker that keeps the members of rooms itself."""

    def members(self) -> PresenceStore: ...


def check(url: str) -> None:
    """Check the URL of a broker.

    Raises:
        ConfigurationError: It is wrong.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        # Not the whole URL: it may have a password.
        name = f"{scheme}://…" if separator else "without ://"
        raise ConfigurationError(f"The broker {name!r} is not known. Symphony has these: {known}.")
    if scheme == "memory" and rest:
        raise ConfigurationError(f"The broker {url!r} has no name: write memory://.")
    if scheme == "ipc":
        dial_to(url)
    if scheme == "sqlite":
        target_of(url)
    if is_in_redis(url):
        _redis(url, Limits())


def is_in_memory(url: str) -> bool:
    """Return whether the broker is one in the memory of the process."""
    return url == MEMORY


def shown(url: str) -> str:
    """Return the URL of a broker without its secrets, for messages."""
    if is_in_redis(url):
        return redis_target_of(url).shown
    return shown_ipc(url) if url.startswith("ipc:") else url


def is_elsewhere(url: str) -> bool:
    """Return whether the broker is in another process anyway."""
    return url.startswith("ipc:") or is_in_redis(url)


def note_of(url: str) -> Path | None:
    """Return the file that says where the broker of a file is served; `None`: it is in no file."""
    return Path(f"{target_of(url).path}.served") if url.startswith("sqlite:") else None


def reachable_at(url: str) -> str:
    """Return the `ipc://` URL at which another process reaches the broker of a server.

    Raises:
        ConfigurationError: The URL is wrong, or no other process can reach the broker.
        BrokerUnavailableError: No server serves it.
    """
    check(url)
    if is_in_memory(url):
        raise ConfigurationError(
            "The broker memory:// is in the process of the server, and no other process can reach it. "
            "Start the server with `symphony run --workers 2 --data DIR`, and name its broker: "
            "app.publisher('sqlite:///DIR/rooms.db')."
        )
    note = note_of(url)
    if note is None:
        return url
    try:
        return note.read_text()
    except OSError:
        raise BrokerUnavailableError(
            f"There is no server with workers that serves it: {url!r}. Start it with "
            "`symphony run --workers 2 --data DIR`."
        ) from None


async def open_broker(url: str, limits: Limits, *, ended: Callable[[], None] | None = None) -> Broker:
    """Make a broker, and connect to it.

    Args:
        url: Its URL.
        limits: The limits of the app.
        ended: Called once if the broker of another process has gone for good.

    Raises:
        ConfigurationError: The URL is wrong.
        BrokerUnavailableError: It cannot be reached.
    """
    check(url)
    if is_in_memory(url):
        return MemoryBroker(max_bytes=limits.max_history_bytes)
    if url.startswith("sqlite:"):
        return await SqliteBroker.open(
            target_of(url),
            max_bytes=limits.max_history_bytes,
            max_calls=limits.max_broker_calls,
            max_waiting_bytes=limits.max_broker_bytes,
        )
    if is_in_redis(url):
        return await _redis(url, limits)()
    broker = RemoteBroker(
        dial_to(url),
        timeout=limits.publish_timeout,
        max_calls=limits.max_broker_calls,
        max_bytes=limits.max_broker_bytes,
        ended=ended,
    )
    await broker.connect()
    return broker


def name_beside(broker: Broker | None) -> str:
    """Return the name of a node: the one by which its broker knows it."""
    return broker.name if isinstance(broker, _Named) else secrets.token_urlsafe(9)


def presence_beside(broker: Broker | None) -> PresenceStore:
    """Return the presence store that belongs to a broker."""
    if isinstance(broker, RemoteBroker):
        return RemotePresence(broker)
    if isinstance(broker, _WithMembers):
        return broker.members()
    kept = _kept_beside(broker)
    return MemoryPresence() if kept is None else StoredPresence(kept)


def _kept_beside(broker: Broker | None) -> KeptMembers | None:
    """Return where the members of rooms are stored that belong to a broker; `None`: nowhere."""
    return broker.kept if isinstance(broker, SqliteBroker) else None


def is_in_redis(url: str) -> bool:
    """Return whether the broker is a Redis server."""
    return url.partition("://")[0] in REDIS_SCHEMES


def _redis(url: str, limits: Limits) -> Callable[[], Awaitable[Broker]]:
    """Return what opens a broker in Redis, whose packages need not be installed."""
    try:
        from symphony.broker.redis.broker import RedisBroker
        from symphony.broker.redis.cluster import Cluster
        from symphony.broker.redis.dialing import OneServer
        from symphony.broker.redis.replicated import ReplicatedBroker
        from symphony.broker.redis.sentinels import Sentinels
        from symphony.broker.redis.shards import OneShard, Shards
    except ImportError as error:
        raise ConfigurationError(
            f"The broker redis:// needs more packages ({error}): pip install 'symphony-ws[redis]'."
        ) from error
    target = redis_target_of(url)

    async def opened() -> Broker:
        shards: Shards
        if target.cluster:
            shards = Cluster(target, timeout=limits.publish_timeout)
        else:
            shards = OneShard(OneServer(target) if target.master is None else Sentinels(target))
        broker = (ReplicatedBroker if target.acks_replica else RedisBroker)(
            shards,
            prefix=target.prefix,
            timeout=limits.publish_timeout,
            max_calls=limits.max_broker_calls,
            max_bytes=limits.max_broker_bytes,
        )
        try:
            await broker.connect()
        except BaseException:
            broker.close()
            raise
        return broker

    return opened


def serve(url: str, limits: Limits) -> ServedBroker:
    """Serve a broker to the workers of this machine, in a thread; return when it listens.

    Args:
        url: The broker that lives in this process.
        limits: The limits of the app.

    Raises:
        ConfigurationError: The URL is wrong, or names the broker of another process.
    """
    check(url)
    if is_elsewhere(url):
        raise ConfigurationError(f"The broker {shown(url)!r} lives in another process, which serves it.")
    return serve_engine(lambda: open_broker(url, limits), kept_beside=_kept_beside)
