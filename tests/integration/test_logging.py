"""What the log says: one line a connect and disconnect, and who holds the loop."""

import asyncio
import json
import logging
import re

import pytest

from support.clients import connect, refused, until
from support.servers import transport
from symphony import Limits, Reject, Socket, Symphony, complaints
from symphony.node import node


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """The messages of one level, without the one about the native transport."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level
        and record.name.startswith("symphony.")
        and "native transport" not in record.getMessage()
    ]


async def test_a_connection_is_one_line_when_it_opens_and_one_when_it_closes(serve, caplog):
    caplog.set_level(logging.INFO, "symphony")
    app = Symphony()

    @app.route("/rooms/{name}").on_connect
    async def enter(socket: Socket) -> None:
        await socket.send(socket.id)

    async with serve(app) as url:
        async with connect(f"{url}/rooms/a") as client:
            id = await client.recv()
            address = "{}:{}".format(*client.local_address)
            await client.close(4001, "had enough")
        await until(lambda: app.stats.closed == 1)
    opened, closed = lines(caplog, logging.INFO)
    assert opened == f"{id} opened on /rooms/{{name}} from {address}"
    found = re.fullmatch(
        rf"{id} closed on /rooms/{{name}} from {address} after (\d+\.\d+) s: 4001 had enough", closed
    )
    assert found
    assert 0 <= float(found[1]) < 5


async def test_a_refusal_is_one_line(serve, caplog):
    caplog.set_level(logging.INFO, "symphony")
    app = Symphony()

    @app.route("/private").on_connect
    async def enter() -> None:
        raise Reject("forbidden", "members only")

    async with serve(app) as url:
        await refused(f"{url}/private")
        await refused(f"{url}/nothing")
    by_handler, by_routing = lines(caplog, logging.INFO)
    assert re.fullmatch(
        r"\S{22} refused on /private from 127\.0\.0\.1:\d+: 403 forbidden: members only", by_handler
    )
    assert "/nothing" in by_routing
    assert "404" in by_routing


async def test_a_peer_cannot_write_lines_of_its_own(serve, caplog):
    caplog.set_level(logging.INFO, "symphony")
    app = Symphony()
    app.route("/x")
    async with serve(app) as url:
        async with connect(f"{url}/x") as client:
            await client.close(4001, "bye\nERROR all is lost")
        if transport() != "mounted":
            # Starlette itself refuses this one.
            await refused(f"{url}/%0AERROR%20forged")
        await until(lambda: app.stats.closed == 1)
    assert any(r"4001 bye\nERROR all is lost" in line for line in lines(caplog, logging.INFO))
    assert not [line for line in lines(caplog, logging.INFO) if "\n" in line]


@pytest.mark.within("blocking_warning")
async def test_a_server_that_works_is_quiet_at_warning(serve, hold, caplog):
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> str:
        await asyncio.sleep(0)
        raise Reject("invalid")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            await client.recv()
        client = await connect(f"{url}/")
        client.transport.abort()
        await until(lambda: app.stats.closed == 2)
    assert lines(caplog, logging.WARNING) == []
    assert lines(caplog, logging.ERROR) == []


@pytest.mark.parametrize("stage", ["connect", "message", "late message", "plain message", "disconnect"])
async def test_a_handler_that_holds_the_loop_is_named(serve, hold, caplog, stage):
    app = Symphony(limits=Limits(blocking_warning=0.02))
    route = app.route("/slow")

    if stage == "connect":

        @route.on_connect
        async def enter() -> None:
            hold(0.03)

    if stage == "plain message":

        @route.on_message
        def plain(message: str) -> str:
            hold(0.03)
            return message

    else:

        @route.on_message
        async def handle(message: str) -> str:
            if stage == "late message":
                await asyncio.sleep(0)
            if "message" in stage:
                hold(0.03)
            return message

    @route.on_disconnect
    async def leave() -> None:
        if stage == "disconnect":
            hold(0.03)

    async with serve(app) as url:
        async with connect(f"{url}/slow") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await until(lambda: app.stats.closed == 1)
    kind = stage.split()[-1]
    [line] = lines(caplog, logging.WARNING)
    assert re.fullmatch(
        rf"The {kind} handler of /slow held the event loop for 0\.03 s \(socket \S{{22}}\)\. "
        r"Await something slow, or register a plain function with thread=True\.",
        line,
    )


async def test_a_background_task_that_holds_the_loop_is_named(serve, hold, caplog):
    app = Symphony(limits=Limits(blocking_warning=0.02))

    async def crunch() -> None:
        hold(0.03)

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        await socket.background(crunch())
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "x"
    [line] = lines(caplog, logging.WARNING)
    assert "background task held the event loop" in line
    assert "crunch" in line


async def test_a_handler_in_a_thread_may_take_its_time(serve, hold, caplog):
    app = Symphony(limits=Limits(blocking_warning=0.02))
    loop = asyncio.get_running_loop()

    async def let_time_pass() -> None:
        hold(0.03)

    @app.on_message(thread=True)
    def handle(message: str) -> str:
        # On the loop, which proves that it is free.
        asyncio.run_coroutine_threadsafe(let_time_pass(), loop).result()
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "x"
    assert lines(caplog, logging.WARNING) == []


async def test_strangers_write_one_line_a_second(serve, caplog):
    """A refused handshake wrote its whole origin, of up to 64 KB, each time."""
    async with serve(Symphony()) as url:
        for _ in range(5):
            await refused(f"{url}/", origin="http://evil" + "x" * 5000)
    warnings = [line for line in lines(caplog, logging.WARNING) if "Refused a browser" in line]
    assert len(warnings) <= 2
    assert all(len(line) < 700 for line in warnings)


def app_of_strangers() -> Symphony:
    app = Symphony()
    raw, events, private = app.route("/raw"), app.route("/events"), app.route("/private")

    @raw.on_message
    async def fails(message: str) -> None:
        raise ValueError(message)

    @events.on("x")
    async def fails_too(data: str) -> None:
        raise KeyError(data)

    @private.on_connect
    async def enter() -> None:
        raise Reject("forbidden", "members only")

    return app


async def malformed(url: str) -> None:
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nBad Header\r\n\r\n")
    await reader.read()
    writer.close()


STRANGERS = {
    "no route": (lambda url: refused(f"{url}/nothing"), "/nothing from"),
    "a handler refuses": (lambda url: refused(f"{url}/private"), "refused on /private from"),
    "malformed": (malformed, "Refused a request from"),
    "a raw message": (lambda url: say(f"{url}/raw", "boo"), "ValueError: boo"),
    "an event": (
        lambda url: say(f"{url}/events", '{"event": "x", "data": "y"}'),
        "KeyError: 'y'",
    ),
    "an error": (lambda url: say(f"{url}/events", '{"event": "error"}'), "reported an error"),
}


async def say(url: str, message: str) -> None:
    async with connect(url) as client:
        await client.send(message)
        if url.endswith("/events"):
            # It is answered after the first one was handled.
            await client.send('{"event": "nothing", "id": 2}')
            while json.loads(await client.recv()).get("error") != 2:
                pass
        else:
            await client.recv()


@pytest.mark.parametrize("kind", STRANGERS)
async def test_whatever_strangers_cause_is_one_line_a_second(serve, caplog, monkeypatch, kind):
    """A client that failed a handler, or was refused, wrote a line and a traceback each time."""
    if kind == "malformed" and transport() != "native":
        pytest.skip("uvicorn itself answers it")
    caplog.set_level(logging.INFO, "symphony")
    monkeypatch.setattr(node, "MAX_FAILURES", 1)
    now = [1000.0]
    monkeypatch.setattr(complaints, "monotonic", lambda: now[0])
    cause, text = STRANGERS[kind]
    async with serve(app_of_strangers()) as url:
        for _ in range(4):
            await cause(url)
        now[0] += 1.0
        await cause(url)
    found = [record for record in caplog.records if text in logging.Formatter().format(record)]
    assert len(found) == 2
    assert found[1].getMessage().endswith("(3 more like this were not logged.)")


@pytest.mark.within("complaints.MAX_FAILURES")
@pytest.mark.beyond("complaints.MAX_FAILURES")
async def test_the_first_failures_of_a_second_are_logged_each(serve, caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(complaints, "monotonic", lambda: now[0])
    async with serve(app_of_strangers()) as url:
        for _ in range(12):
            await say(f"{url}/raw", "boo")
        now[0] += 1.0
        await say(f"{url}/raw", "boo")
    found = [record for record in caplog.records if record.exc_info and "boo" in str(record.exc_info[1])]
    assert len(found) == 11
    assert found[10].getMessage().endswith("(2 more like this were not logged.)")
