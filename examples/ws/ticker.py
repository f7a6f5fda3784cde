"""A ticker: the prices of now, and then each change; slow readers get the newest.

Run it with `python examples/ws/ticker.py`, and connect with
`symphony connect ws://127.0.0.1:8080/markets/metals`.
"""

import os
import random
from dataclasses import dataclass, field

from symphony import Reject, Room, Symphony

SYMBOLS = {"metals": ["gold", "silver", "copper"], "fruit": ["apple", "banana", "cherry"]}

app = Symphony()


@dataclass
class Price:
    symbol: str
    price: float


@dataclass
class Market:
    """The state of a room: the newest price of each symbol."""

    prices: dict[str, float] = field(default_factory=dict)


def market(name: str) -> Market:
    if name not in SYMBOLS:
        raise Reject("not_found", "there is no such market")
    return Market({symbol: float(random.randint(50, 200)) for symbol in SYMBOLS[name]})


markets = app.rooms("market:{name}", state=market)

# Connecting joins. `slow_consumer="conflate"`: prices may wait for any time, since newer ones
# take their places.
watch = app.route("/markets/{name}", room="market:{name}", events=True, slow_consumer="conflate")


# The prices of now. A client gets them when it joins, as the event `snapshot`, and then each
# change after them. So it does not wait until each symbol has moved.
@markets.snapshot
def prices(room: Room[Market]) -> dict[str, float]:
    return room.state.prices


# A market moves while somebody watches it. `conflate=symbol`: for each client, a price takes
# the place of the older price of this symbol that is not sent yet. A client that reads slowly
# gets fewer prices, and always the newest.
@markets.every(0.1)
async def move(room: Room[Market]) -> None:
    symbol = random.choice([*room.state.prices])
    price = round(room.state.prices[symbol] * random.uniform(0.99, 1.01), 2)
    room.state.prices[symbol] = price
    await room.emit("price", Price(symbol, price), conflate=symbol)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
