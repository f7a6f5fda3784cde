"""The URL of a broker in Redis: `redis://localhost:6379/0`."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote

from symphony.errors import ConfigurationError

__all__ = ("SCHEMES", "Address", "Target", "shown_address", "target_of")

SCHEMES: Final = (
    *("redis", "rediss"),
    *("redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
"""The schemes of URLs of Redis; those with `rediss` are with TLS."""

_CERTIFICATES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OF_SENTINELS: Final = ("sentinel_username", "sentinel_password")
_OPTIONS: Final = ("ack", "allow_eviction", "prefix", *_CERTIFICATES, *_OF_SENTINELS)
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

Address = tuple[str, int]
"""A host and a port."""


class Target(NamedTuple):
    """A URL of Redis.

    Attributes:
        addresses: Where the server is, or each of the sentinels that know where it is, or some
            servers of a cluster.
        master: By which name the sentinels know the server; `None`: there are no sentinels.
        database: The number of the database.
        username: Who connects; `None`: the default user.
        password: The password; `None`: none.
        sentinel_username: Who connects to the sentinels.
        sentinel_password: The password for them.
        prefix: What the names of all keys and channels begin with.
        allow_eviction: Whether a server is accepted that may evict keys before their time.
        acks_replica: Whether a publication is acknowledged when a replica has it.
        tls: Whether the connections are encrypted.
        certificates: `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` of the URL.
        cluster: Whether the servers are a cluster.
    """

    addresses: tuple[Address, ...]
    master: str | None
    database: int
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None
    prefix: str
    allow_eviction: bool
    acks_replica: bool
    tls: bool
    certificates: dict[str, str]
    cluster: bool = False

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        scheme = "rediss" if self.tls else "redis"
        hosts = ",".join(map(shown_address, self.addresses))
        if self.cluster:
            return f"{scheme}+cluster://{hosts}"
        if self.master is None:
            return f"{scheme}://{hosts}/{self.database}"
        return f"{scheme}+sentinel://{hosts}/{self.master}/{self.database}"

    def at(self, address: Address) -> Target:
        """Return the same on a server whose address is known."""
        return self._replace(addresses=(address,), master=None)

    def sentinel(self, address: Address) -> Target:
        """Return one of the sentinels."""
        return self.at(address)._replace(
            database=0, username=self.sentinel_username, password=self.sentinel_password
        )


def shown_address(address: Address) -> str:
    """Return an address as it is written in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def target_of(url: str) -> Target:
    """Parse a URL of Redis.

    Not with `urllib`, which knows one host only, and takes `+` in an option for a space.

    Raises:
        ConfigurationError: It is wrong.
    """
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    pairs = [part.partition("=") for part in query.split("&") if part]
    options = {unquote(name): unquote(value) for name, _, value in pairs}
    if "@" in path or any("@" in name for name in options):
        # The host that seems to be there may be a part of the password.
        raise _wrong(scheme, "", "in a user name or a password, write %40 for @, %2F for / and %3F for ?")
    with_sentinels, cluster = scheme.endswith("+sentinel"), scheme.endswith("+cluster")
    addresses = _addresses(scheme, hosts, _SENTINEL_PORT if with_sentinels else _PORT)

    def wrong(why: str) -> ConfigurationError:
        return _wrong(scheme, ", ".join(host for host, _ in addresses), why)

    if len(addresses) > 1 and not with_sentinels and not cluster:
        raise wrong("it names several servers. Write redis+sentinel:// for sentinels, or redis+cluster://")
    for name in options:
        if name not in _OPTIONS:
            raise wrong(f"it has no option {name!r}, but these: {', '.join(_OPTIONS)}")
    parts = [unquote(part) for part in path.strip("/").split("/") if part]
    master = None
    if with_sentinels:
        # Not `/0`, which is a database without the name before it.
        if not parts or (len(parts) == 1 and parts[0].isdecimal()):
            raise wrong("it does not name the master, as in redis+sentinel://localhost:26379/mymaster/0")
        master = parts.pop(0)
    elif any(name in options for name in _OF_SENTINELS):
        raise wrong("a user or a password of sentinels is for redis+sentinel://")
    database = parts[0] if parts else "0"
    if len(parts) > 1 or not (database.isascii() and database.isdecimal()):
        raise wrong("its port and its database are numbers")
    if cluster and int(database):
        raise wrong("a cluster has no database but 0")
    eviction = options.pop("allow_eviction", "0")
    if eviction not in ("0", "1"):
        raise wrong("allow_eviction is 0 or 1")
    ack = options.pop("ack", "server")
    if ack not in ("server", "replica"):
        raise wrong("ack is server or replica")
    if cluster and ack == "replica":
        raise wrong("ack=replica is not for a cluster")
    prefix = options.pop("prefix", "sym")
    if not prefix or not prefix.isascii() or not prefix.replace("-", "").replace("_", "").isalnum():
        raise wrong("prefix has letters, digits, - and _ only")
    certificates = {name: options[name] for name in _CERTIFICATES if name in options}
    tls = scheme.startswith("rediss")
    if certificates and not tls:
        raise wrong("certificates are for rediss://")
    return Target(
        addresses=addresses,
        master=master,
        database=int(database),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        # Channels are the same in all databases of a server.
        prefix=prefix if not int(database) else f"{prefix}-{int(database)}",
        allow_eviction=eviction == "1",
        acks_replica=ack == "replica",
        tls=tls,
        certificates=certificates,
        cluster=cluster,
    )


def _addresses(scheme: str, hosts: str, default: int) -> tuple[Address, ...]:
    addresses: list[Address] = []
    for each in hosts.split(","):
        if each.startswith("["):
            host, bracket, rest = each[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise _wrong(scheme, host, "an IPv6 address ends with ]")
            port = rest[1:]
        else:
            host, _, port = each.partition(":")
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            is_ipv6 = each.count(":") > 1
            why = (
                "write an IPv6 address in brackets: [::1]"
                if is_ipv6
                else "its port and its database are numbers"
            )
            raise _wrong(scheme, host, why)
        if not host and "," in hosts:
            raise _wrong(scheme, "", "a host is missing between commas")
        addresses.append((host or "localhost", int(port or default)))
    return tuple(addresses)


def _wrong(scheme: str, hosts: str, why: str) -> ConfigurationError:
    # Not the URL as it is: it may have a password.
    return ConfigurationError(
        f"The {scheme}:// URL of the broker{f' on {hosts}' if hosts else ''} is wrong: {why}. "
        "Write redis://localhost:6379/0, or rediss://user:password@host:6379/0 with TLS."
    )
