"""Requests: a client asks the server, and the server asks its client.

A request is an event that wants an answer, and gets exactly one: a reply or an
error. Here is a bakery: it tells prices, sells, and bakes.

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
    """What a client asks for: `{"item": "bread", "count": 2}`."""

    item: Literal["bread", "cake", "pretzel"]
    count: Annotated[int, Meta(ge=1)] = 1


@dataclass
class Offer:
    """What it is told: `{"item": "bread", "count": 2, "total": 8.0}`."""

    item: str
    count: int
    total: float


# Asking the server. The name of the event says what is asked. The type of the payload
# says what its data must be: an order of anything else never gets here, and is answered
# with an error that says what is wrong. What the handler returns is the reply.
@app.on("price")
async def price(order: Order) -> Offer:
    return Offer(order.item, order.count, PRICES[order.item] * order.count)


# Saying no. `Reject` answers with an error: a code for programs, which is Symphony's or
# has a namespace, as here; a message for people; and details, if they help.
def take(order: Order) -> None:
    if stock[order.item] < order.count:
        raise Reject("bakery.sold_out", "too few are left", details={"left": stock[order.item]})
    stock[order.item] -= order.count


# Asking the client, here the one who is being answered. Its answer is read although
# this handler has not finished. `response_type` is checked, as payloads are.
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
        raise Reject("bakery.declined", "then not")
    take(order)
    return f"{order.count} {order.item} for {offer.total:.2f}. Thank you!"


# Taking long. A client need not wait to the end: it may send a time limit with its
# request, or cancel it. Then the handler is cancelled where it waits, as asyncio does
# it, and `finally` is where to clean up. When the client goes, the handler has 5 more
# seconds to finish (`finish_timeout` in `Limits`).
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
