"""`symphony.v1`: envelopes in JSON and in MessagePack (`docs/protocol.md`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, Final, Literal, Union

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import astuple

from symphony.protocol.codec import json_envelope, msgpack_envelope
from symphony.protocol.envelopes import (
    Cancel,
    Dropped,
    End,
    Envelope,
    Error,
    Event,
    Grant,
    Item,
    Limits,
    MalformedError,
    Ping,
    Pong,
    Reply,
    Retry,
)
from symphony.protocol.invalid import reason_and_path
from symphony.protocol.unencodable import fail_to_encode
from symphony.protocol.v1frames import (
    ABSENT,
    MAX_CLIENT,
    MAX_CREDIT,
    MAX_ID,
    MAX_KEY,
    MAX_NAME,
    MAX_TIMEOUT,
    NULLS,
    Credit,
    Frame,
    Id,
    JsonEvent,
    JsonPublished,
    MsgpackEvent,
    MsgpackPublished,
    Request,
    Timeout,
    of_room,
)

__all__ = (
    "ERROR",
    "JSON",
    "MAX_CLIENT",
    "MAX_CREDIT",
    "MAX_ID",
    "MAX_KEY",
    "MAX_NAME",
    "MAX_TIMEOUT",
    "MSGPACK",
    "V1",
    "TypedV1",
)

ERROR: Final = "error"
"""The event that tells of a failure, reserved in this protocol alone."""


class V1:
    """`symphony.v1` in one of its two codecs; stateless, so all connections share one.

    Args:
        codec: `"json"` or `"msgpack"`.
        publications: Whether events that arrive may be publications, as those of a
            server may. They are then decoded to `Published`.

    Attributes:
        encode_payload: Encodes an envelope to the bytes of its message; for
            JSON these are UTF-8.
        decode_event: Decodes a message that is an event, and leaves its data
            encoded; raises msgspec's error for every other message.
        is_text: Whether its messages are text.
        kind: The type of its messages: `str` or `bytes`.
    """

    __slots__ = (
        "_decode_any_event",
        "_decode_frame",
        "_decode_request",
        "_null",
        "decode_event",
        "encode_payload",
        "is_text",
        "kind",
        "payload",
        "subprotocol",
    )

    def __init__(self, codec: Literal["json", "msgpack"], *, publications: bool = False) -> None:
        module = msgspec.json if codec == "json" else msgspec.msgpack
        json_type, msgpack_type = (
            (JsonPublished, MsgpackPublished) if publications else (JsonEvent, MsgpackEvent)
        )
        self.subprotocol: str | None = f"symphony.v1.{codec}"
        self.payload: Literal["json", "msgpack", "plain"] = codec
        self.is_text = codec == "json"
        self.kind: type = str if self.is_text else bytes
        self._null = NULLS[codec]
        self.encode_payload: Callable[[Envelope], bytes] = json_envelope if self.is_text else msgpack_envelope
        self._decode_any_event: Callable[[str | bytes], Event] = module.Decoder(
            json_type if self.is_text else msgpack_type
        ).decode  # type: ignore[assignment]
        self.decode_event = self._decode_any_event
        self._decode_frame: Callable[[str | bytes], Frame] = module.Decoder(Frame).decode  # type: ignore[assignment]
        self._decode_request: Callable[[str | bytes], Request] = module.Decoder(Request).decode  # type: ignore[assignment]

    def encode(self, envelope: Envelope) -> str | bytes:
        """Return *envelope* encoded as a message.

        Raises:
            UnencodableError: Its data cannot be encoded.
        """
        try:
            message = self.encode_payload(envelope)
        except Exception as error:
            fail_to_encode(error, envelope)
        return message.decode() if self.is_text else message

    def decode(self, message: str | bytes) -> Envelope:
        """Return the envelope in a message; its `data` stays encoded, a `Raw`.

        Raises:
            MalformedError: The message is not a valid envelope.
        """
        if type(message) is not self.kind:
            kinds = ("JSON", "text") if self.is_text else ("MessagePack", "binary")
            raise MalformedError("this connection speaks {}, in {} messages".format(*kinds), "$")
        try:
            return self._decode_any_event(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            # Another kind of envelope, or malformed.
            return self._decode_other(message)

    def _decode_other(self, message: str | bytes) -> Envelope:
        try:
            frame = self._decode_frame(message)
        except msgspec.MsgspecError as error:
            raise self._malformed(message, *reason_and_path(str(error))) from None
        except UnicodeError:
            raise MalformedError("a name that is not UTF-8", "$") from None
        except RecursionError:
            raise MalformedError("nested too deeply", "$") from None
        data = self._null if frame.data is ABSENT else frame.data
        if frame.reply is not None:
            return Reply(frame.reply, data)
        if frame.error is not None:
            return Error(frame.error, data)
        if frame.item is not None:
            return Item(frame.item, data)
        if frame.end is not None:
            return End(frame.end)
        if frame.grant is not None:
            if not frame.credit:
                raise MalformedError("a grant needs a `credit` of at least 1 item", "$.credit")
            return Grant(frame.grant, frame.credit)
        if frame.cancel is not None:
            return Cancel(frame.cancel)
        if frame.ping is not None:
            return Ping(frame.ping)
        if frame.pong is not None:
            return Pong(frame.pong)
        if frame.retry is not None:
            if not isfinite(frame.retry):
                raise MalformedError("`retry` is not a number of seconds", "$.retry")
            return Retry(frame.retry)
        if frame.limits is not None:
            return Limits(frame.limits)
        if frame.dropped is not None:
            return Dropped(frame.dropped)
        about_room = of_room(frame, data)
        if about_room is not None:
            return about_room
        raise MalformedError("an envelope of no known kind: it has no `event`, `reply`, `cancel`, …", "$")

    def _malformed(self, message: str | bytes, reason: str, path: str) -> MalformedError:
        id = None
        with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            request = self._decode_request(message)
            _, *kinds = astuple(request)
            if any(kind is not None for kind in kinds):
                id = request.id
        return MalformedError(reason, path, id=id)


class TypedV1(V1):
    """`symphony.v1` for known events: decodes an event and its data in one pass.

    This makes a request 8 % faster. `decode_event` raises for all other
    events, and for data of another type; `decode` accepts any event.

    Args:
        codec: `"json"` or `"msgpack"`.
        types: The type of each event's data; `Raw`: it stays encoded.

    Attributes:
        classes: The class that each event is decoded to. It has the fields of
            an `Event`.
    """

    __slots__ = ("classes",)

    def __init__(self, codec: Literal["json", "msgpack"], types: Mapping[str, Any]) -> None:
        super().__init__(codec)
        self.classes: Mapping[str, type[Struct]] = {
            event: self._class(event, data) for event, data in types.items()
        }
        # For a union of one class, msgspec accepts a map without `event`. So add the event
        # `error`, which every route has.
        classes = {ERROR: self._class(ERROR, Raw), **self.classes}.values()
        module = msgspec.json if codec == "json" else msgspec.msgpack
        self.decode_event = module.Decoder(Union[tuple(classes)]).decode  # noqa: UP007

    def _class(self, event: str, data: Any) -> type[Struct]:
        return msgspec.defstruct(
            "TypedEvent",
            [
                # Missing data is null, which may not be of the type.
                ("data", Raw, self._null) if data is Raw else ("data", data),
                ("id", Id | None, None),
                ("timeout", Timeout | None, None),
                ("credit", Credit | None, None),
            ],
            tag_field="event",
            tag=event,
            namespace={"event": event},
            gc=False,
        )


JSON: Final = V1("json")
MSGPACK: Final = V1("msgpack")
