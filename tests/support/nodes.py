"""Several nodes of one app in this process, which share a broker over its socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from symphony import CallNext, Identity, Limits, Socket, Symphony
from symphony.broker.engines import serve
from symphony.testing import TestClient

PATIENCE = 20.0


@asynccontextmanager
async def running(
    make: Callable[[str], Symphony], *, count: int = 2, url: str = "memory://"
) -> AsyncIterator[list[TestClient]]:
    """Run *count* nodes of the app that *make* creates for the URL of the broker."""
    served = serve(url, Limits())
    try:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(TestClient(make(served.url), timeout=PATIENCE))
                for _ in range(count)
            ]
    finally:
        served.close()


def signing_in(app: Symphony) -> None:
    """Log sockets in as their query says: `?user=ann`."""

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next: CallNext) -> None:
        user = socket.handshake.query_params.get("user")
        if user is not None:
            socket.login(Identity(user))
        await call_next(socket)
