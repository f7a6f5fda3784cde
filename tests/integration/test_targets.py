"""Targets besides rooms: one socket by its id, a user, several users, the sockets of a route."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import Client, Log, closed, connect, refused, until
from symphony import (
    ConfigurationError,
    DisconnectedError,
    Identity,
    Limits,
    Reject,
    RemoteError,
    RequestTimeoutError,
    Router,
    Socket,
    SocketTarget,
    Symphony,
    User,
    Users,
    WrongRouteError,
    WrongThreadError,
)


def app_of_users(**options: Any) -> Symphony:
    """Make an app with a raw route and an event route, whose sockets log in as `?user=`."""
    app = Symphony(**options)

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        if user := socket.handshake.query_params.get("user"):
            socket.login(Identity(user))
        await call_next(socket)

    app.route("/raw").on_message(lambda message: message)
    app.route("/events").on("echo")(lambda data: data)
    return app


async def connected(app: Symphony, clients: AsyncExitStack, url: str) -> Client:
    """Connect a client, and return it when its socket is open at the server."""
    before = app.stats.opened
    client = await clients.enter_async_context(connect(url))
    await until(lambda: app.stats.opened > before)
    return client


async def heard(client: Client) -> Any:
    async with asyncio.timeout(5):
        message = await client.recv()
    try:
        return json.loads(message)
    except ValueError:
        return message


async def silent(app: Symphony, *clients: Client) -> None:
    """Check that the next thing that each hears is this mark."""
    for socket in app.everyone.sockets:
        await socket.emit("mark")
    for client in clients:
        assert (await heard(client))["event"] == "mark"


async def test_a_message_to_a_user_reaches_all_of_their_sockets_and_no_others(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        phone = await connected(app, clients, f"{url}/raw?user=ann")
        laptop = await connected(app, clients, f"{url}/events?user=ann")
        bob = await connected(app, clients, f"{url}/events?user=bob")
        anonymous = await connected(app, clients, f"{url}/raw")
        ann = app.user("ann")
        assert isinstance(ann, User)
        assert (ann.id, ann.name, await ann.count()) == ("ann", "user:ann", 2)
        assert [socket.route for socket in ann.sockets] == ["/raw", "/events"]
        assert ann.sockets[0] in ann
        assert ann == app.user("ann") != app.user("bob")

        assert await ann.emit("hi", 1) is None
        await ann.send("plain")
        assert await heard(phone) == {"event": "hi", "data": 1}
        assert await phone.recv() == "plain"
        assert await heard(laptop) == {"event": "hi", "data": 1}
        assert await heard(laptop) == {"event": "message", "data": "plain"}
        await ann.emit("others", exclude=ann.sockets[0])
        assert (await heard(laptop))["event"] == "others"
        await silent(app, phone, laptop, bob, anonymous)
        # It is the room of that name.
        assert app.room("user:ann").sockets == ann.sockets
        await app.room("user:ann").emit("by name")
        assert (await heard(phone))["event"] == "by name"
        assert (await heard(laptop))["event"] == "by name"

        await phone.close()
        await until(lambda: len(ann.sockets) == 1)
        await laptop.close()
        await until(lambda: not ann.sockets)
        assert await ann.count() == 0
        # They are away: at most once.
        assert await ann.emit("nobody hears it") is None


async def test_a_socket_that_logs_in_while_it_is_open_is_the_users_at_once(serve):
    app = Symphony()

    @app.on_message
    async def sign_in(socket: Socket, user: str) -> str:
        socket.login(Identity(user))
        app.user(user).send(f"welcome {user}")
        return "done"

    async with serve(app) as url:
        async with connect(f"{url}/") as one, connect(f"{url}/") as two:
            for client, user in ((one, "ann"), (two, "bob")):
                await client.send(user)
                assert [await client.recv(), await client.recv()] == [f"welcome {user}", "done"]
            assert (len(app.user("ann").sockets), len(app.user("bob").sockets)) == (1, 1)
        await until(lambda: app.stats.closed == 2)
        assert len(app._core.node.rooms) == 0


async def test_the_room_of_a_user_is_closed_to_all_who_name_it(serve):
    app = app_of_users()
    app.rooms("user:{id}", client_join=True)
    log = Log()

    @app.route("/join", events=True).on("try")
    async def attempt(socket: Socket, name: str) -> None:
        for call in (socket.join(name), socket.join(name, authorize=False), socket.leave(name)):
            try:
                await call
            except Reject as refusal:
                log.append(refusal.code)
        log.append(sorted(socket.rooms))

    async with serve(app) as url, AsyncExitStack() as clients:
        client = await connected(app, clients, f"{url}/join?user=ann")
        # It has `client_join`, so its client is told that it is in.
        assert (await heard(client))["joined"] == "user:ann"
        for name in ("user:ann", "user:bob", "user:x y"):
            log.clear()
            await client.send(json.dumps({"event": "try", "data": name, "id": 1}))
            assert (await heard(client))["reply"] == 1
            assert log == ["forbidden"] * 3 + [[]]
        for number, name in enumerate(("user:bob", "user:eve"), 2):
            await client.send(json.dumps({"join": name, "id": number}))
            assert (await heard(client))["data"]["code"] == "forbidden"
        for name in ("user:ann", "user:bob"):
            await client.send(json.dumps({"leave": name, "id": 9}))
            assert (await heard(client))["data"]["code"] == "forbidden"
        assert (len(app.user("ann").sockets), len(app.user("bob").sockets)) == (1, 0)


async def test_the_room_of_a_user_does_not_count_as_one_of_max_rooms(serve):
    app = app_of_users(limits=Limits(max_rooms=2))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await socket.join("b")
        with pytest.raises(Reject, match="in 2 rooms already"):
            await socket.join("c")

    @app.route("/after").on_message
    async def join(socket: Socket, message: str) -> str:
        try:
            await socket.join(message)
        except Reject as refusal:
            return refusal.code
        return ",".join(sorted(socket.rooms))

    async with serve(app) as url, AsyncExitStack() as clients:
        client = await connected(app, clients, f"{url}/after?user=ann")
        assert len(app.user("ann").sockets) == 1
        await client.send("c")
        assert await client.recv() == "too_many"
        [socket] = app.user("ann").sockets
        await socket.leave("a")
        await client.send("c")
        assert await client.recv() == "b,c"


class Counted:
    """Data that counts how often it is encoded."""

    def __init__(self) -> None:
        self.times = 0

    def model_dump(self, *, mode: str) -> Any:
        self.times += 1
        return "counted"


async def test_users_get_one_message_each_which_is_encoded_once(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        ann = [await connected(app, clients, f"{url}/raw?user=ann") for _ in range(2)]
        bob = await connected(app, clients, f"{url}/raw?user=bob")
        eve = await connected(app, clients, f"{url}/raw?user=eve")
        two = app.users("ann", "bob", "ann", "nobody")
        assert isinstance(two, Users)
        assert two.ids == ("ann", "bob", "nobody")
        assert await two.count() == len(two.sockets) == 3
        await two.send("to both")
        await two.emit("event", [1], exclude=app.user("bob"))
        await two.emit("last", exclude=[two.sockets[0], app.socket(two.sockets[1].id)])
        for client in ann:
            assert await client.recv() == "to both"
            assert await heard(client) == {"event": "event", "data": [1]}
        assert await bob.recv() == "to both"
        assert (await heard(bob))["event"] == "last"
        counted = Counted()
        await app.users("ann", "bob", "eve").emit("once", counted)
        assert counted.times == 1
        for client in (*ann, bob, eve):
            assert await heard(client) == {"event": "once", "data": "counted"}
        await silent(app, *ann, bob, eve)
        await app.users().send("to none")


async def test_a_request_to_a_user_takes_the_first_reply_or_all(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        phone = await connected(app, clients, f"{url}/events?user=ann")
        laptop = await connected(app, clients, f"{url}/events?user=ann")
        await connected(app, clients, f"{url}/raw?user=ann")
        ann = app.user("ann")

        first = asyncio.ensure_future(ann.request("which", 1, response_type=str))
        asked = [await heard(client) for client in (phone, laptop)]
        assert [each["event"] for each in asked] == ["which", "which"]
        await laptop.send(json.dumps({"reply": asked[1]["id"], "data": "laptop"}))
        assert await first == "laptop"
        assert (await heard(phone)).keys() == {"cancel"}

        # One that fails is no reply.
        first = asyncio.ensure_future(ann.request("which"))
        asked = [await heard(client) for client in (phone, laptop)]
        error = {"code": "shop.busy", "message": "", "retryable": False, "details": None}
        await phone.send(json.dumps({"error": asked[0]["id"], "data": error}))
        await laptop.send(json.dumps({"reply": asked[1]["id"], "data": 2}))
        assert await first == 2

        every = asyncio.ensure_future(ann.request("which", policy="all"))
        asked = [await heard(client) for client in (phone, laptop)]
        await laptop.send(json.dumps({"reply": asked[1]["id"], "data": "laptop"}))
        await phone.send(json.dumps({"reply": asked[0]["id"], "data": "phone"}))
        assert await every == ["phone", "laptop"]

        # More than half of two are two, and of three two as well.
        most = asyncio.ensure_future(ann.request("which", policy="quorum"))
        asked = [await heard(client) for client in (phone, laptop)]
        await laptop.send(json.dumps({"reply": asked[1]["id"], "data": "laptop"}))
        await phone.send(json.dumps({"reply": asked[0]["id"], "data": "phone"}))
        assert await most == ["phone", "laptop"]
        async with connect(f"{url}/events?user=ann") as tablet:
            await until(lambda: len(ann.sockets) == 4)
            most = asyncio.ensure_future(ann.request("which", policy="quorum"))
            asked = [await heard(client) for client in (phone, laptop, tablet)]
            await tablet.send(json.dumps({"reply": asked[2]["id"], "data": "tablet"}))
            await phone.send(json.dumps({"reply": asked[0]["id"], "data": "phone"}))
            assert await most == ["phone", "tablet"]
            assert (await heard(laptop)).keys() == {"cancel"}
        await until(lambda: len(ann.sockets) == 3)

        # One that goes meanwhile is not waited for.
        every = asyncio.ensure_future(ann.request("which", policy="all"))
        asked = [await heard(client) for client in (phone, laptop)]
        await laptop.send(json.dumps({"reply": asked[1]["id"], "data": "laptop"}))
        await phone.close()
        assert await every == ["laptop"]


async def test_a_request_to_a_user_fails_when_nobody_can_answer(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        with pytest.raises(Reject) as refusal:
            await app.user("ann").request("which")
        assert (refusal.value.code, refusal.value.details) == ("not_found", {"user": "ann"})
        await connected(app, clients, f"{url}/raw?user=ann")
        with pytest.raises(WrongRouteError):
            await app.user("ann").request("which")
        one = await connected(app, clients, f"{url}/events?user=ann")
        two = await connected(app, clients, f"{url}/events?user=ann")
        for policy in ("first", "quorum", "all"):
            with pytest.raises(RequestTimeoutError):
                await app.user("ann").request("which", policy=policy, timeout=0.01)
            asking = asyncio.ensure_future(app.user("ann").request("which", policy=policy))
            for client in (one, two):
                while (asked := await heard(client)).get("event") != "which" or "timeout" in str(
                    asked.get("data")
                ):
                    pass
            asking.cancel()
        with pytest.raises(ValueError, match="'first', 'quorum', 'all'"):
            await app.user("ann").request("which", policy="some")  # type: ignore[call-overload]


async def test_all_sockets_of_a_user_are_closed_with_code_and_reason(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        ann = [await connected(app, clients, f"{url}/{kind}?user=ann") for kind in ("raw", "events")]
        bob = await connected(app, clients, f"{url}/raw?user=bob")
        with pytest.raises(ValueError, match="1005"):
            app.user("ann").close(1005)
        await app.user("nobody").close(4000)
        await app.user("ann").close(4001, "signed out")
        assert [await closed(client) for client in ann] == [(4001, "signed out")] * 2
        await bob.send("still here")
        assert await bob.recv() == "still here"
        await until(lambda: not app.user("ann").sockets)


async def test_a_message_to_a_socket_that_is_not_open_is_told_to_on_error(serve, caplog):
    app = app_of_users()
    log = Log()

    @app.on_error
    def failed(socket: Socket | None, error: Exception) -> None:
        log.append((socket, type(error), str(error)))

    async with serve(app) as url, AsyncExitStack() as clients:
        client = await connected(app, clients, f"{url}/raw")
        [socket] = app.everyone.sockets
        target = app.socket(socket.id)
        assert isinstance(target, SocketTarget)
        assert target == app.socket(socket.id)
        await target.send("open")
        assert await client.recv() == "open"
        await target.close(4002, "bye")
        assert await closed(client) == (4002, "bye")
        await until(lambda: app.stats.closed == 1)
        assert (log, app.stats.undelivered) == ([], 0)
        for id in (socket.id, "never", ""):
            log.clear()
            unknown = app.socket(id)
            await unknown.send("lost")
            unknown.emit("news", 1)
            await unknown.close()
            with pytest.raises(Reject) as refusal:
                await unknown.request("which")
            assert (refusal.value.code, refusal.value.details) == ("not_found", {"socket": id})
            await log.reaches(2)
            assert [(None, DisconnectedError)] * 2 == [entry[:2] for entry in log]
            assert [
                f"{id!r}: the {what} was not sent" in entry[2]
                for what, entry in zip(("message", "event 'news'"), log, strict=True)
            ] == [True, True]
        assert (app.stats.undelivered, app.stats.failed_handlers) == (6, 0)
    assert "There is no open socket" in caplog.text


async def test_everyone_of_a_route_and_of_a_router(serve):
    app = Symphony()
    games, chats = Router("/games"), Router("/chats")
    chess, go = games.route("/chess"), games.route("/go/{id:int}")
    binary, hidden = games.route("/binary"), games.route("/hidden", everyone=False)
    lobby = chats.route("/lobby")
    for route in (chess, go, hidden, lobby):
        route.on_message(lambda message: message)

    @binary.on_message
    async def echo(message: bytes) -> bytes:
        return message

    games.include(chats, prefix="/of")
    app.include(games)
    app.include(chats)
    with pytest.raises(RuntimeError, match=r"route '/chess'.everyone: its app is not running"):
        _ = chess.everyone
    paths = ("games/chess", "games/go/1", "games/go/2", "games/binary", "games/hidden")
    paths = (*paths, "games/of/chats/lobby", "chats/lobby")
    async with serve(app) as url, AsyncExitStack() as clients:
        before = [await connected(app, clients, f"{url}/{path}") for path in paths]
        counts = {
            "chess": (chess, 1),
            "go": (go, 2),
            "binary": (binary, 1),
            "hidden": (hidden, 1),
            "lobby": (lobby, 2),
            "games": (games, 4),
            "chats": (chats, 2),
        }
        for group, count in counts.values():
            assert await group.everyone.count() == count, group
        # Those that come after the first use are part of it, too.
        after = [await connected(app, clients, f"{url}/{path}") for path in paths]
        for group, count in counts.values():
            assert len(group.everyone.sockets) == 2 * count, group
        assert await app.everyone.count() == 2 * 5
        assert app.everyone.sockets[0] in chess.everyone

        by_path = dict(zip(paths, zip(before, after, strict=True), strict=True))
        await go.everyone.send("to go", exclude=go.everyone.sockets[0])
        await games.everyone.send("to games")
        await chats.everyone.emit("to", "chats")
        await binary.everyone.send(b"to binary")
        await app.everyone.send("to all")
        heard = {
            "games/chess": ["to games", "to all"],
            "games/go/1": ["to go", "to games", "to all"],
            "games/go/2": ["to go", "to games", "to all"],
            "games/binary": [b"to binary"],
            "games/hidden": [],
            "games/of/chats/lobby": ["to games", '{"event":"to","data":"chats"}', "to all"],
            "chats/lobby": ['{"event":"to","data":"chats"}', "to all"],
        }
        for path, (one, two) in by_path.items():
            for client in (one, two):
                first = client is one and path == "games/go/1"
                for expected in heard[path][1:] if first else heard[path]:
                    assert await client.recv() == expected, path
        for clients_of in by_path.values():
            for client in clients_of:
                await client.close()
        await until(lambda: app.stats.closed == 14)
        assert [len(group.everyone.sockets) for group, _ in counts.values()] == [0] * 7
    with pytest.raises(RuntimeError, match=r"router '/games'.everyone: its app is not running"):
        _ = games.everyone


async def test_a_router_of_two_running_apps_has_no_everyone(serve):
    shared = Router()
    shared.route("/a").on_message(lambda message: message)
    one, two = Symphony(), Symphony()
    one.include(shared)
    two.include(shared)
    async with serve(one):
        assert await shared.everyone.count() == 0
        async with serve(two):
            with pytest.raises(RuntimeError, match="part of several running apps"):
                _ = shared.everyone
        assert await shared.everyone.count() == 0


async def test_targets_belong_to_the_thread_of_the_event_loop(serve):
    app = app_of_users()
    route = app.route("/more")
    async with serve(app) as url, connect(f"{url}/raw?user=ann"):
        await until(lambda: app.everyone.sockets)
        [socket] = app.everyone.sockets
        calls = {
            "app.threadsafe.user('ann').emit(…)": lambda: app.user("ann").emit("x"),
            "app.threadsafe.user('ann').count(…)": lambda: app.user("ann").count(),
            "app.threadsafe.user('ann').history(…)": lambda: app.user("ann").history(),
            "app.threadsafe.user('ann').close(…)": lambda: app.user("ann").close(),
            "app.threadsafe.users(…).send(…)": lambda: app.users("ann").send("x"),
            f"app.threadsafe.socket({socket.id!r}).send(…)": lambda: app.socket(socket.id).send("x"),
            "app.threadsafe.socket('?').close(…)": lambda: app.socket("?").close(),
            "app.threadsafe.route(…).everyone.send(…)": lambda: route.everyone.send("x"),
        }
        for instead, call in calls.items():
            with pytest.raises(WrongThreadError) as caught:
                await asyncio.to_thread(call)
            assert f"Use {instead} there" in str(caught.value)


async def test_exclude_takes_targets_and_no_ids(serve):
    app = app_of_users()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("all")

    async with serve(app) as url, AsyncExitStack() as clients:
        users = ("ann", "ann", "bob", "eve")
        sockets = [await connected(app, clients, f"{url}/raw?user={user}") for user in users]
        room = app.room("all")
        ids = [socket.id for socket in room.sockets]
        room.send("no ann", exclude=app.user("ann"))
        room.send("no bob", exclude=app.socket(ids[2]))
        room.send("only eve", exclude=[app.users("ann", "bob"), room.sockets[0]])
        room.send("all", exclude=app.socket("unknown"))
        expected = [["no bob", "all"]] * 2 + [["no ann", "all"], ["no ann", "no bob", "only eve", "all"]]
        for client, messages in zip(sockets, expected, strict=True):
            assert [await client.recv() for _ in messages] == messages
        for wrong in (ids[0], [ids[0]]):
            with pytest.raises(TypeError, match="takes sockets, not the id"):
                room.send("x", exclude=wrong)  # type: ignore[arg-type]


async def test_an_error_of_a_client_is_raised_if_no_other_answers(serve):
    app = app_of_users()
    async with serve(app) as url, AsyncExitStack() as clients:
        both = [await connected(app, clients, f"{url}/events?user=ann") for _ in range(2)]
        error = {"code": "shop.busy", "message": "later", "retryable": True, "details": None}
        for policy in ("first", "quorum", "all"):
            asking = asyncio.ensure_future(app.user("ann").request("which", policy=policy))
            for client in both:
                asked = await heard(client)
                await client.send(json.dumps({"error": asked["id"], "data": error}))
            with pytest.raises(RemoteError, match=r"shop\.busy: later"):
                await asking


async def test_a_raw_socket_is_replaced_by_its_users_next_one(serve):
    app = app_of_users()
    app.route("/one", per_user=1).on_message(lambda message: message)
    async with serve(app) as url, AsyncExitStack() as clients:
        first = await connected(app, clients, f"{url}/one?user=ann")
        second = await connected(app, clients, f"{url}/one?user=ann")
        assert (await closed(first))[0] == 4410
        bob = await connected(app, clients, f"{url}/one?user=bob")
        for client in (second, bob):
            await client.send("here")
            assert await client.recv() == "here"
        assert (await refused(f"{url}/one")).code == "unauthorized"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per_user": 2}, "per_user= is 1 or None, not 2"),
        ({"per_user": 0}, "per_user= is 1 or None, not 0"),
        ({"per_user": 1, "on_conflict": "ignore"}, "on_conflict= is 'replace' or 'refuse', not 'ignore'"),
        ({"on_conflict": "refuse"}, "on_conflict= needs per_user=1"),
    ],
)
async def test_options_for_one_socket_a_user_are_checked_at_start(options, said):
    app = Symphony()
    app.route("/", **options)
    with pytest.raises(ConfigurationError, match=said):
        async with app.lifespan():
            pass
