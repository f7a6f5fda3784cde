"""Plugins: set up once, started in order, stopped in reverse."""

from typing import Any

import pytest

from support.clients import Log, connect
from symphony import ConfigurationError, Plugin, Socket, Symphony


class Named(Plugin):
    def __init__(self, log: Log, name: str, requires: tuple[str, ...] = ()) -> None:
        self.log = log
        self.name = name
        self.requires = requires

    def setup(self, app: Symphony) -> None:
        self.log.append(f"setup {self.name}")

    async def startup(self, app: Symphony) -> None:
        self.log.append(f"up {self.name}")

    async def shutdown(self, app: Symphony) -> None:
        self.log.append(f"down {self.name}")


async def test_plugins_are_set_up_when_added_started_in_order_and_stopped_in_reverse(serve):
    app = Symphony()
    log = Log()
    app.plugin(Named(log, "a"))
    app.plugin(Named(log, "b", requires=("a",)))
    assert log == ["setup a", "setup b"]
    async with serve(app):
        assert log[2:] == ["up a", "up b"]
    assert log[4:] == ["down b", "down a"]


async def test_a_plugin_may_register_everything_an_app_can(serve):
    class Greeter(Plugin):
        name = "greeter"

        def __init__(self, greeting: str) -> None:
            self.greeting = greeting

        def setup(self, app: Symphony) -> None:
            app.middleware(self)
            app.route("/greet").on_connect(self.greet)

        async def greet(self, socket: Socket) -> None:
            await socket.send(self.greeting)

        async def message(self, socket: Socket, message: str, call_next: Any) -> Any:
            return f"{self.greeting}, {message}"

    app = Symphony()
    app.plugin(Greeter("hello"))
    async with serve(app) as url, connect(f"{url}/greet") as client:
        assert await client.recv() == "hello"
        await client.send("you")
        assert await client.recv() == "hello, you"


async def test_a_callable_is_a_plugin(serve):
    def echo(app: Symphony) -> None:
        @app.on_message
        async def handle(message: str) -> str:
            return message

    app = Symphony()
    app.plugin(echo)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "x"


async def test_a_plugin_that_does_not_start_stops_those_that_had():
    log = Log()

    class Broken(Named):
        async def startup(self, app: Symphony) -> None:
            raise RuntimeError("no connection")

    app = Symphony()
    app.plugin(Named(log, "a"))
    app.plugin(Broken(log, "b"))
    app.plugin(Named(log, "c"))
    with pytest.raises(RuntimeError, match="no connection"):
        async with app.lifespan():
            pass
    assert log[3:] == ["up a", "down a"]


async def test_a_plugin_that_does_not_stop_keeps_no_other_from_stopping():
    log = Log()

    class Broken(Named):
        async def shutdown(self, app: Symphony) -> None:
            raise RuntimeError("stuck")

    app = Symphony()
    app.plugin(Named(log, "a"))
    app.plugin(Broken(log, "b"))
    with pytest.raises(RuntimeError, match="stuck"):
        async with app.lifespan():
            pass
    assert log[-1] == "down a"


def test_wrong_plugins_are_refused_where_they_are_added():
    app = Symphony()
    log = Log()
    app.plugin(Named(log, "a"))
    with pytest.raises(ConfigurationError, match="already has a plugin named 'a'"):
        app.plugin(Named(log, "a"))
    with pytest.raises(ConfigurationError, match=r"'b' requires 'x', 'y'\. Add that first"):
        app.plugin(Named(log, "b", requires=("x", "a", "y")))
    with pytest.raises(ConfigurationError, match="The plugin Named has no name"):
        app.plugin(Named(log, ""))
    with pytest.raises(ConfigurationError, match=r"takes an object, not a class\. Write Named\(\.\.\.\)"):
        app.plugin(Named)
    assert log == ["setup a"]


def test_a_set_up_that_fails_names_the_plugin():
    class Broken(Plugin):
        name = "broken"

        def setup(self, app: Symphony) -> None:
            raise KeyError("url")

    def also_broken(app: Symphony) -> None:
        raise ValueError("oops")

    app = Symphony()
    with pytest.raises(ConfigurationError, match="The setup of the plugin 'broken' failed: 'url'") as caught:
        app.plugin(Broken())
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ConfigurationError, match="also_broken' failed: oops"):
        app.plugin(also_broken)
