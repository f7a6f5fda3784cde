"""Protocols: the same handlers for clients that use another protocol.

`/rpc` uses JSON-RPC 2.0 (https://www.jsonrpc.org/specification), which is built in.
`/words` uses the protocol defined below: lines of words that you can type by hand.

Run it with `python examples/ws/custom_protocol.py`, and connect with
`wscat -c ws://127.0.0.1:8080/words`; then type `1 add 2 3`.
"""

import json
import os
from typing import Any, Literal

from symphony import Event, Protocol, Reject, Router, Symphony
from symphony.protocol.envelopes import Envelope, Error, MalformedError, Reply
from symphony.protocol.jsonrpc import JsonRpc

app = Symphony()


# The events. Their handlers do not depend on the format on the wire.
calculator = Router()


@calculator.on("add")
async def add(numbers: list[float]) -> float:
    return sum(numbers)


@calculator.on("divide")
async def divide(numbers: tuple[float, float]) -> float:
    dividend, divisor = numbers
    if divisor == 0:
        raise Reject("math.by_zero", "division by zero")
    return dividend / divisor


# Each connection has its own protocol object. `decode` turns a message into an envelope,
# and `encode` turns an envelope into a message.
class Words(Protocol):
    """Lines of words: `1 add 2 3` is a request, and `1 = 5.0` its reply.

    Without a number, the line is an event, which gets no reply.
    """

    # The WebSocket subprotocol that a client must offer. `None` requires none.
    subprotocol: str | None = None
    # `data` consists of plain Python values.
    payload: Literal["plain"] = "plain"

    def decode(self, message: str | bytes) -> Envelope:
        words = message.split() if isinstance(message, str) else []
        numbered = words and words[0].isdecimal() and len(words[0]) < 10
        id = int(words.pop(0)) if numbered else None
        if not words:
            raise MalformedError("say what to do, as in: 1 add 2 3", "$", id=id)
        name, *rest = words
        return Event(name, [_number_or_word(word) for word in rest], id)

    def encode(self, envelope: Envelope) -> str | None:
        match envelope:
            case Reply(id, data):
                return f"{id} = {json.dumps(data)}"
            case Error(id, data):
                return f"{id} ! {data['code']} {data['message']}"
            case Event("error", data):
                return f"! {data['code']} {data['message']}"
            case Event(name, data):
                return f"{name} {json.dumps(data)}"
        # This protocol has no streams, so nothing is sent.
        return None


def _number_or_word(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return word


# Each route can choose its protocol. The default is Symphony's own.
calculator.route("/rpc", protocol=JsonRpc)
calculator.route("/words", protocol=Words)
calculator.route("/")
app.include(calculator)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
