"""A whiteboard: documents that many people edit at the same time, with Yjs.

Install `pycrdt`, and run it with `python examples/ws/whiteboard.py`. Pages use it with the
provider `y-websocket`, unchanged:

    const doc = new Y.Doc()
    const provider = new WebsocketProvider("ws://127.0.0.1:8080/boards", "plan", doc)
    doc.getMap("shapes").set("1", { type: "circle", x: 10, y: 20 })
"""

import os

from pycrdt import (
    Awareness,
    Doc,
    YMessageType,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    handle_sync_message,
    read_message,
)

from symphony import Reject, Room, Socket, Symphony

# What Yjs calls an update that has nothing in it.
NOTHING = b"\x00\x00"

app = Symphony()


class Person:
    """The state of one connection: the ids under which it has told about its cursor."""

    def __init__(self) -> None:
        self.cursors: set[int] = set()


class Board:
    """The state of a room: the document, and the cursors and names of those who edit it."""

    def __init__(self) -> None:
        self.doc = Doc()
        self.cursors = Awareness(self.doc)
        # It is about connections alone: the server has no cursor.
        self.cursors.set_local_state(None)
        self.cursors.observe(self.changed)

    def changed(self, topic: str, change: tuple[dict[str, list[int]], object]) -> None:
        ids, source = change
        if isinstance(source, Socket):
            source.state.cursors |= {*ids["added"], *ids["updated"]}


# A board stays in memory for an hour after the last connection has left. With several workers,
# it is in one of them, its home. The others refuse connections to it, and the provider tries
# again until it meets the home.
boards = app.rooms("doc:{name}", state=Board, linger=3600)
# Connecting joins the room. The handler of this route takes `bytes`, so the route is raw: it
# exchanges the messages of Yjs, and no events. What Yjs cannot read closes the connection.
draw = app.route("/boards/{name}", room="doc:{name}", state=Person)


# The server asks for what it does not have yet, such as changes that were made offline.
@boards.on_join
async def enter(socket: Socket[Person], room: Room[Board]) -> None:
    board = room.state
    await socket.send(create_sync_message(board.doc))
    if board.cursors.states:
        await socket.send(
            create_awareness_message(board.cursors.encode_awareness_update([*board.cursors.states]))
        )


# A message is a question for the changes that a client does not have, or such changes, or the
# place of a cursor.
@draw.on_message
async def receive(socket: Socket[Person], room: Room[Board], message: bytes) -> bytes | None:
    kind, content = message[:1], message[1:]
    try:
        if kind == bytes([YMessageType.AWARENESS]):
            room.state.cursors.apply_awareness_update(read_message(content), socket)
            # The sender gets it, too: the provider reconnects if it hears nothing for 30 seconds.
            await room.send(message)
        elif kind == bytes([YMessageType.SYNC]):
            answer = handle_sync_message(content, room.state.doc)
            if answer is not None:
                return answer
            update = read_message(content[1:])
            if update != NOTHING:
                await room.send(create_update_message(update), exclude=socket)
    except (ValueError, LookupError, AssertionError, RuntimeError) as error:
        raise Reject("invalid", "not a message of Yjs") from error
    return None


# The others see at once that a cursor has gone.
@boards.on_leave
async def left(socket: Socket[Person], room: Room[Board]) -> None:
    cursors, gone = room.state.cursors, [*socket.state.cursors]
    cursors.remove_awareness_states(gone, None)
    if gone:
        await room.send(create_awareness_message(cursors.encode_awareness_update(gone)))


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
