"""A client for tests: an app in memory, without a server and without a network.

```python
from symphony.testing import HandshakeRefusedError, TestClient

async def test_the_room_hears_what_is_said():
    async with TestClient(app) as client:
        async with client.connect("/chat/lobby") as alice, client.connect("/chat/lobby") as bob:
            await alice.send("hi")
            assert await bob.receive() == "hi"
            await alice.nothing_more()
```

It is for asyncio: with pytest, use pytest-asyncio (`asyncio_mode = "auto"`)
or anyio's plugin on its asyncio backend.

**The app is the real one.** Routes, middleware, dependencies, rooms and limits
are what a server runs; entering the client runs the app's start-up, leaving
it the shutdown. Missing are the frames: pings, fragments, compression and a
client that does not read are a real server's to test.

**Connections.** `connect` takes `headers=`, `cookies=`, `subprotocols=`,
`origin=` and `client=`; write a query into the path. Use it in `async with`,
or `await` it. A connection can `send`, `receive` (or `receive_text`,
`receive_bytes`, `receive_json`), check that `nothing_more` came, `close`, or
`drop` as if the network had gone. Every wait ends: with what was awaited, or
after `timeout` seconds with a `TimeoutError` that says what did not come.

**Refusals** before the upgrade are raised:

```python
    with pytest.raises(HandshakeRefusedError) as refused:
        await client.connect("/admin")
    assert refused.value.status == 403
    assert refused.value.json()["message"] == "ask the owner for an invitation"
```

**The app closes.** What was sent before can still be received; then `receive`
raises `DisconnectedError` with `code` and `reason`. `wait_closed()` gives both as
well, and `closed` has them from then on.

**Handlers that fail.** A client is only told `internal`, and a test wants to
see the exception: it is raised when the client is left, or if the test has
failed by then, noted on what it failed with. A test that is about the
exception takes it out of `errors`:

```python
    await connection.send("divide by zero")
    assert (await connection.receive_json())["data"]["code"] == "internal"
    assert isinstance(client.errors.pop(), ZeroDivisionError)
```

**Time.** `await client.clock.advance(20)` lets 20 s pass at once: lingers,
timeouts and every `asyncio.sleep` of the app fall due in order, each at its
time. It needs asyncio's own event loop, not uvloop.

**Dependencies.** `app.overrides[session] = fake_session` before the client is
entered. What a handler left behind elsewhere, such as in `app.state`, is
there after `await client.settle()`.
"""

from symphony.errors import DisconnectedError
from symphony.testing.client import TestClient
from symphony.testing.clock import Clock
from symphony.testing.connection import TestConnection
from symphony.testing.memory import HandshakeRefusedError

__all__ = ("Clock", "DisconnectedError", "HandshakeRefusedError", "TestClient", "TestConnection")
