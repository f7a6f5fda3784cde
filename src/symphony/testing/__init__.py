"""A client for tests that runs an app in memory, without a server or a network.

```python
from symphony.testing import HandshakeRefusedError, TestClient

async def test_members_receive_messages():
    async with TestClient(app) as client:
        async with client.connect("/chat/lobby") as alice, client.connect("/chat/lobby") as bob:
            await alice.send("hi")
            assert await bob.receive() == "hi"
            await alice.nothing_more()
```

The client needs asyncio. With pytest, use pytest-asyncio (`asyncio_mode =
"auto"`), or anyio's plugin with its asyncio backend.

**The app is real.** Routes, middleware, dependencies, rooms and limits run as on
a server. Entering the client runs the app's startup, and leaving it runs the
shutdown. Pings, fragments, compression and clients that do not read do not exist
in memory. Test those with a real server.

**Connections.** `connect` takes `headers=`, `cookies=`, `subprotocols=`,
`origin=` and `client=`. Write a query string as part of the path. Use `connect`
in `async with`, or `await` it. A connection can `send`, `receive` (or
`receive_text`, `receive_bytes`, `receive_json`), check that there is
`nothing_more`, `close`, or `drop` like a broken network. Every wait ends after
`timeout` seconds with a `TimeoutError` that says what was expected.

**Rooms.** `room = await connection.join("chat:lobby")` joins a room as a client
does. `await room.receive()` returns the next publication.

**Refusals** before the upgrade raise an exception:

```python
    with pytest.raises(HandshakeRefusedError) as refused:
        await client.connect("/admin")
    assert refused.value.status == 403
    assert refused.value.json()["message"] == "ask the owner for an invitation"
```

**The app closes.** You can still receive the messages that were sent before.
Then `receive` raises `DisconnectedError` with `code` and `reason`.
`wait_closed()` returns both, and `closed` has them from then on.

**Handlers that fail.** The connection only receives `internal`. The exception
is raised when you leave the client. If the test has already failed, the
exception is added to that failure as a note. If a test expects the exception,
remove it from `errors`:

```python
    await connection.send("divide by zero")
    assert (await connection.receive_json())["data"]["code"] == "internal"
    assert isinstance(client.errors.pop(), ZeroDivisionError)
```

**Time.** `await client.clock.advance(20)` moves the time forward by 20 s without
waiting. Ticks of rooms, lingers, timeouts and every `asyncio.sleep` of the app run
in order, each at its time. Rooms tick only then; the others run in real time, too.
This needs asyncio's own event loop, not uvloop.

**Dependencies.** Set `app.overrides[session] = fake_session` before you enter the
client. After `await client.settle()`, you can check what a handler has stored,
for example in `app.state`.
"""

from symphony.errors import DisconnectedError
from symphony.testing.client import TestClient
from symphony.testing.clock import Clock
from symphony.testing.cluster import Cluster
from symphony.testing.clusternodes import ClusterBroker, ClusterNode
from symphony.testing.connection import TestConnection
from symphony.testing.faults import FAULTS, Fault
from symphony.testing.followers import Follower
from symphony.testing.memory import HandshakeRefusedError
from symphony.testing.promises import BrokenPromiseError, Stored
from symphony.testing.room import TestRoom

__all__ = (
    "FAULTS",
    "BrokenPromiseError",
    "Clock",
    "Cluster",
    "ClusterBroker",
    "ClusterNode",
    "DisconnectedError",
    "Fault",
    "Follower",
    "HandshakeRefusedError",
    "Stored",
    "TestClient",
    "TestConnection",
    "TestRoom",
)
