import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

members: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def fanout(connection: ServerConnection) -> None:
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    finally:
        members.discard(connection)


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    await {"/echo": echo, "/fanout": fanout}[connection.request.path](connection)


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None, backlog=2048) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
