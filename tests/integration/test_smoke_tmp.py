from support.clients import connect
from symphony import Socket, Symphony


async def test_echo(serve):
    app = Symphony()

    @app.on_connect
    async def greet(socket: Socket):
        await socket.send("hi")

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    async with serve(app) as url, connect(url + "/x") as client:
        assert await client.recv() == "hi"
        await client.send("a")
        assert await client.recv() == "a"
        await client.send(b"a")
        assert await client.recv() == b"a"
