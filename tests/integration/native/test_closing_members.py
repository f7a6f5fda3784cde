"""Members of a room that are on their way out: between their close frame and their end."""

from support.raw import CLOSE, Frame, close, connect, frame, text
from symphony import Socket, Symphony

UNKNOWN_OPCODE = frame(0x3)


def room_app() -> Symphony:
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")

    @app.on_message
    async def tell_all(socket: Socket, message: str) -> None:
        if message == "bye":
            app.room("room").send("before")
            socket.close(4000)
        app.room("room").send(message)

    return app


async def test_a_member_that_failed_costs_the_others_nothing(native) -> None:
    """A write behind the end of its stream raised, and then no room was flushed ever again."""
    async with (
        native(room_app()) as url,
        connect(url) as failed,
        connect(url) as one,
        connect(url) as other,
    ):
        await failed.send(UNKNOWN_OPCODE)
        assert (await failed.frame()).code == 1002
        for message in ("first", "second"):
            await one.send(text(message))
            assert [await one.message(), await other.message()] == [message, message]
        assert await failed.rest() == []
        failed.finish()
        for client in (one, other):
            await client.send(close())
            assert (await client.frame()).opcode == CLOSE


async def test_a_publication_does_not_reach_a_member_behind_its_close_frame(native) -> None:
    async with native(room_app()) as url, connect(url) as leaving, connect(url) as other:
        await leaving.send(text("bye"))
        assert await leaving.message() == "before"
        assert (await leaving.frame()).code == 4000
        # Not answered yet, so it is still in its rooms.
        for message in ("first", "second"):
            await other.send(text(message))
        assert [await other.message() for _ in range(4)] == ["before", "bye", "first", "second"]
        await leaving.send(close(4000))
        assert await leaving.rest() == []
        await other.send(close())
        assert await other.rest() == [Frame(CLOSE, (1000).to_bytes(2, "big"))]
