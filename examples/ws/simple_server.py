"""A minimal server: it greets each client, and answers every message.

Run it with `python examples/ws/simple_server.py`, and connect with
`wscat -c ws://127.0.0.1:8080`.
"""

import os

from symphony import Socket, Symphony

# The app contains everything that the server does. Without routes, it accepts
# connections on every path.
app = Symphony()


# Runs once for each client. The connection opens with the first `send`.
@app.on_connect
async def greet(socket: Socket) -> None:
    await socket.send("Hello, World!")


# Runs for each message. The return value is sent back to the client.
@app.on_message
async def acknowledge(message: str | bytes) -> str:
    return "I got your message!"


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
