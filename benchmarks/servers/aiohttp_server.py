import sys

import uvloop
from aiohttp import WSMsgType, web

members: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def fanout(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    members.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                for member in list(members):
                    await member.send_str(message.data)
    finally:
        members.discard(socket)
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/fanout", fanout)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop=uvloop.new_event_loop(),
        print=None,
        access_log=None,
        backlog=2048,
    )
