import sys
from typing import Any

import socketio
import uvicorn

sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


@sio.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    await sio.enter_room(sid, "fanout")


@sio.event
async def echo(sid: str, data: str) -> None:
    await sio.emit("echo", data, to=sid)


@sio.event
async def publish(sid: str, data: str) -> None:
    await sio.emit("publish", data, room="fanout")


@sio.event
async def move(sid: str, move: Any) -> dict[str, Any]:
    match move:
        case {"x": int(x), "y": int(y), "name": str(name)}:
            return {"x": x, "y": y, "name": name}
    return {"error": "invalid"}


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", loop="uvloop"
    )
