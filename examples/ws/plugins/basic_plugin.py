"""A plugin: a feature with its own settings and life, to add to any app.

This one counts an app's visitors, greets each with a number, and tells the
count on a path of its own.

Run it with `python examples/ws/plugins/basic_plugin.py`, and connect with
`wscat -c ws://127.0.0.1:8080` and `wscat -c ws://127.0.0.1:8080/visitors`.
"""

import os
from datetime import UTC, datetime

from symphony import CallNext, Plugin, Socket, Symphony


class Visitors(Plugin):
    """Count visitors.

    Args:
        path: Where the count is told.
        greeting: What each visitor is sent; `{number}` is the visitor's.
    """

    # Unlike the name of any other plugin of the app. A plugin that builds on this one
    # says so: `requires = ("visitors",)`.
    name = "visitors"

    # Settings are arguments, with defaults.
    def __init__(self, path: str = "/visitors", greeting: str = "You are visitor {number}.") -> None:
        self.path = path
        self.greeting = greeting
        self.count = 0

    # Called once, when the plugin is added: it registers what it needs, with nothing
    # that an app's own code could not use as well.
    def setup(self, app: Symphony) -> None:
        app.middleware("connect")(self.greet)
        app.route(self.path).on_connect(self.tell)

    # The app's life: called before the first client comes, and after the last has gone.
    # This is where files, connections and background tasks are opened and closed.
    async def startup(self, app: Symphony) -> None:
        self.since = datetime.now(UTC)

    async def shutdown(self, app: Symphony) -> None:
        print(f"{self.count} visitors since {self.since:%H:%M:%S}", flush=True)

    async def greet(self, socket: Socket, call_next: CallNext) -> None:
        # First the app's own connect handler: it may still refuse.
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
