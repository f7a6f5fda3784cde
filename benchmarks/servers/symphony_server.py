import sys

from msgspec import Struct

from symphony import Socket, Symphony

app = Symphony()
echo = app.route("/echo")
fanout = app.route("/fanout")
kept = app.route("/kept")
app.rooms("kept", history=100)
events = app.route("/events")


@echo.on_message
async def reply(socket: Socket, message: str | bytes) -> str | bytes:
    return message


@fanout.on_connect
async def enter(socket: Socket) -> None:
    await socket.join("fanout")


@fanout.on_message
async def publish(message: str | bytes) -> None:
    app.room("fanout").send(message)


@kept.on_connect
async def enter_kept(socket: Socket) -> None:
    await socket.join("kept")


@kept.on_message
async def publish_kept(message: str | bytes) -> None:
    app.room("kept").send(message)


class Move(Struct):
    x: int
    y: int
    name: str


@events.on("move")
async def move(move: Move) -> Move:
    return move


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
