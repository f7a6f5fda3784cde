"""Which handshakes may connect: the route, the origin, the limits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import Headers

from symphony.complaints import Complaint
from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.limits import Limits
from symphony.misnamed import Misnamed
from symphony.printable import MAX_SHOWN, printable
from symphony.protocol.subprotocols import offered_token
from symphony.session.endpoint import Endpoint
from symphony.transport.address import client_key
from symphony.transport.base import CROWDED, HOSTS, Scope
from symphony.transport.native.crowd import refusal_of
from symphony.websocket.handshake import check_one_origin, origin_advice, origin_allowed
from symphony.websocket.hosts import host_advice, host_allowed

__all__ = ("Admission", "Resolve", "address_of", "refuse_host", "route_path", "shown_path")

logger = logging.getLogger("symphony.app")
_refused_host = Complaint(logger, logging.WARNING, "Refused a request for %s: %s.")

ANY_HOST: Final = ("*",)

Resolve = Callable[[str], "tuple[Endpoint, dict[str, Any]] | None"]


class Admission:
    """Decides about handshakes, and counts the sockets of each address.

    Args:
        resolve: The endpoint and parameters of a path, `None`: no such route.
        limits: The bounds of the app.
        hosts: The hosts that the app answers for, `None`: those of its server.
        paths: The patterns of all paths.

    Attributes:
        draining: Whether the server stops: it then admits nothing more.
    """

    def __init__(
        self, resolve: Resolve, limits: Limits, hosts: Sequence[str] | None, paths: Sequence[str]
    ) -> None:
        self.draining = False
        self._resolve = resolve
        self._limits = limits
        self._hosts = hosts
        self._refused_origin = Complaint(
            logger, logging.WARNING, "Refused a browser on %s from origin %s: %s."
        )
        self._paths = paths
        self._misnamed = Misnamed(logger, "No WebSocket route for '%s'. Did you mean '%s'?", "/")
        self._per_address: Counter[str] = Counter()

    def admit(self, handshake: Handshake, *, connected: int) -> tuple[Endpoint, dict[str, Any]]:
        """Return the endpoint of a handshake and the parameters of its path.

        Args:
            handshake: What the client asks for.
            connected: How many sockets there are already.

        Raises:
            Reject: It may not connect.
            HandshakeError: It is no handshake that could be answered with 101.
        """
        if self.draining:
            raise Reject("unavailable", "the server restarts", retry_after=self._limits.retry_after)
        scope = handshake.scope
        # The native server counts all its connections, not only sockets.
        if (crowded := scope.get(CROWDED)) is not None:
            raise refusal_of(crowded, retry_after=self._limits.retry_after)
        check_one_origin(scope["headers"])
        refuse_host(scope, self._hosts)
        path = route_path(scope)
        found = self._resolve(path)
        if found is None:
            root = scope["path"].removesuffix(path)
            self._misnamed.look(scope["path"], (root + pattern for pattern in self._paths))
            # With the path of the mount: the client knows no other.
            raise Reject("not_found", f"no WebSocket route for {printable(scope['path'])}")
        endpoint, params = found
        self._check_origin(handshake, endpoint)
        self._check_limits(handshake, connected)
        try:
            offered_token(handshake.subprotocols)
        except ValueError as error:
            # Checked now, so that reading `handshake.token` later cannot fail.
            raise Reject("invalid", str(error)) from None
        return endpoint, params

    def entered(self, handshake: Handshake) -> None:
        """Count a socket."""
        self._per_address[address_of(handshake)] += 1

    def left(self, handshake: Handshake) -> None:
        """Count it no more."""
        address = address_of(handshake)
        self._per_address[address] -= 1
        if self._per_address[address] <= 0:
            del self._per_address[address]

    def _check_origin(self, handshake: Handshake, endpoint: Endpoint) -> None:
        if handshake.origin is None:
            # Not a browser.
            return
        host, secure = handshake.headers.get("host"), handshake.scope.get("scheme") in ("wss", "https")
        if origin_allowed(handshake.origin, host=host, secure=secure, allowed=endpoint.origins):
            return
        origin = printable(handshake.origin)
        advice = origin_advice(handshake.origin, host=host, secure=secure)
        self._refused_origin.log(shown_path(handshake), origin, printable(advice, 2 * MAX_SHOWN))
        raise Reject("forbidden", f"origin {origin} is not allowed")

    def _check_limits(self, handshake: Handshake, connected: int) -> None:
        if connected >= self._limits.max_connections:
            raise refusal_of("server", retry_after=self._limits.retry_after)
        address = address_of(handshake)
        most = self._limits.max_connections_per_client
        if address and most is not None and self._per_address[address] >= most:
            raise refusal_of("address", retry_after=self._limits.retry_after)


def refuse_host(scope: Scope, hosts: Sequence[str] | None) -> None:
    """Refuse a request for a host that is not one of the app's.

    A page that a browser has loaded from an attacker's host name may reach a
    server on the user's own machine, once the name resolves to it (DNS
    rebinding). The page's origin is then that of the request's host.

    Args:
        scope: The ASGI scope of the request.
        hosts: The hosts that the app answers for, `None`: those of its server.

    Raises:
        Reject: The app does not answer for the host.
    """
    allowed = scope.get(HOSTS, ANY_HOST) if hosts is None else hosts
    if "*" in allowed:
        return
    host = Headers(scope=scope).get("host")
    if host_allowed(host, secure=scope.get("scheme") in ("wss", "https"), allowed=allowed):
        return
    advice = host_advice(host, listed=hosts is not None)
    advice = printable(advice, 2 * MAX_SHOWN)
    _refused_host.log(printable(quote(scope["path"])), advice)
    raise Reject("forbidden", advice)


def route_path(scope: Scope) -> str:
    """Return the path below where the app is mounted (ASGI `root_path`)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def shown_path(handshake: Handshake) -> str:
    """Return the path as it may stand in a log, which is on one line."""
    return printable(quote(handshake.scope["path"]))


def address_of(handshake: Handshake) -> str:
    """Return what the client's address is counted by; empty over a Unix socket."""
    # Not by `handshake.client`, which makes an object each time.
    client = handshake.scope.get("client")
    return client_key(client[0]) if client else ""
