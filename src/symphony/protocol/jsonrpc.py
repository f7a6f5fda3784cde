"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification) instead of `symphony.v1`.

With `app.route("/rpc", protocol=JsonRpc)`, a method is an event and its
`params` are the data. A call with an `id` is a request, one without is a
notification. Params are decoded to the type of the handler's payload: an
object to a struct or a dict, an array to a list or a tuple.

| what happens | JSON-RPC error code |
|---|---|
| not JSON | -32700 |
| JSON, but not a request | -32600 |
| no handler for the method | -32601 |
| params that do not fit the handler | -32602 |
| the handler failed | -32603 |
| the handler refused | -32000 |

The `data` of an error has the `code`, `retryable` and `details` of the `Reject`.
There are no streams: a handler that is a generator is answered with -32603.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from symphony.protocol.codec import encode_json
from symphony.protocol.envelopes import Envelope, Error, Event, Failure, Item, MalformedError, Reply
from symphony.protocol.invalid import reason_and_path
from symphony.protocol.v1 import MAX_NAME

__all__ = ("MAX_BATCH", "JsonRpc")

MAX_BATCH: Final = 1000
"""The most calls in one batch; a larger batch is refused as a whole."""

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_INTERNAL_ERROR: Final = -32603
_REFUSED: Final = -32000

_NULL: Final = Raw(b"null")
_encode = msgspec.json.Encoder().encode


class _Message(Struct):
    """A call, or the answer to one of ours; they share only the id."""

    jsonrpc: Literal["2.0"]
    method: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)] | UnsetType = UNSET
    params: Raw = _NULL
    id: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: Raw = Raw(b"")


class _Id(Struct):
    id: str | int | float | None = None


class _Batch:
    """The answers to one batch, sent together when the last is there."""

    def __init__(self) -> None:
        self.missing = 0
        self.answers: list[Raw] = []


class _Call(Struct):
    """A call that is not answered yet.

    Attributes:
        id: As the client wrote it.
        method: What it called.
        batch: The batch that it came in.
        code: Of the error that it will be answered with, if that is known.
    """

    id: Raw
    method: str
    batch: _Batch | None
    code: int | None = None


class JsonRpc:
    """JSON-RPC 2.0 on one connection, batches and notifications included."""

    def __init__(self) -> None:
        self.subprotocol: str | None = "jsonrpc"
        self.payload: Literal["json", "msgpack", "plain"] = "json"
        self._decode = msgspec.json.Decoder(_Message).decode
        self._next_id = 0
        # JSON-RPC ids may have any type and may repeat, so we map them to our own.
        self._calls: dict[int, _Call] = {}

    def decode(self, message: str | bytes) -> Envelope | Sequence[Envelope | MalformedError]:
        """Return the calls and answers in a message.

        Raises:
            MalformedError: The message is not JSON-RPC 2.0.
        """
        text = message.encode() if isinstance(message, str) else message
        if not text.lstrip(b" \t\r\n").startswith(b"["):
            envelope = self._read(text, None)
            if isinstance(envelope, MalformedError):
                raise envelope
            return envelope
        try:
            parts = msgspec.json.decode(text, type=list[Raw])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._malformed(str(error), _PARSE_ERROR, None) from None
        if not 0 < len(parts) <= MAX_BATCH:
            raise self._malformed(f"a batch has 1 to {MAX_BATCH} calls", _INVALID_REQUEST, None)
        batch = _Batch()
        return [self._read(bytes(part), batch) for part in parts]

    def encode(self, envelope: Envelope) -> str | None:
        """Return *envelope* as a message; `None` if JSON-RPC has none, or sends it later.

        Raises:
            TypeError: Its data cannot be encoded, or it is an item of a stream.
        """
        match envelope:
            case Failure():
                # A notification is never answered, not even with an error.
                return None
            case Event(event, data, id):
                params = {} if data is None else {"params": _params(data)}
                number = {} if id is None else {"id": id}
                return _encode({"jsonrpc": "2.0", "method": event, **params, **number}).decode()
            case Reply(id, data):
                return self._answer(id, "result", data)
            case Error(id, data):
                return self._answer(id, "error", self._error(self._calls[id], data))
            case Item():
                raise TypeError("JSON-RPC has no streams: the handler must return its answer.")
            case _:
                return None

    def _read(self, text: bytes, batch: _Batch | None) -> Envelope | MalformedError:
        try:
            found = self._decode(text)
        except msgspec.ValidationError as error:
            return self._malformed(str(error), _INVALID_REQUEST, batch, _id_in(text))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._malformed(str(error), _PARSE_ERROR, batch)
        has_id = bool(bytes(found.id))
        if found.method is UNSET:
            return self._read_answer(found, batch, text)
        if bytes(found.params)[:1] not in (b"[", b"{", b"n"):
            return self._malformed(
                "params must be an array or an object", _INVALID_REQUEST, batch, _id_in(text)
            )
        if not has_id:
            return Event(found.method, found.params)
        id = _id_in(text)
        if id is None:
            return self._malformed("an id must be a string, a number or null", _INVALID_REQUEST, batch)
        return Event(found.method, found.params, self._expect(_Call(id, found.method, batch)))

    def _read_answer(self, found: _Message, batch: _Batch | None, text: bytes) -> Envelope | MalformedError:
        try:
            number = msgspec.json.decode(found.id, type=int)
        except msgspec.MsgspecError:
            number = None
        if number is not None and bytes(found.error):
            return Error(number, found.error)
        if number is not None and bytes(found.result):
            return Reply(number, found.result)
        return self._malformed("neither a call nor an answer", _INVALID_REQUEST, batch, _id_in(text))

    def _malformed(
        self, problem: str, code: int, batch: _Batch | None, id: Raw | None = None
    ) -> MalformedError:
        call = _Call(id or _NULL, "", batch, code)
        return MalformedError(*reason_and_path(problem), id=self._expect(call))

    def _expect(self, call: _Call) -> int:
        self._next_id = number = self._next_id + 1
        self._calls[number] = call
        if call.batch is not None:
            call.batch.missing += 1
        return number

    def _answer(self, number: int, kind: str, value: Any) -> str | None:
        call = self._calls[number]
        # Encode first: if that fails, the call must still be answered.
        answer = _encode({"jsonrpc": "2.0", kind: Raw(encode_json(value)), "id": call.id})
        del self._calls[number]
        batch = call.batch
        if batch is None:
            return answer.decode()
        batch.answers.append(Raw(answer))
        batch.missing -= 1
        return None if batch.missing else _encode(batch.answers).decode()

    def _error(self, call: _Call, data: dict[str, Any]) -> dict[str, Any]:
        code, details = data["code"], data["details"]
        if call.code is not None:
            number = call.code
        elif code == "not_found" and details == {"event": call.method}:
            number = _METHOD_NOT_FOUND
        else:
            number = {"invalid": _INVALID_PARAMS, "internal": _INTERNAL_ERROR}.get(code, _REFUSED)
        more = {"code": code, "retryable": data["retryable"], "details": details}
        return {"code": number, "message": data["message"], "data": more}


def _params(data: Any) -> Raw:
    encoded = encode_json(data)
    return Raw(encoded if encoded[:1] in (b"[", b"{") else b"[" + encoded + b"]")


def _id_in(text: bytes) -> Raw | None:
    """Return the id of a call, unchanged; `None` if it is not valid."""
    try:
        return Raw(_encode(msgspec.json.decode(text, type=_Id).id))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
