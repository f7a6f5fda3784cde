"""Ports that a server can come back to."""

import os
import random
import socket

__all__ = ("free_port",)

_EACH = 500


def free_port() -> int:
    """Return a port that stays free while no server of this test is on it.

    The system gives none of these to clients: while the server is dead, a
    client that connects to its port could be given that very port, and then
    TCP connects it to itself. Each worker of pytest has ports of its own, or
    another one could take the port in the meantime.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % 20 * _EACH
    while True:
        port = random.randrange(first, first + _EACH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
