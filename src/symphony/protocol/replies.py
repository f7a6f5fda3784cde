"""The data of a reply: read here, or passed on unread to the node that has asked for it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from symphony.errors import Reject, RemoteError
from symphony.protocol.bounds import bounded
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.reading import EventReaders, event_readers, guarded

__all__ = ("Unread", "invalid_reply", "read_reply", "reply_readers")


class Unread(NamedTuple):
    """A reply that another node reads. As the `response_type` of a request, it asks for one.

    Attributes:
        kind: The form of the data: see `Protocol.payload`.
        data: The data; plain values are in MessagePack.
    """

    kind: str
    data: bytes

    @staticmethod
    def of(kind: str, data: Any) -> Unread:
        """Return a reply as it has arrived."""
        return Unread(kind, encode_msgpack(data) if kind == "plain" else bytes(data))


@lru_cache(maxsize=256)
def reply_readers(response_type: Any, most: int) -> EventReaders:
    """Return the readers of replies of a type.

    Args:
        response_type: The type.
        most: How many values, items and keys a reply may contain.
    """
    readers = dict(event_readers(response_type))
    for kind in ("json", "msgpack"):  # the others get decoded data
        readers[kind] = bounded(readers[kind], most, is_json=kind == "json")
    return {kind: guarded(read) for kind, read in readers.items()}


def read_reply(event: str, reply: Unread, response_type: Any, most: int) -> Any:
    """Read the reply to an event that another node has passed on.

    Raises:
        RemoteError: It is not of the type.
    """
    data: Any = reply.data if reply.kind != "plain" else msgspec.msgpack.decode(reply.data)
    try:
        return reply_readers(response_type, most)[reply.kind](data)
    except Reject as error:
        raise invalid_reply(event, error) from None


def invalid_reply(event: str, error: Reject) -> RemoteError:
    """Return the error of a reply that is not of its type."""
    return RemoteError(
        "invalid", f"the reply to {event!r} is invalid: {error.message}", details=error.details
    )
