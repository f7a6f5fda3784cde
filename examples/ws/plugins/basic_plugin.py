"""A plugin: a feature with its own settings that you can add to any app.

This one counts the visitors of an app and greets each of them with a number.
Another path returns the count.

Run it with `python examples/ws/plugins/basic_plugin.py`, and connect with
`wscat -c ws://127.0.0.1:8080` and `wscat -c ws://127.0.0.1:8080/visitors`.
"""

import os
from datetime import UTC, datetime

from symphony import CallNext, Plugin, Socket, Symphony


class Visitors(Plugin):
    """Count visitors.

    Args:
        path: The path that returns the count.
        greeting: Sent to each visitor, with `{number}` filled in.
    """

    # The name must be unique in an app. A plugin that needs this one declares it with
    # `requires = ("visitors",)`.
    name = "visitors"

    # Settings are arguments with defaults.
    def __init__(self, path: str = "/visitors", greeting: str = "You are visitor {number}.") -> None:
        self.path = path
        self.greeting = greeting
        self.count = 0

    # Called once, when the plugin is added. It registers middleware and routes with the
    # same API that an app uses.
    def setup(self, app: Symphony) -> None:
        app.middleware("connect")(self.greet)
        app.route(self.path).on_connect(self.tell)

    # `startup` is called before the first client connects, and `shutdown` after the last
    # client has gone. Open and close files, connections and background tasks here.
    async def startup(self, app: Symphony) -> None:
        self.since = datetime.now(UTC)

    async def shutdown(self, app: Symphony) -> None:
        print(f"{self.count} visitors since {self.since:%H:%M:%S}", flush=True)

    async def greet(self, socket: Socket, call_next: CallNext) -> None:
        # Run the app's connect handler first, because it may refuse the client.
        await call_next(socket)
        if socket.route != self.path:
            self.count += 1
            await socket.send(self.greeting.format(number=self.count))

    async def tell(self, socket: Socket) -> None:
        await socket.send({"visitors": self.count})
        await socket.close()


app = Symphony()
app.plugin(Visitors(greeting="Hello, visitor number {number}!"))

home = app.route("/")


@home.on_message
async def acknowledge(message: str) -> str:
    return "I got your message!"


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
