"""Measures how long one client waits for its echo while another one floods the server.

    python benchmarks/fairness.py flood PORT PATH KIND SECONDS    # the flood alone

The flood runs in a process of its own with a low priority, so that the client that
is measured waits for the server, and not for a core.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from machine import Cores

__all__ = ("EVENT_FLOODS", "RAW_FLOODS", "worst_echo")

_TEXT, _BINARY, _PING, _PONG, _CONTINUATION = 1, 2, 9, 10, 0


def _frame(payload: bytes, opcode: int = _TEXT, *, fin: bool = True) -> bytes:
    """Return a client's frame. Its mask is zero, so the payload stays as it is."""
    first, size = (0x80 if fin else 0) | opcode, len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


_MOVE = b'{"event":"move","data":{"x":1,"y":2,"name":"ann"}}'

RAW_FLOODS = {
    "small messages": _frame(b"x" * 16),
    "messages of 64 KiB": _frame(b"x" * 65536),
    "pings": _frame(b"", _PING),
    "pongs": _frame(b"", _PONG),
    "fragments": _frame(b"x", fin=False)
    + _frame(b"", _CONTINUATION, fin=False) * 50
    + _frame(b"", _CONTINUATION),
}
"""What one client sends without end, on a route that echoes."""

EVENT_FLOODS = {
    "events": _frame(_MOVE),
    "requests": _frame(_MOVE[:-1] + b',"id":1}'),
    "data of another type": _frame(b'{"event":"move","data":1}'),
    "malformed envelopes": _frame(b'{"x":1}'),
    "no JSON": _frame(b"{"),
}
"""The same on a route with events."""


def _open(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("the server closed the connection during the handshake")
        head += byte
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise OSError(f"the server refused the connection: {head[:100]!r}")
    return connection


def worst_echo(cores: Cores, port: int, path: str, flood_path: str, kind: str, seconds: float) -> float:
    """Return the longest round trip of a client on *path*, in milliseconds, beside a flood of one kind.

    Raises:
        OSError: The client was refused, or lost its connection.
    """
    placed = ",".join(map(str, sorted(cores.load)))
    command = ["taskset", "-c", placed, sys.executable, __file__, "flood", str(port), flood_path, kind]
    message = _frame(b"?" * 16)
    with _open(port, path) as client, subprocess.Popen([*command, str(seconds + 1)]) as flood:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(60)
        worst, end = 0.0, time.monotonic() + seconds + 0.5
        try:
            while time.monotonic() < end:
                began = time.monotonic()
                client.sendall(message)
                missing = 2 + 16
                while missing:
                    got = client.recv(missing)
                    if not got:
                        raise OSError("the server closed the connection of the client that was measured")
                    missing -= len(got)
                worst = max(worst, time.monotonic() - began)
                time.sleep(0.002)
        finally:
            flood.kill()
    return worst * 1000


def _flood(port: int, path: str, kind: str, seconds: float) -> None:
    os.nice(10)
    block = {**RAW_FLOODS, **EVENT_FLOODS}[kind]
    block *= max(1, 65536 // len(block))
    end = time.monotonic() + seconds
    with _open(port, path) as connection:

        def drain() -> None:
            with suppress(OSError):
                while connection.recv(1 << 20):
                    pass

        threading.Thread(target=drain, daemon=True).start()
        # A server may close the connection of a flood.
        with suppress(OSError):
            while time.monotonic() < end:
                connection.sendall(block)


if __name__ == "__main__":
    _flood(int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]))
