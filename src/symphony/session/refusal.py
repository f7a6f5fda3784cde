"""How a handshake is refused."""

from __future__ import annotations

from typing import Final

import msgspec

from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.protocol.envelopes import Retry
from symphony.protocol.handshake import HandshakeError
from symphony.protocol.v1 import JSON
from symphony.transport.base import Connection

__all__ = ("REFUSE_TOKEN", "refuse")

REFUSE_TOKEN: Final = "symphony.refuse"
"""Offered among the subprotocols by a client that wants to read refusals.

Browsers hide the HTTP answer to a failed handshake: a page sees close code
1006, whatever the server said. A client that offers this token gets 101 and
then a close frame with code and reason. The token is then the subprotocol of the
answer: browsers fail a connection for which they offered something and nothing
was chosen.
"""


def refuse(connection: Connection, handshake: Handshake, refusal: Reject) -> None:
    """Answer a handshake with a refusal: by HTTP, or by close code to who asks for that."""
    if _wants_a_close_code(handshake):
        connection.accept(REFUSE_TOKEN)
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
        return REFUSE_TOKEN in handshake.subprotocols
    except HandshakeError:
        return False
