"""Refuses handshakes."""

from __future__ import annotations

import logging

from symphony.complaints import Complaint
from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.protocol import subprotocols
from symphony.protocol.envelopes import Envelope, Failure, Retry
from symphony.protocol.refusals import http_refusal
from symphony.protocol.v1 import ERROR, JSON
from symphony.transport.base import Connection
from symphony.websocket.handshake import HandshakeError

__all__ = ("refuse",)

_unencodable = Complaint(
    logging.getLogger("symphony.app"), logging.ERROR, "The details of a Reject cannot be encoded: %s"
)


def refuse(connection: Connection, handshake: Handshake, refusal: Reject, *, by_http: bool = False) -> None:
    """Refuse a handshake.

    The refusal is an HTTP response. A client that offers `symphony.refuse` gets
    a WebSocket instead, with the error as an event and a close frame.

    Args:
        connection: The connection.
        handshake: The handshake.
        refusal: Why.
        by_http: Whether the refusal is an HTTP response in any case.
    """
    try:
        response = http_refusal(refusal)
    except Exception as error:
        # The client must get an answer, even without the details.
        _unencodable.log(refusal, error=error)
        refusal.details = None
        response = http_refusal(refusal)
    if by_http or not _wants_a_close_code(handshake):
        connection.refuse(*response)
        return

    def send(envelope: Envelope) -> None:
        connection.outbox.send(connection.encoding.encode(JSON.encode(envelope)))

    # What was queued is for a connection that opens, such as that of a room that it had joined.
    connection.outbox.forget()
    connection.accept(subprotocols.REFUSE)
    # Before `retry`: after that, a client expects only the close frame.
    send(Failure(ERROR, refusal.payload()))
    if refusal.retry_after is not None:
        send(Retry(refusal.retry_after))
    connection.close(refusal.close_code, refusal.message)


def _wants_a_close_code(handshake: Handshake) -> bool:
    try:
        return subprotocols.REFUSE in handshake.subprotocols
    except HandshakeError:
        return False
