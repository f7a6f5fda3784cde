"""How a handshake is refused."""

from __future__ import annotations

import msgspec

from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.protocol import subprotocols
from symphony.protocol.envelopes import Retry
from symphony.protocol.v1 import JSON
from symphony.transport.base import Connection
from symphony.websocket.handshake import HandshakeError

__all__ = ("refuse",)


def refuse(connection: Connection, handshake: Handshake, refusal: Reject) -> None:
    """Answer a handshake with a refusal: by HTTP, or by close code to who asks for that."""
    if _wants_a_close_code(handshake):
        connection.accept(subprotocols.REFUSE)
        seconds = next((text for name, text in refusal.headers.items() if name.lower() == "retry-after"), "")
        if seconds.isdecimal():
            notice = JSON.encode(Retry(int(seconds)))
            connection.outbox.send(connection.encoding.encode(notice))
        connection.close(refusal.close_code, refusal.message)
        return
    headers = {"content-type": "application/json", **refusal.headers}
    connection.refuse(refusal.status, headers, msgspec.json.encode(refusal.payload()))


def _wants_a_close_code(handshake: Handshake) -> bool:
    try:
        return subprotocols.REFUSE in handshake.subprotocols
    except HandshakeError:
        return False
