"""`app.threadsafe`: rooms, sockets and everyone for other threads of the process."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI

from support.clients import Client, Log, closed, connect, get, until
from support.servers import serve_asgi, serve_natively
from symphony import (
    DisconnectedError,
    Identity,
    Limits,
    QueueFullError,
    Reject,
    RemoteError,
    RequestTimeoutError,
    Room,
    Socket,
    Symphony,
    WrongRouteError,
    WrongThreadError,
)

# Each encoder says it in its own words.
UNENCODABLE = r"encod|serializ|type object"


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run *work* in a thread that nobody else made, and return what it returns or raises."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        try:
            value = work()
            if isinstance(value, Future):
                value = value.result()
        except BaseException as error:
            loop.call_soon_threadsafe(result.set_exception, error)
        else:
            loop.call_soon_threadsafe(result.set_result, value)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return await result
    finally:
        thread.join()


def both_kinds(**options: Any) -> Symphony:
    """Make an app with a raw route and an event route; its sockets are all in the room `all`."""
    app = Symphony(**options)

    @app.middleware("connect")
    async def enter(socket: Socket, call_next) -> None:
        await socket.join("all")
        await call_next(socket)

    app.route("/raw").on_message(lambda message: message)
    app.route("/events").on("echo")(lambda data: data)
    return app


async def heard(client: Client) -> Any:
    return json.loads(await client.recv())


async def ids(app: Symphony, count: int) -> list[str]:
    """Return the ids of the open sockets, in the order they came."""
    await until(lambda: len(app.everyone.sockets) == count)
    return [socket.id for socket in app.everyone.sockets]


async def test_a_handler_in_a_thread_sends_to_rooms_sockets_and_everyone(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("chat")

    @app.on_message(thread=True)
    def handle(socket: Socket, message: str) -> int:
        app.threadsafe.room("chat").send(f"room {message}")
        app.threadsafe.everyone.send(f"everyone {message}")
        app.threadsafe.socket(socket.id).send(f"socket {message}")
        app.threadsafe.socket(socket.id).emit("event", message)
        return app.threadsafe.room("chat").count().result() + app.threadsafe.everyone.count().result()

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert [await client.recv() for _ in range(3)] == ["room x", "everyone x", "socket x"]
        assert await heard(client) == {"event": "event", "data": "x"}
        assert await client.recv() == "2"


async def test_any_thread_sends_and_the_results_are_there_in_order(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as raw, connect(f"{url}/events") as events:
        await ids(app, 2)

        def work() -> int:
            app.threadsafe.room("all").send("hello")
            app.threadsafe.room("all").emit("news", {"a": 1})
            app.threadsafe.room("nobody").send("x")
            assert app.threadsafe.room("nobody").count().result() == 0
            return app.threadsafe.room("all").count().result()

        assert await in_thread(work) == 2
        assert await raw.recv() == "hello"
        assert await heard(raw) == {"event": "news", "data": {"a": 1}}
        assert await heard(events) == {"event": "message", "data": "hello"}
        assert await heard(events) == {"event": "news", "data": {"a": 1}}


@pytest.mark.parametrize("server", [serve_natively, serve_asgi])
async def test_a_plain_endpoint_of_fastapi_sends(server):
    app = Symphony()
    site = FastAPI(lifespan=app.lifespan)
    site.mount("/ws", app)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("news")

    @site.get("/publish/{text}")
    def publish(text: str) -> int:
        app.threadsafe.room("news").emit("headline", text)
        return app.threadsafe.room("news").count().result()

    async with server(site) as url, connect(f"{url}/ws/") as client:
        await ids(app, 1)
        assert (await get(f"{url}/publish/hello")).json() == 1
        assert await heard(client) == {"event": "headline", "data": "hello"}


async def test_a_plain_endpoint_of_the_http_app_sends():
    site = FastAPI()
    app = Symphony(http=site)
    app.on_message(lambda message: message)

    @site.get("/publish")
    def publish() -> None:
        app.threadsafe.everyone.send("published")

    async with serve_natively(app) as url, connect(f"{url}/") as client:
        await ids(app, 1)
        assert (await get(f"{url}/publish")).status_code == 200
        assert await client.recv() == "published"


async def test_sockets_are_left_out_by_their_ids(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as one, connect(f"{url}/raw") as two:
        first, second = await ids(app, 2)

        def work() -> None:
            room, everyone = app.threadsafe.room("all"), app.threadsafe.everyone
            room.send("not one", exclude=[first])
            room.send("nobody", exclude={first, second})
            everyone.emit("not two", exclude=second)
            everyone.send("all", exclude=["unknown"])
            everyone.send("both", exclude=())

        await in_thread(work)
        assert [await two.recv() for _ in range(3)] == ["not one", "all", "both"]
        assert json.loads(await one.recv())["event"] == "not two"
        assert [await one.recv() for _ in range(2)] == ["all", "both"]


async def test_a_socket_where_an_id_is_wanted_is_refused(serve):
    """A socket in `exclude=` was none of the ids, and got what it was to be left out of."""
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw"):
        await ids(app, 1)
        [socket] = app.everyone.sockets
        for exclude in (socket, [socket]):
            with pytest.raises(TypeError, match=r"exclude= takes ids of sockets, such as .*\[socket.id\]"):
                await in_thread(partial(app.threadsafe.everyone.send, "x", exclude=exclude))


async def test_a_thread_asks_a_client_and_gets_its_reply_or_its_error(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/events") as client:
        [id] = await ids(app, 1)
        ask = partial(app.threadsafe.socket(id).request, "ask", {"a": 1})

        answer = asyncio.ensure_future(in_thread(partial(ask, response_type=list[int])))
        request = await heard(client)
        assert (request["event"], request["data"]) == ("ask", {"a": 1})
        await client.send(json.dumps({"reply": request["id"], "data": [1, 2]}))
        assert await answer == [1, 2]

        answer = asyncio.ensure_future(in_thread(ask))
        number = (await heard(client))["id"]
        await client.send(json.dumps({"error": number, "data": {"code": "shop.closed", "message": "no"}}))
        with pytest.raises(RemoteError, match="no"):
            await answer

        with pytest.raises(RequestTimeoutError):
            await in_thread(partial(ask, timeout=0.01))


async def test_a_thread_closes_a_socket(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as client:
        [id] = await ids(app, 1)
        await in_thread(partial(app.threadsafe.socket(id).close, 4000, "enough"))
        assert await closed(client) == (4000, "enough")


async def test_what_a_thread_emits_arrives_in_order(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/events") as client:
        [id] = await ids(app, 1)

        def work() -> None:
            for number in range(50):
                app.threadsafe.room("all").emit("room", number)
                app.threadsafe.socket(id).emit("socket", number)

        await in_thread(work)
        frames = [await heard(client) for _ in range(100)]
    assert [(frame["event"], frame["data"]) for frame in frames] == [
        (event, number) for number in range(50) for event in ("room", "socket")
    ]


async def test_several_threads_send_at_once_and_nothing_is_lost(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as client:
        await ids(app, 1)

        def work(name: str) -> None:
            for number in range(20):
                app.threadsafe.everyone.send(f"{name} {number}")

        await asyncio.gather(*(in_thread(partial(work, name)) for name in "abcd"))
        got = [await client.recv() for _ in range(80)]
    for name in "abcd":
        assert [one for one in got if one.startswith(name)] == [f"{name} {number}" for number in range(20)]


CALLS: dict[str, Callable[[Symphony, str], Any]] = {
    "app.threadsafe.room('a').send()": lambda app, id: app.threadsafe.room("a").send("x"),
    "app.threadsafe.room('a').emit()": lambda app, id: app.threadsafe.room("a").emit("x"),
    "app.threadsafe.room('a').count()": lambda app, id: app.threadsafe.room("a").count(),
    "app.threadsafe.everyone.send()": lambda app, id: app.threadsafe.everyone.send("x"),
    "app.threadsafe.everyone.emit()": lambda app, id: app.threadsafe.everyone.emit("x"),
    "app.threadsafe.everyone.count()": lambda app, id: app.threadsafe.everyone.count(),
    "app.threadsafe.socket({id!r}).send()": lambda app, id: app.threadsafe.socket(id).send("x"),
    "app.threadsafe.socket({id!r}).emit()": lambda app, id: app.threadsafe.socket(id).emit("x"),
    "app.threadsafe.socket({id!r}).request()": lambda app, id: app.threadsafe.socket(id).request("x"),
    "app.threadsafe.socket({id!r}).close()": lambda app, id: app.threadsafe.socket(id).close(),
}


async def test_in_the_event_loops_own_thread_it_is_refused_and_named(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as client:
        [id] = await ids(app, 1)
        for shown, call in CALLS.items():
            name = shown.format(id=id)
            with pytest.raises(WrongThreadError) as caught:
                call(app, id)
            assert str(caught.value).startswith(f"{name} was called in the event loop's own thread")
            assert f"Use {name.replace('app.threadsafe', 'app')} there." in str(caught.value)
        # None of them has happened.
        await client.send("still here")
        assert await client.recv() == "still here"


async def test_an_app_that_does_not_run_says_so_in_any_thread():
    app = both_kinds()
    for call in CALLS.values():
        with pytest.raises(RuntimeError, match="The app is not running"):
            await in_thread(partial(call, app, "id"))
        with pytest.raises(RuntimeError, match="The app is not running"):
            call(app, "id")


async def test_what_is_sent_to_a_socket_that_is_not_open_is_reported_as_on_the_loop(serve):
    app = both_kinds()
    errors = Log()

    @app.on_error
    def failed(error: Exception) -> None:
        errors.append(str(error))

    async with serve(app) as url:
        async with connect(f"{url}/events"):
            [id] = await ids(app, 1)
        await until(lambda: app.stats.closed == 1)
        for unknown in (id, "never"):
            for verb in ("send", "emit"):
                assert await in_thread(partial(getattr(app.threadsafe.socket(unknown), verb), "x")) is None
            with pytest.raises(Reject, match="not open"):
                await in_thread(partial(app.threadsafe.socket(unknown).request, "x"))
            assert await in_thread(app.threadsafe.socket(unknown).close) is None
        await errors.reaches(4)
        assert all("There is no open socket" in error for error in errors)


async def test_what_the_call_raises_is_raised_in_the_thread(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/raw") as client:
        [id] = await ids(app, 1)
        for target in (app.threadsafe.room("all"), app.threadsafe.everyone, app.threadsafe.socket(id)):
            with pytest.raises(TypeError, match=UNENCODABLE):
                await in_thread(partial(target.send, object()))
            with pytest.raises(TypeError, match=UNENCODABLE):
                await in_thread(partial(target.emit, "x", {"a": object()}))
        with pytest.raises(ValueError, match="1006"):
            await in_thread(partial(app.threadsafe.socket(id).close, 1006))
        with pytest.raises(WrongRouteError):
            await in_thread(partial(app.threadsafe.socket(id).request, "x"))
        for name in ("", "chat:{name}"):
            with pytest.raises(Reject, match="is not the name of a room"):
                app.threadsafe.room(name)
        await client.send("still here")
        assert await client.recv() == "still here"


@pytest.mark.within("thread_timeout")
@pytest.mark.beyond("thread_timeout")
async def test_a_blocked_loop_is_waited_for_only_so_long_and_the_call_is_taken_back():
    app = both_kinds(limits=Limits(thread_timeout=0.01))
    done, log = threading.Event(), Log()

    async def append() -> None:
        log.append("ran")

    def work() -> None:
        try:
            app.threadsafe.submit(append, "app.threadsafe.test()").result()
        except TimeoutError as error:
            log.append(str(error))
        finally:
            done.set()

    async with app.lifespan():
        thread = threading.Thread(target=work)
        thread.start()
        # The loop is blocked here, in its own thread.
        assert done.wait(10)
        thread.join()
        assert log == [
            "app.threadsafe.test() did not finish within 0.01 s: the event loop is blocked, "
            "or the client does not read."
        ]
        # What it would have run comes to nothing once the loop goes on.
        await in_thread(lambda: app.threadsafe.submit(_nothing, "app.threadsafe.test()", extra=10))
    assert len(log) == 1


async def _nothing() -> None: ...


async def test_a_thread_that_waits_for_a_client_is_told_when_the_app_stops(serve):
    app = both_kinds()
    async with AsyncExitStack() as clients:
        async with serve(app) as url:
            client = await clients.enter_async_context(connect(f"{url}/events"))
            [id] = await ids(app, 1)
            waiting = asyncio.ensure_future(
                in_thread(partial(app.threadsafe.socket(id).request, "ask", timeout=60))
            )
            await client.recv()
        with pytest.raises(DisconnectedError):
            await waiting


def test_a_thread_does_not_wait_for_an_event_loop_that_has_ended():
    """Its calls waited their whole time-out, and then blamed a busy event loop."""
    app = both_kinds(limits=Limits(thread_timeout=60))
    waits, answers = threading.Event(), []

    async def forever() -> None:
        waits.set()
        await asyncio.Event().wait()

    def work() -> None:
        try:
            app.threadsafe.submit(forever, "app.threadsafe.test()").result()
        except RuntimeError as error:
            answers.append(str(error))

    async def main() -> None:
        async with app.lifespan():
            threads.append(threading.Thread(target=work))
            threads[0].start()
            await asyncio.to_thread(waits.wait)

    threads: list[threading.Thread] = []
    asyncio.run(main())
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert answers == ["app.threadsafe.test(): the app stopped before it was done."]
    with pytest.raises(RuntimeError, match="The app is not running"):
        app.threadsafe.everyone.send("x")


def test_a_handle_shows_what_it_is():
    app = Symphony()
    assert repr(app.threadsafe.everyone) == "<app.threadsafe.everyone>"
    assert repr(app.threadsafe.room("a")) == "<app.threadsafe.room('a')>"
    assert repr(app.threadsafe.socket("b")) == "<app.threadsafe.socket('b')>"


async def test_a_thread_reaches_users_and_histories_and_the_sockets_of_a_route(serve):
    app = Symphony()
    app.rooms("user:{id}", history=10)
    teams = app.rooms("team:{name}", history=10)
    allowed = [True]
    teams.authorize(lambda: allowed[0])

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        socket.login(Identity(socket.handshake.query_params["user"]))
        await call_next(socket)
        await socket.join("team:a")

    chat = app.route("/chat", events=True)
    app.route("/other", events=True)
    async with (
        serve(app) as url,
        connect(f"{url}/chat?user=ann") as ann,
        connect(f"{url}/other?user=bob") as bob,
    ):
        await ids(app, 2)
        user, room = app.threadsafe.user("ann"), app.threadsafe.room("team:a")

        def work() -> list[Any]:
            first, second = user.emit("told", 1).result(), room.send("hi").result()
            assert first is not None
            assert second is not None
            return [
                first.offset,
                second.offset,
                user.emit("typing", transient=True).result(),
                [each.data for each in user.history().result()],
                [each.data for each in room.history(5).result()],
                user.count().result(),
                app.threadsafe.users("ann", "bob").count().result(),
                app.threadsafe.users("ann", "bob").emit("both").result(),
                app.threadsafe.route(chat).everyone.emit("route").result(),
                app.threadsafe.route(chat).everyone.count().result(),
            ]

        assert await in_thread(work) == [1, 1, None, [1], ["hi"], 1, 2, None, None, 1]

        async def events(client: Client, last: str) -> list[str]:
            found: list[str] = []
            while last not in found:
                envelope = await heard(client)
                found += [envelope["event"]] if "event" in envelope else []
            return found

        assert await events(ann, "route") == ["told", "message", "typing", "both", "route"]
        asking = asyncio.ensure_future(in_thread(partial(user.request, "which", policy="all")))
        await ann.send(json.dumps({"reply": (await heard(ann))["id"], "data": "phone"}))
        assert await asking == ["phone"]
        allowed[0] = False
        await in_thread(user.revoke)
        assert [socket.user.id for socket in app.room("team:a").sockets] == ["bob"]
        await in_thread(partial(user.close, 4001, "signed out"))
        assert await closed(ann) == (4001, "signed out")
        assert await events(bob, "both") == ["message", "both"]
        with pytest.raises(Reject, match="not the name of a room"):
            await in_thread(app.threadsafe.user("{x}").count)
        with pytest.raises(WrongThreadError, match=r"Use app\.user\('ann'\)\.revoke\(\) there"):
            user.revoke()


async def test_a_call_returns_at_once_and_its_future_has_the_position(serve):
    app = Symphony()
    app.rooms("chat:{name}", history=10)
    async with serve(app):
        room = app.threadsafe.room("chat:a")

        def work() -> list[Any]:
            first = room.emit("said", 1, key="one")
            again = room.emit("said", 1, key="one")
            edit = room.emit("said", 2, replaces=first.result())
            with pytest.raises(Reject, match="key"):
                room.emit("said", 3, key="one").result()
            with pytest.raises(ValueError, match="gap"):
                room.emit("said", 3, exclude=["x"]).result()
            assert room.emit("typing", transient=True, exclude=["x"]).result() is None
            assert room.emit("price", conflate="a", volatile=True).result() is None
            assert first.result() == again.result()
            return [(each.data, each.replaces) for each in room.history().result()] + [
                edit.result().offset - first.result().offset,
                first.result(),
            ]

        (data, replaced), difference, first = await in_thread(work)
        assert (data, replaced, difference) == (2, first, 1)


async def test_data_is_taken_in_the_call(serve):
    """The thread may change it before the event loop has encoded it."""
    app = Symphony()
    app.rooms("chat:{name}", history=10)
    async with serve(app):
        room = app.threadsafe.room("chat:a")

        def work() -> list[Any]:
            blocked = threading.Event()
            app._core.node.loop.call_soon_threadsafe(blocked.wait, 10)
            data = {"n": [1]}
            calls = [room.emit("said", data), room.send(data), room.send(memoryview(b"abc"))]
            data["n"].append(2)
            blocked.set()
            for call in calls:
                call.result()
            return [each.data for each in room.history().result()]

        assert await in_thread(work) == [{"n": [1]}, {"n": [1]}, b"abc"]


@pytest.mark.within("max_thread_calls")
@pytest.mark.beyond("max_thread_calls")
async def test_too_many_calls_that_have_not_ended_are_refused(serve):
    app = both_kinds(limits=Limits(max_thread_calls=10))
    async with serve(app) as url, connect(f"{url}/raw") as client:
        await ids(app, 1)

        def work() -> None:
            blocked = threading.Event()
            app._core.node.loop.call_soon_threadsafe(blocked.wait, 10)
            calls = [app.threadsafe.everyone.send(str(number)) for number in range(10)]
            with pytest.raises(QueueFullError, match=r"everyone.send\(\): 10 calls of other threads"):
                app.threadsafe.everyone.send("too many")
            blocked.set()
            for call in calls:
                call.result()
            # There is room again.
            app.threadsafe.everyone.send("10").result()

        await in_thread(work)
        assert [await client.recv() for _ in range(11)] == [str(number) for number in range(11)]


async def test_a_failure_that_is_not_asked_for_is_reported(serve):
    app = both_kinds()
    errors: list[BaseException] = []

    @app.on_error
    async def note(error: BaseException) -> None:
        errors.append(error)

    async with serve(app):

        def work() -> None:
            # The call does not fail, and reports it, as on the loop.
            app.threadsafe.socket("gone").send("x")
            app.threadsafe.room("a").emit("x", key="needs a history")
            # These are asked for.
            assert isinstance(app.threadsafe.socket("gone").close(1006).exception(), ValueError)
            heard: list[Any] = []
            app.threadsafe.socket("gone").close(1006).add_done_callback(heard.append)
            with pytest.raises(ValueError, match="close code"):
                app.threadsafe.socket("gone").close(1005).result()

        await in_thread(work)
        await until(lambda: len(errors) == 2)
        assert {type(error) for error in errors} == {DisconnectedError, ValueError}


async def test_a_call_can_be_cancelled_before_it_begins_and_while_it_waits(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/events") as client:
        [id] = await ids(app, 1)

        def work() -> None:
            blocked = threading.Event()
            app._core.node.loop.call_soon_threadsafe(blocked.wait, 10)
            call = app.threadsafe.socket(id).emit("never")
            assert call.cancel()
            blocked.set()
            with pytest.raises(CancelledError):
                call.result()
            waiting = app.threadsafe.socket(id).request("ask", timeout=60)
            app.threadsafe.socket(id).emit("asked").result()
            assert waiting.cancel()

        await in_thread(work)
        request = await heard(client)
        assert request["event"] == "ask"
        assert (await heard(client))["event"] == "asked"
        assert (await heard(client))["cancel"] == request["id"]


async def test_the_event_loop_awaits_a_future_and_does_not_wait_for_it(serve):
    app = both_kinds()
    async with serve(app) as url, connect(f"{url}/events"):
        [id] = await ids(app, 1)
        calls = await in_thread(
            lambda: [app.threadsafe.everyone.count(), app.threadsafe.socket(id).request("x")]
        )
        assert await asyncio.wrap_future(calls[0]) == 1
        with pytest.raises(WrongThreadError, match="waited for in the event loop's own thread"):
            calls[1].result()
        calls[1].cancel()


async def test_a_thread_opens_and_closes_rooms_and_sees_their_members(serve):
    app = Symphony()
    rooms = app.rooms("game:{id:int}", members=dict, state=list)
    ended: list[str] = []

    @rooms.on_empty
    async def empty(room: Room) -> None:
        ended.append(room.name)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        socket.login(Identity("ann"))
        await socket.join("game:1")

    async with serve(app) as url:
        room = app.threadsafe.room("game:1")
        assert await in_thread(room.open) is True
        assert await in_thread(room.open) is False
        async with connect(f"{url}/") as client:
            await client.ping()
            await until(lambda: app.room("game:1").sockets)
            assert [member.id for member in await in_thread(room.presence)] == ["ann"]
            assert await in_thread(room.count) == 1
            await in_thread(room.close)
            await until(lambda: ended)
