"""`socket.login`: the node knows the sockets of each user, and an identity is set once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from support.clients import Log, connect, error_in, refused, until
from symphony import Depends, Identity, Limits, Reject, Socket, Symphony, WrongThreadError


def logging_in() -> Symphony:
    """Make an app whose sockets log in as `?user=`, and again as each message says."""
    app = Symphony()

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        user = socket.handshake.query_params.get("user")
        if user is not None:
            socket.login(Identity(user))
        if "refuse" in socket.handshake.query_params:
            raise Reject("forbidden", "not you")
        await call_next(socket)

    @app.on_message
    async def again(socket: Socket, message: str) -> str:
        socket.login(Identity(message, {"again": True}))
        return message

    return app


def users(app: Symphony) -> Any:
    return app._core.node.logins


def of(app: Symphony, user: str) -> list[str]:
    """Return the ids of a user's sockets."""
    return [socket.id for socket in users(app).sockets(user)]


async def test_the_node_knows_all_sockets_of_a_user_until_they_go(serve):
    app = logging_in()
    async with serve(app) as url:
        async with connect(f"{url}/?user=ann"):
            async with connect(f"{url}/?user=ann"), connect(f"{url}/?user=bob"), connect(f"{url}/"):
                await until(lambda: len(app.everyone.sockets) == 4)
                first, second, third, _ = [socket.id for socket in app.everyone.sockets]
                assert of(app, "ann") == [first, second]
                assert of(app, "bob") == [third]
                assert of(app, "eve") == []
            await until(lambda: app.stats.closed == 3)
            assert of(app, "ann") == [first]
            assert of(app, "bob") == []
        await until(lambda: app.stats.closed == 4)
        assert users(app)._sockets == {}


async def test_a_second_login_replaces_the_info_and_never_the_id(serve):
    app = logging_in()
    errors = Log()

    @app.on_error
    def failed(error: Exception) -> None:
        errors.append(error)

    async with serve(app) as url:
        async with connect(f"{url}/?user=ann") as client:
            await until(lambda: app.everyone.sockets)
            [socket] = app.everyone.sockets
            assert socket.user == Identity("ann")
            await client.send("ann")
            assert await client.recv() == "ann"
            assert socket.user == Identity("ann", {"again": True})
            for other in ("bob", "Ann", "ann "):
                await client.send(other)
                assert error_in(await client.recv())["code"] == "internal"
                assert socket.user == Identity("ann", {"again": True})
                assert of(app, "ann") == [socket.id]
                assert set(users(app)._sockets) == {"ann"}
                assert app.user(other).sockets == ()
        await until(lambda: app.stats.closed == 1)
        assert users(app)._sockets == {}
    assert [type(error) for error in errors] == [RuntimeError] * 3
    assert "is logged in as 'ann', so it cannot become 'bob'" in str(errors[0])


@pytest.mark.parametrize("id", ["x" * 512, "a{b}", "a\nb", "\ud800"])
async def test_an_id_that_can_be_no_room_is_refused_at_the_login(serve, id):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        with pytest.raises(Reject) as refusal:
            socket.login(Identity(id))
        assert refusal.value.code == "invalid"
        log.append(socket.user)

    async with serve(app) as url, connect(f"{url}/"):
        await log.reaches(1)
        assert log == [None]
        assert users(app)._sockets == {}
        with pytest.raises(Reject, match="is not the name of a room"):
            app.user(id)


async def test_what_is_no_identity_is_no_login(serve):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        for wrong in ("ann", {"id": "ann"}, None):
            with pytest.raises(TypeError, match="takes an Identity"):
                socket.login(wrong)  # type: ignore[arg-type]
        log.append(socket.user)

    async with serve(app) as url, connect(f"{url}/"):
        await log.reaches(1)
    assert log == [None]


async def test_a_socket_that_is_refused_after_it_logged_in_leaves_nothing_behind(serve):
    app = logging_in()
    async with serve(app) as url:
        assert (await refused(f"{url}/?user=ann&refuse")).status == 403
        await until(lambda: app.stats.refused == 1)
        assert users(app)._sockets == {}


async def test_who_it_was_is_still_known_in_the_disconnect_handler(serve):
    app = logging_in()
    log = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        log.append((socket.user.id, of(app, "ann") == [socket.id]))

    async with serve(app) as url:
        async with connect(f"{url}/?user=ann"):
            pass
        await log.reaches(1)
    assert log == [("ann", True)]


async def test_a_socket_that_logs_in_at_its_end_leaves_nothing_behind(serve, caplog):
    """A dependency that logged in while it was closed kept its socket in the node."""
    app = logging_in()
    app.limits = Limits(finish_timeout=0.1)
    gate, log = asyncio.Event(), Log()

    async def session(socket: Socket) -> AsyncIterator[str]:
        yield "session"
        socket.login(Identity("ann", {"by": "dependency"}))
        log.append("dependency")

    async def waits(socket: Socket) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()
            socket.login(Identity("ann", {"by": "task"}))
            log.append("task")

    @app.on_connect
    async def enter(socket: Socket, session: Annotated[str, Depends(session, scope="socket")]) -> None:
        socket.background(waits(socket))

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        socket.login(Identity("ann", {"by": "handler"}))

    async with serve(app) as url:
        async with connect(f"{url}/?user=ann"):
            await until(lambda: app.everyone.sockets)
        await until(lambda: app.stats.closed == 1)
        gate.set()
        await log.reaches(2)
        assert users(app)._sockets == {}
    assert "did not end and are abandoned" in caplog.text
    assert sorted(log) == ["dependency", "task"]


async def test_a_thread_may_not_log_a_socket_in(serve):
    app = Symphony()

    @app.on_message(thread=True)
    def handle(socket: Socket, message: str) -> str:
        with pytest.raises(WrongThreadError, match=r"socket.login\(\) was called from another thread"):
            socket.login(Identity(message))
        return str(socket.user)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("ann")
        assert await client.recv() == "None"
        assert users(app)._sockets == {}
