"""Echo: text and binary on `/`, and typed JSON on `/json`.

Run it with `python examples/ws/echo_server.py`, and connect with
`wscat -c ws://127.0.0.1:8080` or `wscat -c ws://127.0.0.1:8080/json`.
"""

import os
from dataclasses import dataclass

from symphony import Symphony

app = Symphony()

# A route is a path with its own handlers. In an app with routes, every other path is
# answered with HTTP 404.
echo = app.route("/")
echo_json = app.route("/json")


# A WebSocket message is text (`str`) or binary (`bytes`). This handler accepts both,
# and returns the same kind. A handler that accepts only `str` refuses binary messages.
@echo.on_message
async def repeat(message: str | bytes) -> str | bytes:
    return message


@dataclass
class Note:
    """A message from a client on `/json`: `{"text": "hi", "loud": true}`."""

    text: str
    loud: bool = False


@dataclass
class Echo:
    """The answer to the client: `{"text": "HI", "length": 2}`."""

    text: str
    length: int


# A payload of any other type is decoded from JSON and validated. Invalid messages never
# reach the handler: the client receives an error, and stays connected.
@echo_json.on_message
async def repeat_note(note: Note) -> Echo:
    text = note.text.upper() if note.loud else note.text
    return Echo(text=text, length=len(text))


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
