"""What an app offers to code outside its event loop: other threads, and other processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.publisher import Publisher
    from symphony.threadsafe import Threadsafe

__all__ = ("Outside",)


class Outside:
    """The part of an app that code outside its event loop uses."""

    _threadsafe: Threadsafe
    _make_publisher: Callable[[str | None], Publisher]

    @property
    def threadsafe(self) -> Threadsafe:
        """The app's targets for other threads of this process.

        A `def` endpoint of FastAPI, a `thread=True` handler or a thread of
        yours can send: `app.threadsafe.room("news").emit("headline", text)`.
        """
        return self._threadsafe

    def publisher(self, broker: str | None = None) -> Publisher:
        """Publish to a server that runs this app, from another process.

            with app.publisher() as out:
                out.room("news").emit("headline", text)

        A cron job, a Celery task or a Django view can use it. In `with`, the verbs block; in
        `async with`, they are awaited. It reaches rooms, users, sockets and everyone. The
        rooms have the options of this app, so import the app that the server runs.

        Args:
            broker: The URL of the broker of the server: the file of `--data`, such as
                `"sqlite:///data/rooms.db"`, or the `ipc://` URL that the server says at its
                start. `None`: `broker=` of the app, or the environment variable `SYMPHONY_BROKER`.

        Raises:
            ConfigurationError: The URL is not valid. At the beginning of the block: the broker
                is `memory://`, which no other process can reach.
            BrokerUnavailableError: At the beginning of the block: the broker cannot be reached.
            WrongThreadError: At the beginning of `with`: this is an event loop. Use `async with`.
        """
        return self._make_publisher(broker)
