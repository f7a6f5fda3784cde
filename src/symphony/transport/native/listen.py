"""Binds the address of a server, before anything else starts."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from typing import Any, Final

__all__ = ("ListenError", "addresses", "bind", "identity", "keep_unsent_data", "listening")

# Python before 3.12 does not name the option everywhere.
_NOTSENT_LOWAT: Final = {"linux": 25, "darwin": 0x201}
_MAX_UNSENT_BYTES: Final = 128 * 1024

# The same mode as in uvicorn: every user with access to the folder may connect.
_UDS_MODE = 0o666


class ListenError(Exception):
    """The server cannot listen on an address. The message is one line and says what to do."""


@contextmanager
def listening(host: str, port: int, uds: str | None) -> Generator[list[socket.socket]]:
    """Yield the bound sockets of an address, and release the address at the end.

    Args:
        host: A name or address. All addresses of a name are bound. An empty
            string means all addresses of the machine.
        port: The port, or 0 for a free one.
        uds: Path of a Unix socket to use instead. A socket that a dead server
            has left is replaced.

    Raises:
        ListenError: The address could not be bound.
    """
    sockets = bind(host, port, uds)
    ours = None if uds is None else identity(uds)
    try:
        yield sockets
    finally:
        for bound in sockets:
            bound.close()
        # The next server may listen on the same path by now: this one stopped accepting
        # when its stop began.
        if uds is not None and ours is not None and identity(uds) == ours:
            with suppress(OSError):
                os.unlink(uds)


def bind(host: str, port: int, uds: str | None) -> list[socket.socket]:
    """Return the bound sockets of an address.

    Raises:
        ListenError: The address could not be bound.
    """
    return [_bind_unix(uds)] if uds is not None else _bind_tcp(host, port)


def addresses(sockets: Iterable[socket.socket], *, tls: bool) -> list[str]:
    """Return the addresses of bound sockets as people write them: URLs, or `unix:` and a path."""
    found: list[str] = []
    for bound in sockets:
        name: Any = bound.getsockname()
        if isinstance(name, str):
            found.append(f"unix:{name}")
        else:
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            found.append(f"{'https' if tls else 'http'}://{host}:{name[1]}")
    return found


def keep_unsent_data(listeners: Iterable[Any]) -> None:
    """Let the kernel take little more than it can send at once, where it has an option for that.

    Otherwise it takes up to 4 MB for a slow client, and what it has taken can no
    longer be dropped. Accepted sockets inherit the option.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", _NOTSENT_LOWAT.get(sys.platform))
    for listener in listeners:
        if option is not None and listener.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, option, _MAX_UNSENT_BYTES)


def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    # `getaddrinfo` takes 65536 for 0.
    if not 0 <= port <= 65535:
        raise ListenError(f"{port} is not a port: use 1 to 65535, or 0 for a free one.")
    where = f"{f'[{host}]' if ':' in host else host}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(
            f"The host {host!r} is not known: {error.strerror}. "
            "Use an address of this machine: 127.0.0.1 for itself, 0.0.0.0 for all of its addresses."
        ) from None
    except UnicodeError:
        # A label that is empty or too long.
        raise ListenError(f"{host!r} is not a host name.") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            if family == socket.AF_INET6:
                # IPv4 has a separate socket.
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            bound.bind(address)
        except OSError as error:
            bound.close()
            failure = error
            # `localhost` can resolve to ::1 on a machine without IPv6.
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            break
        sockets.append(bound)
    else:
        if sockets:
            return sockets
    for bound in sockets:
        bound.close()
    raise ListenError(_explained(failure, where))


def _bind_unix(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError("This machine has no Unix sockets: use a host and a port.")
    try:
        _make_way(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            os.chmod(path, _UDS_MODE)
        except BaseException:
            bound.close()
            raise
    except (OSError, ValueError) as error:
        # A path that is too long has no `strerror`; a null character is a ValueError.
        problem = getattr(error, "strerror", None) or error
        raise ListenError(f"Cannot listen on {path}: {problem}.") from None
    return bound


def _make_way(path: str) -> None:
    """Remove the socket of a server that has gone."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ListenError(f"{path} already exists and is not a socket. Choose another path.")
        if _answers(path):
            raise ListenError(f"{path} is in use by another server. Stop it or choose another path.")
        os.unlink(path)


def identity(path: str) -> tuple[int, ...] | None:
    """Return what tells a file from every other that may take its path later."""
    try:
        file = os.lstat(path)
    except OSError:
        return None
    # The number of a file that is gone is used again, so the time of its creation counts
    # too. That is the time of the last change to its content, which a socket has not.
    return file.st_dev, file.st_ino, file.st_mtime_ns


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            # The queue is full, or we have no permission: a server is there.
            return True
        return True


def _explained(error: OSError | None, where: str) -> str:
    number = error.errno if error is not None else None
    if number == errno.EADDRINUSE:
        return f"{where} is in use by another program. Stop it or choose another port (0 for a free one)."
    if number == errno.EACCES:
        return f"This program has no permission to listen on {where}. Choose a port above 1023."
    if number == errno.EADDRNOTAVAIL:
        return f"{where} is not an address of this machine. Use 127.0.0.1, or 0.0.0.0 for all addresses."
    return f"Cannot listen on {where}: {error}."
