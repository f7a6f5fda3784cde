"""Who gets in: origins, subprotocols, connection limits, and how long an answer may take."""

import asyncio
import json

import pytest
from websockets.exceptions import NegotiationError

from support.clients import Log, closed, connect, refused, until
from symphony import Limits, Reject, Socket, Symphony


async def test_a_browser_of_another_origin_is_refused_and_the_log_says_what_to_do(serve, caplog):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter() -> None:
        log.append("entered")

    async with serve(app) as url:
        refusal = await refused(f"{url}/", origin="https://evil.example")
    assert (refusal.status, refusal.code) == (403, "forbidden")
    assert refusal.message == "origin https://evil.example is not allowed"
    assert log == []
    assert "from origin https://evil.example: list it in origins= to allow it" in caplog.text


async def test_a_browser_of_the_same_origin_and_no_browser_get_in(serve):
    async with serve(Symphony()) as url:
        host = url.removeprefix("ws://").partition("/")[0]
        for options in ({"origin": f"http://{host}"}, {}):
            async with connect(f"{url}/", **options):
                pass
        for origin in (f"https://{host}", "http://127.0.0.1:1", "null"):
            assert (await refused(f"{url}/", origin=origin)).status == 403


@pytest.mark.parametrize(
    ("allowed", "origin", "gets_in"),
    [
        (["https://example.com"], "https://example.com", True),
        (["https://example.com"], "https://example.com:444", False),
        (["https://example.com"], "http://example.com", False),
        (["https://example.com"], "https://a.example.com", False),
        (["https://*.example.com"], "https://a.example.com", True),
        (["https://*.example.com"], "https://a.b.example.com", True),
        (["https://*.example.com"], "https://example.com", False),
        (["https://*.example.com"], "https://evil-example.com", False),
        (["https://*.example.com", "http://localhost:3000"], "http://localhost:3000", True),
        (["*"], "https://anyone.example", True),
        (["*"], "null", True),
    ],
)
async def test_origins_that_are_listed_get_in(serve, allowed, origin, gets_in):
    app = Symphony(origins=allowed)
    async with serve(app) as url:
        if gets_in:
            async with connect(f"{url}/", origin=origin):
                pass
        else:
            assert (await refused(f"{url}/", origin=origin)).status == 403


async def test_a_route_may_have_origins_of_its_own(serve):
    app = Symphony(origins=["https://example.com"])
    app.route("/public", origins=["*"])
    app.route("/private", origins=[])
    app.route("/usual")
    async with serve(app) as url:
        for path, origin in (("/public", "https://x.example"), ("/usual", "https://example.com")):
            async with connect(f"{url}{path}", origin=origin):
                pass
        for path in ("/private", "/usual"):
            assert (await refused(f"{url}{path}", origin="https://x.example")).status == 403
        assert (await refused(f"{url}/private", origin="https://example.com")).status == 403


async def test_the_first_subprotocol_of_the_servers_preference_is_chosen(serve):
    app = Symphony(subprotocols=["chat.v2", "chat.v1"])
    app.route("/own", subprotocols=["other"])

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send([socket.subprotocol, socket.handshake.subprotocols])

    app.route("/usual")
    async with serve(app) as url:
        for path, offered, chosen in (
            ("/usual", ["chat.v1", "chat.v2"], "chat.v2"),
            ("/usual", ["unknown", "chat.v1"], "chat.v1"),
            ("/own", ["chat.v1", "other"], "other"),
        ):
            async with connect(f"{url}{path}", subprotocols=offered) as client:
                assert client.subprotocol == chosen
                assert json.loads(await client.recv()) == [chosen, offered]


async def test_without_a_common_subprotocol_none_is_chosen(serve):
    app = Symphony(subprotocols=["chat.v1"])

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send([socket.subprotocol])

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            assert await client.recv() == "[null]"
        try:
            async with connect(f"{url}/", subprotocols=["other"]) as client:
                assert client.subprotocol is None
        except NegotiationError as error:
            pytest.fail(str(error))


async def test_a_host_that_is_not_listed_is_refused(serve):
    listed, other = Symphony(hosts=["127.0.0.1"]), Symphony(hosts=["example.com", "*.example.org"])
    async with serve(listed) as url, connect(f"{url}/"):
        pass
    async with serve(other) as url:
        refusal = await refused(f"{url}/")
        assert (refusal.status, refusal.code) == (403, "forbidden")
        assert 'hosts=["127.0.0.1"]' in refusal.message


@pytest.mark.within("max_connections")
@pytest.mark.beyond("max_connections")
async def test_more_connections_than_the_limit_are_a_503_until_one_goes(serve):
    app = Symphony(limits=Limits(max_connections=2))
    async with serve(app) as url:
        async with connect(f"{url}/"), connect(f"{url}/"):
            refusal = await refused(f"{url}/")
            assert (refusal.status, refusal.code) == (503, "unavailable")
            assert refusal.message == "the server has as many connections as it may"
        await until(lambda: app.stats.closed == 2)
        async with connect(f"{url}/"):
            pass


@pytest.mark.within("max_connections_per_client")
@pytest.mark.beyond("max_connections_per_client")
async def test_more_connections_of_one_client_than_its_limit_are_a_429(serve):
    app = Symphony(limits=Limits(max_connections_per_client=2))
    async with serve(app) as url:
        async with connect(f"{url}/"), connect(f"{url}/"):
            refusal = await refused(f"{url}/")
            assert (refusal.status, refusal.code) == (429, "too_many")
            assert refusal.message == "too many connections from your address"
            async with connect(f"{url}/", local_addr=("127.0.0.2", 0)):
                pass
        await until(lambda: app.stats.closed == 3)
        async with connect(f"{url}/"), connect(f"{url}/"):
            pass


async def test_a_handshake_that_is_refused_gives_its_place_back(serve):
    app = Symphony(limits=Limits(max_connections=1))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        if "no" in socket.handshake.query_params:
            raise Reject("forbidden")

    async with serve(app) as url:
        for _ in range(3):
            assert (await refused(f"{url}/?no")).status == 403
            await until(lambda: not app._core.node._sessions)
        async with connect(f"{url}/"):
            pass


@pytest.mark.beyond("connect_timeout")
async def test_a_connect_handler_that_takes_too_long_is_a_503(serve, caplog):
    app = Symphony(limits=Limits(connect_timeout=0.05))
    log = Log()

    @app.route("/slow").on_connect
    async def enter() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async with serve(app) as url:
        refusal = await refused(f"{url}/slow")
    assert (refusal.status, refusal.code) == (503, "timeout")
    assert refusal.message == "the server took too long to answer"
    assert log == ["cancelled"]
    assert "The connect handler of /slow did not answer within 0.05 s." in caplog.text


@pytest.mark.within("connect_timeout")
async def test_the_connect_timeout_ends_when_the_socket_opens(serve):
    app = Symphony(limits=Limits(connect_timeout=0.05))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("open")
        await asyncio.sleep(0.1)
        await socket.send("still at work")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert [await client.recv(), await client.recv()] == ["open", "still at work"]


@pytest.mark.beyond("idle_timeout")
async def test_a_socket_that_says_nothing_is_closed_after_the_idle_timeout(serve):
    app = Symphony(limits=Limits(idle_timeout=0.05))
    async with serve(app) as url, connect(f"{url}/") as client:
        assert await closed(client) == (4408, "idle for too long")
    assert app.stats.idle == 1


@pytest.mark.within("idle_timeout")
async def test_each_message_puts_the_idle_timeout_off(serve):
    app = Symphony(limits=Limits(idle_timeout=0.6))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for _ in range(5):
            await asyncio.sleep(0.16)
            await client.send("x")
            assert await client.recv() == "x"
        assert (await closed(client))[0] == 4408


async def test_refusals_are_counted(serve):
    app = Symphony()
    app.route("/x")
    async with serve(app) as url:
        await refused(f"{url}/y")
        await refused(f"{url}/x", origin="https://evil.example")
        async with connect(f"{url}/x"):
            pass
        await until(lambda: app.stats.closed == 1)
    assert (app.stats.refused, app.stats.opened, app.stats.closed) == (2, 1, 1)
