"""Middleware: code around handlers that can refuse, filter, change and answer.

Middleware that is registered first is outermost. It runs first when a message
comes in, and last when the reply goes out.

Run it with `python examples/ws/middleware.py`, and connect with
`wscat -c "ws://127.0.0.1:8080/?token=sesame"`.
"""

import os
from dataclasses import dataclass
from typing import Any

from symphony import CallNext, Close, Reject, Socket, Symphony

app = Symphony()

NAMES = {"sesame": "Ali", "swordfish": "Harpo"}


@dataclass
class Visit:
    """The state of one connection, available as `socket.state`."""

    name: str = ""
    messages: int = 0


home = app.route("/", state=Visit)


# Refuse. The "connect" stage runs before the connection opens, so a refusal is sent as an
# HTTP response, here 401.
@app.middleware("connect")
async def authenticate(socket: Socket[Visit], call_next: CallNext) -> None:
    name = NAMES.get(socket.handshake.query_params.get("token", ""))
    if name is None:
        raise Reject("unauthorized", "connect with ?token=sesame")
    socket.state.name = name
    await call_next(socket)


# Order. This is the outermost middleware of the "message" stage. The code before
# `call_next` runs before the middleware below. The code after it runs after them.
@app.middleware("message")
async def number(socket: Socket[Visit], message: str | bytes, call_next: CallNext) -> Any:
    socket.state.messages += 1
    reply = await call_next(socket, message)
    return reply and f"{socket.state.messages}. {reply}"


# Filter. Middleware that does not call `call_next` stops the message. Its return value is
# the answer; `None` sends nothing.
@app.middleware("message")
async def drop_spam(socket: Socket[Visit], message: str | bytes, call_next: CallNext) -> Any:
    if "spam" in str(message):
        return None
    return await call_next(socket, message)


# Change. The handler receives the message that is passed to `call_next`.
@app.middleware("message")
async def tidy(socket: Socket[Visit], message: str | bytes, call_next: CallNext) -> Any:
    if isinstance(message, str):
        message = " ".join(message.split())
    return await call_next(socket, message)


# The "disconnect" stage runs after a connection has ended.
@app.middleware("disconnect")
async def sum_up(socket: Socket[Visit], close: Close, call_next: CallNext) -> None:
    await call_next(socket, close)
    print(f"{socket.state.name} left after {socket.state.messages} messages", flush=True)


@home.on_connect
async def welcome(socket: Socket[Visit]) -> None:
    await socket.send(f"Welcome, {socket.state.name}!")


@home.on_message
async def answer(message: str) -> str:
    return f"You said: {message}"


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
