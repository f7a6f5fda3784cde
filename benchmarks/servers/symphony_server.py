import sys

from symphony import Socket, Symphony

app = Symphony()
echo = app.route("/echo")
fanout = app.route("/fanout")


@echo.on_message
async def reply(socket: Socket, message: str | bytes) -> str | bytes:
    return message


@fanout.on_connect
async def enter(socket: Socket) -> None:
    await socket.join("fanout")


@fanout.on_message
async def publish(message: str | bytes) -> None:
    app.room("fanout").send(message)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
