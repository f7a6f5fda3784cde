"""How a handshake is refused."""

from __future__ import annotations

import logging
from typing import Final

from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.protocol.codec import to_message
from symphony.protocol.envelopes import Envelope, Event, Retry
from symphony.protocol.handshake import HandshakeError
from symphony.protocol.v1 import JSON
from symphony.transport.base import Connection

__all__ = ("REFUSE_TOKEN", "refuse")

REFUSE_TOKEN: Final = "symphony.refuse"
"""Offered among the subprotocols by a client that wants to read refusals.

Browsers hide the HTTP answer to a failed handshake: a page sees close code
1006, whatever the server said. A client that offers this token gets 101, the
error as an event, and a close frame. The token is then the subprotocol of the
answer: browsers fail a connection for which they offered something and nothing
was chosen.
"""

logger = logging.getLogger("symphony.app")


def refuse(connection: Connection, handshake: Handshake, refusal: Reject) -> None:
    """Answer a handshake with a refusal: by HTTP, or on an open WebSocket for a client that asks for that."""
    payload = _encodable(refusal)
    if not _wants_a_close_code(handshake):
        headers = {"content-type": "application/json", **refusal.headers}
        body = to_message(payload)
        connection.refuse(refusal.status, headers, body.encode() if isinstance(body, str) else body)
        return

    def say(envelope: Envelope) -> None:
        connection.outbox.send(connection.encoding.encode(JSON.encode(envelope)))

    connection.accept(REFUSE_TOKEN)
    # Before `retry`, after which a client expects nothing but the close frame.
    say(Event("error", payload))
    if refusal.retry_after is not None:
        say(Retry(refusal.retry_after))
    connection.close(refusal.close_code, refusal.message)


def _encodable(refusal: Reject) -> dict[str, object]:
    """Return the payload of a refusal, without details that cannot be encoded."""
    payload = refusal.payload()
    try:
        to_message(payload)
    except Exception:
        # A client that is not answered at all would be worse.
        logger.exception("The details of a Reject cannot be encoded: %s", refusal)
        payload["details"] = None
    return payload


def _wants_a_close_code(handshake: Handshake) -> bool:
    try:
        return REFUSE_TOKEN in handshake.subprotocols
    except HandshakeError:
        return False
