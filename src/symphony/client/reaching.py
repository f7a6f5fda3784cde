"""Opens a socket to a host: DNS, Happy Eyeballs (RFC 8305) and Unix sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any, Final, TypeAlias

from symphony.client import refusals
from symphony.client.address import Address
from symphony.tasks import start

__all__ = ("reach", "resolve")

# RFC 8305 §5 and §8: how long an address may take before the next one is tried, too.
_HEAD_START: Final = 0.25

_Info: TypeAlias = tuple[int, int, int, str, Any]


async def reach(address: Address, stage: Callable[[str], None]) -> socket.socket:
    """Return a connected socket.

    Raises:
        DialError: The host is not known, or none of its addresses answered.
    """
    if address.unix is not None:
        infos: Sequence[_Info] = ((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.unix),)
    else:
        stage(refusals.slow_host(address))
        infos = await resolve(address)
    stage(refusals.slow_connect(address))
    failures: list[OSError] = []
    sock = await _race(_interleaved(infos), failures)
    if sock is None:
        raise refusals.unreachable(failures, address) from failures[-1]
    return sock


async def resolve(address: Address) -> Sequence[_Info]:
    """Return the addresses of a host.

    Raises:
        DialError: The host is not known.
    """
    host, port = address.host, address.port
    try:
        version = ip_address(host).version
    except ValueError:
        version = None
    if version is not None:
        # No thread is needed for an IP address.
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        where: tuple[Any, ...] = (host, port)
        if "%" in host:
            where = (address.tls_name, port, 0, _scope(address))
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise refusals.unknown_host(error, address) from error


def _scope(address: Address) -> int:
    """Return the number of the interface that the zone of an address names."""
    zone = address.host.partition("%")[2]
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as error:
        raise refusals.unknown_host(error, address) from error


async def _race(infos: Sequence[_Info], failures: list[OSError]) -> socket.socket | None:
    """Connect to the addresses, each with a head start before the next; the first that answers wins."""
    if len(infos) == 1:
        try:
            return await _connect(infos[0])
        except OSError as error:
            failures.append(error)
            return None
    waiting = list(infos)
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(start(_connect(waiting.pop(0))))
            done, _ = await asyncio.wait(
                running, timeout=_HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    running |= done - {task}
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failures.append(error)
        return None
    finally:
        for task in running:
            task.add_done_callback(_discard)
            task.cancel()


async def _connect(info: _Info) -> socket.socket:
    family, kind, proto, _, sockaddr = info
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        if family == socket.AF_INET6 and len(sockaddr) == 4 and sockaddr[3]:
            # uvloop ignores the scope of an address, so connect before the loop sees the
            # socket. A link-local address is one hop away, but it must not block.
            await _connect_scoped(sock, sockaddr)
        else:
            await loop.sock_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_scoped(sock: socket.socket, sockaddr: Any) -> None:
    error = sock.connect_ex(sockaddr)
    if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(sock, _settle, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _interleaved(infos: Sequence[_Info]) -> list[_Info]:
    """Return the addresses with their families alternating (RFC 8305 §4)."""
    families: dict[int, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    return [info for info in chain.from_iterable(zip_longest(*families.values())) if info is not None]
