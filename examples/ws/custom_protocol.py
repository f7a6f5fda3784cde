"""Protocols: the same handlers, for clients that speak something else than Symphony.

`/rpc` speaks JSON-RPC 2.0 (https://www.jsonrpc.org/specification), which is built
in. `/words` speaks a protocol of our own, in lines to type by hand, defined below.

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


# The events. Nothing in them says how they are written on the wire.
calculator = Router()


@calculator.on("add")
async def add(numbers: list[float]) -> float:
    return sum(numbers)


@calculator.on("divide")
async def divide(numbers: tuple[float, float]) -> float:
    dividend, divisor = numbers
    if divisor == 0:
        raise Reject("math.by_zero", "nothing can be divided by 0")
    return dividend / divisor


# A protocol is an object for each connection. `decode` makes of a message what it
# says, and `encode` makes a message of what the server says.
class Words(Protocol):
    """Lines of words: `1 add 2 3` is a request, and `1 = 5.0` its reply.

    Without a number in front it is an event, which gets no reply.
    """

    # What a client must offer as a WebSocket subprotocol; `None`: nothing.
    subprotocol: str | None = None
    # That `data` is plain Python values.
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
        # Streams have no words here: nothing is sent.
        return None


def _number_or_word(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return word


# A route says which protocol it is in; without that it is Symphony's own.
calculator.route("/rpc", protocol=JsonRpc)
calculator.route("/words", protocol=Words)
calculator.route("/")
app.include(calculator)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
