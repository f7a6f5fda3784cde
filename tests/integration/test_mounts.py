"""`app.mount(path, asgi_app)`: plain HTTP below a path, on the port of the sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from support.clients import Log, connect, get
from support.servers import serve_asgi, serve_natively
from symphony import ConfigurationError, Limits, Symphony

EACH_SERVER = pytest.mark.parametrize("serve_outer", [serve_natively, serve_asgi])


def named(name: str) -> Any:
    """Make an ASGI app that answers with its name and what it sees of the path."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse(f"{name} {scope['root_path']} {scope['path']}")(scope, receive, send)

    return app


async def told(url: str) -> tuple[str, str]:
    """Return which app answered, and the path below its `root_path`."""
    name, root, path = (await get(url)).text.split(" ")
    assert path.startswith(root)
    return name, path[len(root) :]


async def test_the_longest_path_that_fits_answers_and_the_http_app_has_the_rest(serve):
    app = Symphony(http=named("site"))
    app.mount("/metrics", named("metrics"))
    app.mount("/metrics/daily", named("daily"))

    async with serve(app) as url:
        for path, answer in {
            "/metrics": ("metrics", ""),
            "/metrics/": ("metrics", "/"),
            "/metrics/cpu": ("metrics", "/cpu"),
            "/metrics/daily": ("daily", ""),
            "/metrics/daily/cpu": ("daily", "/cpu"),
        }.items():
            assert await told(f"{url}{path}") == answer
        for path in ("/metricsx", "/metrics.html", "/other"):
            name, rest = await told(f"{url}{path}")
            assert name == "site"
            assert rest.endswith(path)


async def test_without_an_http_app_what_is_below_no_mount_is_answered_as_ever(serve):
    app = Symphony()
    app.mount("/metrics", named("metrics"))
    async with serve(app) as url:
        assert (await get(f"{url}/")).text.startswith("This is a Symphony server")
        assert (await get(f"{url}/metricsx")).status_code == 404
        assert (await told(f"{url}/metrics"))[0] == "metrics"


async def test_a_mounted_app_has_its_own_routes_and_makes_urls_that_lead_back_to_it():
    async def page(request: Any) -> JSONResponse:
        return JSONResponse({"path": request.url.path, "self": str(request.url_for("page"))})

    async def index(request: Any) -> PlainTextResponse:
        return PlainTextResponse("index")

    async def inner(request: Any) -> PlainTextResponse:
        return PlainTextResponse("inner")

    site = Starlette(
        routes=[
            Route("/", index),
            Route("/page", page, name="page"),
            Mount("/deeper", routes=[Route("/inner", inner)]),
        ]
    )
    app = Symphony()
    app.mount("/admin", site)

    async with serve_natively(app) as url:
        answer = (await get(f"{url}/admin/page")).json()
        assert answer["path"] == "/admin/page"
        assert answer["self"] == f"{url.replace('ws', 'http', 1)}/admin/page"
        assert (await get(answer["self"])).json() == answer
        assert (await get(f"{url}/admin/")).text == "index"
        # Starlette sends `/admin` on to `/admin/`, as it does for its own mounts.
        redirect = await get(f"{url}/admin")
        assert redirect.status_code == 307
        assert redirect.headers["location"].endswith("/admin/")
        assert (await get(f"{url}/admin/deeper/inner")).text == "inner"
        assert (await get(f"{url}/admin/page/none")).status_code == 404


async def test_web_sockets_below_a_mount_go_to_routes(serve):
    app = Symphony()
    app.mount("/metrics", named("metrics"))

    @app.route("/metrics/live").on_message
    async def live(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/metrics/live") as client:
        await client.send("x")
        assert await client.recv() == "x"
        assert (await told(f"{url}/metrics/live")) == ("metrics", "/live")


def living(log: Log, name: str) -> Starlette:
    """Make an app whose lifespan is logged, and shares its name with its requests."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        log.append(f"{name} up")
        yield {name: "connected"}
        log.append(f"{name} down")

    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse(getattr(request.state, name))

    return Starlette(routes=[Route("/page", page)], lifespan=lifespan)


async def test_the_lifespans_of_mounts_run_once_with_the_apps_own(serve):
    """Mounted in FastAPI, only the app's own lifespan ran: its mounts never started."""
    log = Log()
    site, metrics, admin = living(log, "site"), living(log, "metrics"), living(log, "admin")
    app = Symphony(http=site)
    app.mount("/metrics", metrics)
    app.mount("/metrics/again", metrics)
    app.mount("/site", site)
    app.mount("/admin", admin)
    app.on_startup(lambda: log.append("sockets up"))
    app.on_shutdown(lambda: log.append("sockets down"))

    async with serve(app) as url:
        assert log == ["sockets up", "site up", "metrics up", "admin up"]
        for path in ("/metrics", "/metrics/again", "/site", "/admin"):
            assert (await get(f"{url}{path}/page")).text == "connected"
    assert log[4:] == ["admin down", "metrics down", "site down", "sockets down"]


@pytest.mark.parametrize("phase", ["start", "stop"])
async def test_a_mount_whose_lifespan_fails_is_named(phase, caplog):
    log = Log()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if phase == "start":
            raise RuntimeError("no templates")
        yield
        raise RuntimeError("no goodbye")

    app = Symphony()
    app.mount("/first", living(log, "first"))
    app.mount("/metrics", Starlette(lifespan=lifespan))
    app.on_shutdown(lambda: log.append("shutdown"))

    if phase == "start":
        with pytest.raises(
            RuntimeError, match=r"(?s)app mounted at '/metrics' failed to start: .*no templates"
        ):
            async with app.lifespan():
                pytest.fail("it must not start")
    else:
        async with app.lifespan():
            pass
        assert "app mounted at '/metrics' failed to stop" in caplog.text
        assert "no goodbye" in caplog.text
    # What had started was stopped all the same.
    assert log == ["first up", "first down", "shutdown"]


@EACH_SERVER
async def test_an_app_inside_fastapi_serves_its_own_mounts(serve_outer):
    ws = Symphony(http=named("site"))
    ws.mount("/metrics", named("metrics"))
    outer = FastAPI(lifespan=ws.lifespan)

    @outer.get("/metrics")
    def metrics() -> str:
        return "the outer app's"

    outer.mount("/ws", ws)
    async with serve_outer(outer) as url:
        assert (await get(f"{url}/metrics")).json() == "the outer app's"
        assert (await get(f"{url}/ws/metrics/cpu")).text == "metrics /ws/metrics /ws/metrics/cpu"
        assert (await get(f"{url}/ws/metricsx")).text == "site /ws /ws/metricsx"
        script = await get(f"{url}/ws/_symphony/client.js")
        assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("root", "path", "answer"),
    [
        ("/api", "/api/metrics", "metrics /api/metrics /api/metrics"),
        ("/api/", "/api/metrics", "metrics /api/metrics /api/metrics"),
        ("/api", "/apis/metrics", "site /api /apis/metrics"),
        # A proxy has taken the prefix away.
        ("/api", "/metrics", "metrics /api/metrics /metrics"),
    ],
)
async def test_the_root_path_of_a_server_counts_only_as_whole_segments(root, path, answer):
    app = Symphony(http=named("site"))
    app.mount("/metrics", named("metrics"))
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "headers": []}
    await app(scope, receive, send)
    assert sent[1]["body"].decode() == answer
    assert scope["root_path"] == root


def test_a_symphony_app_is_not_mounted_but_included():
    with pytest.raises(ConfigurationError, match=r"app.mount\('/chat'\): .*app.include\(router, prefix=…\)"):
        Symphony().mount("/chat", Symphony())


def test_the_path_of_the_javascript_client_is_taken_unless_that_is_turned_off():
    with pytest.raises(ConfigurationError, match="mounted at '/_symphony' already"):
        Symphony().mount("/_symphony", named("mine"))
    Symphony(client_script=False).mount("/_symphony", named("mine"))


async def test_a_running_app_takes_no_more_mounts(serve):
    app = Symphony()
    async with serve(app):
        with pytest.raises(RuntimeError, match=r"app.mount\('/late'\) was called while the app runs"):
            app.mount("/late", named("late"))


def test_apps_lists_the_http_app_and_each_mount_once():
    site, metrics = named("site"), named("metrics")
    app = Symphony(http=site, client_script=False)
    app.mount("/metrics", metrics)
    app.mount("/again", metrics)
    assert app._apps == (site, metrics)


async def known(scope: Any, receive: Any, send: Any, *, phase: str, how: str) -> None:
    """Be an app whose lifespan goes wrong in a phase."""
    for each in ("startup", "shutdown"):
        await receive()
        if each == phase:
            if how == "raises":
                raise ValueError("no database")
            if how == "fails":
                await send({"type": f"lifespan.{each}.failed", "message": "no database"})
            await asyncio.Event().wait()
        await send({"type": f"lifespan.{each}.complete"})


def ours() -> list[Any]:
    return [task for task in asyncio.all_tasks() if "lifespans" in task.get_coro().cr_code.co_filename]


@pytest.mark.parametrize("how", ["raises", "fails"])
async def test_a_mount_that_does_not_start_leaves_no_task(how: str):
    """It was left running, and one that raised silently counted as without a lifespan."""
    app = Symphony()
    app.mount("/site", partial(known, phase="startup", how=how))
    with pytest.raises(RuntimeError, match=r"mounted at '/site' failed to start: .*no database"):
        async with app.lifespan():
            pass
    assert not ours()


@pytest.mark.parametrize("how", ["raises", "fails", "hangs"])
async def test_a_mount_that_does_not_stop_is_logged_and_does_not_hold_up_the_stop(how: str, caplog):
    app = Symphony(limits=Limits(shutdown_timeout=0.2))
    app.mount("/site", partial(known, phase="shutdown", how=how))
    async with app.lifespan():
        pass
    assert any("mounted at '/site'" in record.getMessage() for record in caplog.records)
    assert not ours()


async def test_an_app_that_raises_before_it_receives_has_no_lifespan(caplog):
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    caplog.set_level("INFO", "symphony.app")
    app = Symphony()
    app.mount("/site", plain)
    async with app.lifespan():
        assert not ours()
    assert "has no lifespan" in caplog.text


@pytest.mark.parametrize("answer", ["returns", "raises"])
async def test_a_lifespan_that_ends_too_early_is_logged_if_it_raised(answer: str, caplog):
    async def brief(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if answer == "raises":
            raise ValueError("lost")

    app = Symphony()
    app.mount("/site", brief)
    async with app.lifespan():
        while ours():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert ("ended too early" in caplog.text) == (answer == "raises")
