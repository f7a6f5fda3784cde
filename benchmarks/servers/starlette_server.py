import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

members: set[WebSocket] = set()


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def fanout(websocket: WebSocket) -> None:
    await websocket.accept()
    members.add(websocket)
    try:
        async for text in websocket.iter_text():
            for member in list(members):
                await member.send_text(text)
    finally:
        members.discard(websocket)


app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/fanout", fanout)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", loop="uvloop")
