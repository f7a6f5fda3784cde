"""Requests: from a client to the server, and from the server to a client.

A request is an event with exactly one answer, which is a reply or an error. This
server is a bakery: you can ask for prices, buy, and have something baked.

Run it with `python examples/ws/requests.py`, and connect with
`symphony connect ws://127.0.0.1:8080`. `examples/ws/README.md` says what to type.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from symphony import Reject, RemoteError, RequestTimeoutError, Socket, Symphony

app = Symphony()

PRICES = {"bread": 4.0, "cake": 20.0, "pretzel": 1.5}
stock = {"bread": 12, "cake": 1, "pretzel": 100}


@dataclass
class Order:
    """The data of a request: `{"item": "bread", "count": 2}`."""

    item: Literal["bread", "cake", "pretzel"]
    count: Annotated[int, Meta(ge=1)] = 1


@dataclass
class Offer:
    """The reply to `price`: `{"item": "bread", "count": 2, "total": 8.0}`."""

    item: str
    count: int
    total: float


# Requests to the server. The handler is registered for the name of the event. The data
# must match the type of the payload. Otherwise the handler does not run, and the answer
# is an error that says what is wrong. The return value is the reply.
@app.on("price")
async def price(order: Order) -> Offer:
    return Offer(order.item, order.count, PRICES[order.item] * order.count)


# Errors. `Reject` answers with an error. It has a code for programs, a message for
# people, and optional details. Your own codes need a namespace, such as `bakery`.
def take(order: Order) -> None:
    if stock[order.item] < order.count:
        raise Reject("bakery.sold_out", "too few are left", details={"left": stock[order.item]})
    stock[order.item] -= order.count


# Requests to the client. Here the server asks the client whose request it is handling.
# The answer is read although this handler has not finished. It must match `response_type`.
@app.on("buy")
async def buy(socket: Socket, order: Order) -> str:
    offer = await price(order)
    try:
        agreed = await socket.request("confirm", offer, timeout=30, response_type=bool)
    except RequestTimeoutError:
        raise Reject("bakery.declined", "you did not say yes in time") from None
    except RemoteError as error:
        raise Reject("bakery.declined", f"you said: {error.code} {error.message}") from None
    if not agreed:
        raise Reject("bakery.declined", "you declined")
    take(order)
    return f"{order.count} {order.item} for {offer.total:.2f}. Thank you!"


# Timeouts and cancellation. A client can send a timeout with its request, or cancel it.
# The handler is then cancelled at its `await`, like any asyncio task, and can clean up in
# `finally`. If the client disconnects, the handler has 5 more seconds to finish
# (`finish_timeout` in `Limits`).
@app.on("bake")
async def bake(order: Order) -> int:
    done = 0
    try:
        while done < order.count:
            await asyncio.sleep(1)
            done += 1
    finally:
        stock[order.item] += done
        print(f"baked {done} of {order.count} {order.item}", flush=True)
    return stock[order.item]


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
