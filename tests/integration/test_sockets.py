"""What a socket knows and can: id, state, user, client, latency, closing."""

import asyncio
import json

import pytest

from support.clients import Log, closed, connect, refused, until
from symphony import Close, Identity, Limits, Reject, Router, Socket, Symphony

NATIVE = ["native-uvloop", "native-asyncio"]


class ChatState:
    def __init__(self) -> None:
        self.messages = 0


async def test_each_socket_has_a_state_of_the_routes_type(serve):
    app = Symphony()
    log = Log()
    chat = app.route("/chat", state=ChatState)

    @chat.on_message
    async def count(socket: Socket[ChatState], message: str) -> int:
        socket.state.messages += 1
        return socket.state.messages

    @chat.on_disconnect
    async def leave(socket: Socket[ChatState]) -> None:
        log.append(socket.state.messages)

    async with serve(app) as url:
        async with connect(f"{url}/chat") as one, connect(f"{url}/chat") as two:
            for client, answer in ((one, "1"), (one, "2"), (two, "1")):
                await client.send("x")
                assert await client.recv() == answer
        await log.reaches(2)
    assert sorted(log) == [1, 2]


async def test_without_a_type_the_state_takes_any_attribute(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        socket.state.name = "ann"

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        return socket.state.name

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "ann"


async def test_the_apps_state_is_shared_by_all_sockets(serve):
    app = Symphony()
    app.state.count = 0

    @app.on_message
    async def count(message: str) -> int:
        app.state.count += 1
        return app.state.count

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        for client, answer in ((one, "1"), (two, "2"), (one, "3")):
            await client.send("x")
            assert await client.recv() == answer


async def test_login_says_who_a_socket_speaks_for(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> list:
        before = socket.user
        socket.login(Identity("42", {"name": "Ann"}))
        assert socket.user == Identity("42", {"name": "Ann"})
        return [before and before.id, socket.user.id, socket.user.info["name"]]

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert json.loads(await client.recv()) == [None, "42", "Ann"]
        await client.send("x")
        assert json.loads(await client.recv()) == ["42", "42", "Ann"]


def test_an_identity_has_an_id():
    with pytest.raises(ValueError, match=r"Identity\.id must not be empty"):
        Identity("")


async def test_ids_are_long_and_never_the_same(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send(socket.id)

    ids = set()
    async with serve(app) as url:
        for _ in range(20):
            async with connect(f"{url}/") as client:
                ids.add(await client.recv())
    assert len(ids) == 20
    # 128 random bits in URL-safe base64.
    assert {len(id) for id in ids} == {22}


async def test_connected_and_client(serve):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        log.append(socket.connected)
        await socket.send("hi")
        log.append(socket.connected)

    @app.on_message
    async def handle(socket: Socket, message: str) -> None:
        await socket.send(socket.client)
        await socket.close()
        log.append(socket.connected)

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "hi"
        await client.send("x")
        assert json.loads(await client.recv()) == list(client.local_address)
        assert await closed(client) == (1000, "")
    assert log == [False, True, False]


@pytest.mark.asyncio(loop_factories=NATIVE)
async def test_latency_is_measured_by_pings(serve):
    app = Symphony(limits=Limits(ping_interval=0.01))
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        assert socket.latency is None
        sockets.append(socket)

    async with serve(app) as url, connect(f"{url}/"):
        await sockets.reaches(1)
        await until(lambda: sockets[0].latency is not None)
        assert 0 < sockets[0].latency < 5


@pytest.mark.asyncio(loop_factories=["asgi", "mounted"])
async def test_latency_is_unknown_where_the_server_pings(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> bool:
        return socket.latency is None

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "true"


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 3000, 4000, 4999])
async def test_close_codes_and_reasons_arrive(serve, code):
    app = Symphony()

    @app.on_message
    async def bye(socket: Socket, message: str) -> None:
        await socket.send("last words")
        await socket.close(code, message)
        await socket.close(4444, "a repeat does nothing")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("grüße")
        assert await client.recv() == "last words"
        assert await closed(client) == (code, "grüße")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
async def test_a_close_code_that_must_not_be_sent_is_refused_and_the_socket_stays(serve, code):
    app = Symphony()

    @app.on_message
    async def bye(socket: Socket, message: str) -> str:
        with pytest.raises(ValueError, match=f"The close code {code} may not be sent: "):
            await socket.close(code)
        return "still here"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "still here"


async def test_a_reason_that_is_too_long_is_cut_at_a_character(serve):
    """Over ASGI the server failed at the close frame, and the client was never told."""
    app = Symphony()
    log = Log()

    @app.on_message
    async def bye(socket: Socket, message: str) -> None:
        await socket.close(4000, "ž" * 100)

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append(close.code)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await closed(client) == (4000, "ž" * 61)
        await log.reaches(1)
    assert log == [4000]


async def test_a_close_of_the_client_is_answered_with_its_code(serve):
    async with serve(Symphony()) as url, connect(f"{url}/") as client:
        await client.close(4711, "bye")
        assert client.protocol.close_rcvd.code == 4711


async def test_the_socket_opens_when_the_connect_handler_returns(serve):
    app = Symphony()
    gate = asyncio.Event()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        log.append("entered")
        await gate.wait()
        log.append(socket.opened)

    async with serve(app) as url:
        opening = asyncio.ensure_future(connect(f"{url}/").__aenter__())
        await log.reaches(1)
        assert app.stats.opened == 0
        gate.set()
        client = await opening
        assert log == ["entered", False]
        await client.close()


async def test_the_socket_opens_at_its_first_send(serve):
    app = Symphony()
    gate = asyncio.Event()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("welcome")
        await gate.wait()
        log.append("returned")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "welcome"
        assert log == []
        gate.set()
        await log.reaches(1)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid", 400),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("not_found", 404),
        ("timeout", 408),
        ("conflict", 409),
        ("too_many", 429),
        ("internal", 500),
        ("unavailable", 503),
        ("shop.sold_out", 400),
    ],
)
async def test_a_reject_before_the_socket_is_open_is_an_http_answer(serve, code, status):
    app = Symphony()

    @app.on_connect
    async def enter() -> None:
        raise Reject(code, "a message", details={"left": 0}, headers={"Retry-After": "7"})

    async with serve(app) as url:
        refusal = await refused(f"{url}/")
    assert refusal.status == status
    assert refusal.headers["content-type"] == "application/json"
    assert refusal.headers["retry-after"] == "7"
    assert refusal.body["code"] == code
    assert refusal.body["message"] == "a message"
    assert refusal.body["details"] == {"left": 0}


async def test_a_reject_may_have_a_status_of_its_own(serve):
    app = Symphony()

    @app.on_connect
    async def enter() -> None:
        raise Reject("shop.closed", status=423)

    async with serve(app) as url:
        assert (await refused(f"{url}/")).status == 423


@pytest.mark.parametrize(
    ("code", "close"),
    [("unauthorized", 4401), ("forbidden", 4403), ("unavailable", 1013), ("internal", 1011), ("a.b", 4400)],
)
async def test_a_reject_after_the_socket_is_open_is_a_close(serve, code, close):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("one moment")
        raise Reject(code, "no, sorry")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "one moment"
        assert await closed(client) == (close, "no, sorry")


async def test_an_exception_before_the_socket_is_open_is_a_500_without_details(serve, caplog):
    app = Symphony()

    @app.route("/x").on_connect
    async def enter() -> None:
        raise RuntimeError("secret")

    async with serve(app) as url:
        refusal = await refused(f"{url}/x")
    assert (refusal.status, refusal.code, refusal.message) == (500, "internal", "the connect handler failed")
    assert "connect handler of /x" in caplog.text
    assert "secret" in caplog.text


async def test_an_exception_after_the_socket_is_open_is_a_1011_without_details(serve, caplog):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("one moment")
        raise RuntimeError("secret")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "one moment"
        assert await closed(client) == (1011, "the connect handler failed")
    assert "secret" in caplog.text


async def test_a_send_that_is_not_json_fails_at_its_caller(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        with pytest.raises(TypeError, match="Cannot encode an object of type object"):
            socket.send(object())
        return "still here"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "still here"


async def test_params_of_routers_and_routes_are_the_sockets(serve):
    app, teams = Symphony(), Router("/teams/{team}")

    @teams.route("/{member:int}").on_message
    async def handle(socket: Socket, message: str) -> list:
        return [socket.params, socket.handshake.path_params == socket.params]

    app.include(teams)
    async with serve(app) as url, connect(f"{url}/teams/red/7") as client:
        await client.send("x")
        assert json.loads(await client.recv()) == [{"team": "red", "member": 7}, True]


async def test_large_messages_pass_both_ways(serve):
    app = Symphony()

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("ž" * 500_000, b"\xff" * 1_000_000):
            await client.send(message)
            assert await client.recv() == message


async def test_a_message_above_the_limit_closes_with_1009(serve):
    app = Symphony(limits=Limits(max_message_bytes=1000))
    log = Log()

    @app.on_message
    async def echo(message: str) -> str:
        return message

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append(close.code)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x" * 1000)
        assert await client.recv() == "x" * 1000
        await client.send("ž" * 501)
        code, reason = await closed(client)
        assert code == 1009
        assert reason
        await log.reaches(1)
    assert log == [1009]


async def test_a_route_may_have_limits_of_its_own(serve):
    app = Symphony()

    @app.route("/small", limits=Limits(max_message_bytes=10)).on_message
    async def small(message: str) -> str:
        return message

    @app.route("/large").on_message
    async def large(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/small") as one, connect(f"{url}/large") as two:
        for client in (one, two):
            await client.send("x" * 11)
        assert await two.recv() == "x" * 11
        assert (await closed(one))[0] == 1009
