"""Echo: text and binary on `/`, and JSON of a known shape on `/json`.

Run it with `python examples/ws/echo_server.py`, and connect with
`wscat -c ws://127.0.0.1:8080` or `wscat -c ws://127.0.0.1:8080/json`.
"""

import os
from dataclasses import dataclass

from symphony import Symphony

app = Symphony()

# A route is a path and what happens on connections to it. With routes in the app,
# every other path is answered with HTTP 404.
echo = app.route("/")
echo_json = app.route("/json")


# A WebSocket message is text (`str`) or binary (`bytes`). This handler takes both
# and gives back the same kind. A handler that takes only `str` refuses binary.
@echo.on_message
async def repeat(message: str | bytes) -> str | bytes:
    return message


@dataclass
class Note:
    """What a client sends on `/json`: `{"text": "hi", "loud": true}`."""

    text: str
    loud: bool = False


@dataclass
class Echo:
    """What it gets back: `{"text": "HI", "length": 2}`."""

    text: str
    length: int


# A payload of any other type is decoded from JSON and checked. What does not fit
# never gets here: its sender is told what is wrong with it, and stays connected.
@echo_json.on_message
async def repeat_note(note: Note) -> Echo:
    text = note.text.upper() if note.loud else note.text
    return Echo(text=text, length=len(text))


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
