"""Which route answers on a path, and whose handler runs there."""

import json

import pytest

from support.clients import Log, connect, refused
from support.servers import transport
from symphony import Close, Router, Socket, Symphony


def tells(name: str):
    """A connect handler that says which one it is, and what it took from the path."""

    async def enter(socket: Socket) -> None:
        await socket.send([name, {key: str(value) for key, value in socket.params.items()}])

    return enter


@pytest.mark.parametrize("backwards", [False, True])
async def test_static_beats_parameter_beats_wildcard_in_any_order_of_registration(serve, backwards):
    app = Symphony()
    patterns = [
        "/",
        "/pages/new",
        "/pages/{id:int}",
        "/pages/{id:uuid}",
        "/pages/{ratio:float}",
        "/pages/v{version}",
        "/pages/{name}",
        "/pages/{name}/edit",
        "/files/{path:path}",
        "/{rest:path}",
    ]
    for pattern in reversed(patterns) if backwards else patterns:
        app.route(pattern).on_connect(tells(pattern))

    user = "12345678-1234-5678-1234-567812345678"
    expected = {
        "/": ("/", {}),
        "/pages/new": ("/pages/new", {}),
        "/pages/7": ("/pages/{id:int}", {"id": "7"}),
        f"/pages/{user}": ("/pages/{id:uuid}", {"id": user}),
        "/pages/0.5": ("/pages/{ratio:float}", {"ratio": "0.5"}),
        "/pages/v2": ("/pages/v{version}", {"version": "2"}),
        "/pages/other": ("/pages/{name}", {"name": "other"}),
        "/pages/other/edit": ("/pages/{name}/edit", {"name": "other"}),
        "/files/a/b/c.txt": ("/files/{path:path}", {"path": "a/b/c.txt"}),
        "/files/": ("/files/{path:path}", {"path": ""}),
        "/pages/": ("/{rest:path}", {"rest": "pages/"}),
        "/else/where": ("/{rest:path}", {"rest": "else/where"}),
    }
    async with serve(app) as url:
        for path, (pattern, params) in expected.items():
            async with connect(f"{url}{path}") as client:
                assert json.loads(await client.recv()) == [pattern, params]


@pytest.mark.parametrize("path", ["/", "/pages", "/pages/", "/pages/a/b", "/Pages/a"])
async def test_a_path_without_a_route_is_404(serve, path):
    app = Symphony()
    app.route("/pages/{name}").on_connect(tells("page"))

    async with serve(app) as url:
        refusal = await refused(f"{url}{path}?x=/pages/a")
    assert (refusal.status, refusal.code) == (404, "not_found")
    mount = "/mounted" if transport() == "mounted" else ""
    assert refusal.message == f"no WebSocket route for {mount}{path}"
    assert refusal.headers["content-type"] == "application/json"


async def test_with_a_route_the_apps_own_handlers_answer_no_other_path(serve):
    app = Symphony()
    app.on_connect(tells("app"))
    app.route("/x")

    async with serve(app) as url:
        async with connect(f"{url}/x") as client:
            assert json.loads(await client.recv()) == ["app", {}]
        assert (await refused(f"{url}/y")).status == 404


async def test_without_a_route_the_apps_handlers_answer_every_path(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send(socket.handshake.url.path)

    async with serve(app) as url:
        for path in ("/", "/a", "/a/b/c"):
            async with connect(f"{url}{path}") as client:
                assert (await client.recv()).endswith(path)


async def test_percent_encoded_paths_arrive_decoded(serve):
    app = Symphony()
    app.route("/rooms/{name}").on_connect(tells("room"))
    async with serve(app) as url, connect(f"{url}/rooms/caf%C3%A9%20noir") as client:
        assert json.loads(await client.recv()) == ["room", {"name": "café noir"}]


async def test_routers_nest_with_their_prefixes(serve):
    app = Symphony()
    rooms, api = Router("/rooms"), Router("/api")
    rooms.route("/{name}").on_connect(tells("room"))
    rooms.route("").on_connect(tells("rooms"))
    api.include(rooms, prefix="/v1")
    api.include(rooms, prefix="/v2")
    app.include(api)
    # A route that comes after its router was included is there as well.
    rooms.route("/{name}/topic").on_connect(tells("topic"))

    async with serve(app) as url:
        for version in ("v1", "v2"):
            for path, answer in (
                ("/rooms", ["rooms", {}]),
                ("/rooms/a", ["room", {"name": "a"}]),
                ("/rooms/a/topic", ["topic", {"name": "a"}]),
            ):
                async with connect(f"{url}/api/{version}{path}") as client:
                    assert json.loads(await client.recv()) == answer
        assert (await refused(f"{url}/rooms/a")).status == 404


async def test_a_parameter_may_be_in_the_prefix(serve):
    app = Symphony()
    router = Router()

    @router.route("/{name}").on_connect
    async def enter(socket: Socket, team: str, name: str) -> None:
        await socket.send(f"{team} {name}")

    app.include(router, prefix="/teams/{team}")
    async with serve(app) as url, connect(f"{url}/teams/red/ann") as client:
        assert await client.recv() == "red ann"


async def test_the_nearest_handler_runs_and_exactly_one(serve):
    app, router = Symphony(), Router("/router")
    log = Log()

    def handlers(name: str):
        async def enter() -> None:
            log.append(f"{name} connect")

        async def handle(message: str) -> str:
            return name

        async def leave(close: Close) -> None:
            log.append(f"{name} disconnect")

        return enter, handle, leave

    enter, handle, leave = handlers("app")
    app.on_connect(enter)
    app.on_message(handle)
    app.on_disconnect(leave)
    enter, handle, _ = handlers("router")
    router.on_connect(enter)
    router.on_message(handle)
    own = router.route("/own")
    own.on_message(handlers("route")[1])
    router.route("/plain")
    app.route("/far")
    app.include(router)

    expected = {
        "/far": ["app", "app connect", "app disconnect"],
        "/router/plain": ["router", "router connect", "app disconnect"],
        "/router/own": ["route", "router connect", "app disconnect"],
    }
    async with serve(app) as url:
        for path, (answer, *events) in expected.items():
            log.clear()
            async with connect(f"{url}{path}") as client:
                await client.send("x")
                assert await client.recv() == answer
            await log.reaches(2)
            assert log == events


async def test_socket_route_is_the_whole_pattern(serve):
    app, router = Symphony(), Router("/api")

    @router.route("/things/{id:int}").on_connect
    async def enter(socket: Socket) -> None:
        await socket.send([socket.route, socket.params, repr(socket).startswith(f"<Socket {socket.id} ")])

    app.include(router)
    async with serve(app) as url, connect(f"{url}/api/things/7") as client:
        assert json.loads(await client.recv()) == ["/api/things/{id:int}", {"id": 7}, True]
