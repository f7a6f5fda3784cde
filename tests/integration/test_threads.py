"""What another thread than the event loop's may not do, and what the error says."""

import asyncio
import threading

import pytest

from support.clients import connect
from symphony import Socket, Symphony, WrongThreadError

USES = {
    "send": lambda app, socket: socket.send("x"),
    "close": lambda app, socket: socket.close(),
    "join": lambda app, socket: asyncio.run(socket.join("a")),
    "leave": lambda app, socket: asyncio.run(socket.leave("a")),
    "background": lambda app, socket: socket.background(asyncio.sleep(0)),
    "room": lambda app, socket: app.room("a").send("x"),
    "everyone": lambda app, socket: app.everyone.send("x"),
    "app": lambda app, socket: app.background(asyncio.sleep(0)),
}


@pytest.mark.parametrize("use", USES)
async def test_using_a_socket_or_room_from_another_thread_raises(serve, use):
    app = Symphony()

    @app.on_message(thread=True)
    def handle(socket: Socket, message: str) -> str:
        with pytest.raises(WrongThreadError, match="was called from another thread than the event loop's"):
            USES[use](app, socket)
        return "refused"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "refused"
        assert app.room("a").sockets == ()


async def test_the_error_names_what_was_called_and_says_what_to_do(serve):
    app = Symphony()

    @app.on_message(thread=True)
    def handle(socket: Socket, message: str) -> list[str]:
        texts = []
        for use in ("send", "room", "everyone"):
            with pytest.raises(WrongThreadError) as caught:
                USES[use](app, socket)
            texts.append(str(caught.value))
        return texts

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        texts = await client.recv()
    for part in (
        "socket.send()",
        "<Room a>.send()",
        "<Target everyone>.send()",
        "app.threadsafe.room('a')",
        "app.threadsafe.socket(socket.id)",
    ):
        assert part in texts


async def test_a_thread_may_use_a_socket_through_the_loop(serve):
    app = Symphony()
    loop = asyncio.get_running_loop()

    @app.on_message
    async def handle(socket: Socket, message: str) -> None:
        def work() -> None:
            asyncio.run_coroutine_threadsafe(socket.join("a"), loop).result(5)
            loop.call_soon_threadsafe(app.room("a").send, "from a thread")

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "from a thread"
