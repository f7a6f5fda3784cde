"""JSON-RPC 2.0 in place of Symphony's own protocol: the examples of its specification, and its traps."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import Struct

from support.clients import Log, connect
from symphony import Event, Reject, Socket, Symphony
from symphony.protocol.envelopes import Failure
from symphony.protocol.jsonrpc import MAX_BATCH, JsonRpc


class Difference(Struct):
    minuend: int
    subtrahend: int


def calculator() -> Symphony:
    app = Symphony()
    rpc = app.route("/", protocol=JsonRpc)

    @rpc.on("subtract")
    async def subtract(data: Difference | list[int]) -> int:
        return data[0] - data[1] if isinstance(data, list) else data.minuend - data.subtrahend

    @rpc.on("sum")
    async def add(data: list[int]) -> int:
        return sum(data)

    @rpc.on("get_data")
    async def get_data() -> list[object]:
        return ["hello", 5]

    @rpc.on("update")
    async def update(data: list[int]) -> str:
        return "nobody hears this"

    @rpc.on("buy")
    async def buy() -> None:
        raise Reject("shop.sold_out", "none is left", details={"item": "lamp"}, retryable=True)

    @rpc.on("divide")
    async def divide() -> float:
        return 1 / 0

    @rpc.on("count")
    async def count():
        yield 1

    @rpc.on("ask")
    async def ask(socket: Socket) -> list[str]:
        return [await socket.request("name", {"of": "you"}, response_type=str)]

    @rpc.on("tell")
    async def tell(socket: Socket) -> None:
        socket.emit("told", {"what": "news"})
        socket.emit("number", 7)
        socket.emit("bare")

    return app


def essence(answer: object) -> object:
    """Give an answer without the texts, which the specification leaves free."""
    if isinstance(answer, list):
        return sorted(map(essence, answer), key=repr)
    assert isinstance(answer, dict)
    assert answer["jsonrpc"] == "2.0"
    if "error" in answer:
        return (answer["error"]["code"], answer["id"])
    return (answer["result"], answer["id"])


EXAMPLES = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', (19, 1)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', (-19, 2)),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        (19, 3),
    ),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', (-32601, "1")),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', (-32700, None)),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', (-32600, None)),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"',
        (-32700, None),
    ),
    ("[]", (-32600, None)),
    ("[1]", [(-32600, None)]),
    ("[1,2,3]", [(-32600, None)] * 3),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method": "update", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        sorted([(7, "1"), (19, "2"), (-32600, None), (-32601, "5"), (["hello", 5], "9")], key=repr),
    ),
]


@pytest.mark.parametrize(("sent", "answer"), EXAMPLES)
async def test_the_examples_of_the_specification(serve, sent: str, answer: object) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send(sent)
        assert essence(json.loads(await client.recv())) == answer


@pytest.mark.parametrize(
    "unanswered",
    [
        '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
        '{"jsonrpc": "2.0", "method": "foobar"}',
        '{"jsonrpc": "2.0", "method": "update", "params": ["not a number"]}',
        '{"jsonrpc": "2.0", "method": "divide"}',
        '[{"jsonrpc": "2.0", "method": "update", "params": [1]},{"jsonrpc": "2.0", "method": "foobar"}]',
    ],
)
async def test_notifications_are_never_answered_not_even_when_they_fail(serve, unanswered: str) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send(unanswered)
        await client.send('{"jsonrpc": "2.0", "method": "sum", "params": [], "id": "last"}')
        assert essence(json.loads(await client.recv())) == (0, "last")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('"method": "sum", "params": ["x"], "id": 1', -32602),
        ('"method": "sum", "params": {"a": 1}, "id": 1', -32602),
        ('"method": "sum", "params": 5, "id": 1', -32600),
        ('"method": "sum", "params": [5], "id": [1]', -32600),
        ('"method": "", "id": 1', -32600),
        ('"id": 1', -32600),
        ('"method": "divide", "id": 1', -32603),
        ('"method": "count", "id": 1', -32603),
        ('"method": "buy", "id": 1', -32000),
    ],
)
async def test_what_is_wrong_with_a_call_has_its_code(serve, call: str, code: int) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send('{"jsonrpc": "2.0", ' + call + "}")
        assert json.loads(await client.recv())["error"]["code"] == code
        await client.send('{"jsonrpc": "2.0", "method": "sum", "params": [2, 3], "id": 2}')
        assert essence(json.loads(await client.recv())) == (5, 2)


async def test_a_refusal_says_all_it_has_to_say_in_data(serve) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send('{"jsonrpc": "2.0", "method": "buy", "id": null}')
        assert json.loads(await client.recv()) == {
            "jsonrpc": "2.0",
            "error": {
                "code": -32000,
                "message": "none is left",
                "data": {"code": "shop.sold_out", "retryable": True, "details": {"item": "lamp"}},
            },
            "id": None,
        }


async def test_ids_may_be_anything_and_the_same_twice(serve) -> None:
    """Ids belong to the client; two calls under way with one id were once a conflict."""
    app = Symphony()
    rpc = app.route("/", protocol=JsonRpc)
    open_gate = asyncio.Event()

    @rpc.on("wait")
    async def wait() -> str:
        await open_gate.wait()
        return "waited"

    async with serve(app) as url, connect(f"{url}/") as client:
        for _ in range(2):
            await client.send('{"jsonrpc": "2.0", "method": "wait", "id": "same"}')
        await client.send('{"jsonrpc": "2.0", "method": "wait", "id": 1.5}')
        open_gate.set()
        answers = [essence(json.loads(await client.recv())) for _ in range(3)]
        assert answers == [("waited", "same"), ("waited", "same"), ("waited", 1.5)]


async def test_a_batch_is_answered_when_its_last_call_is(serve) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send(
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1},'
            '{"jsonrpc": "2.0", "method": "ask", "id": 2}]'
        )
        question = json.loads(await client.recv())
        assert question.pop("id") == 1
        assert question == {"jsonrpc": "2.0", "method": "name", "params": {"of": "you"}}
        await client.send('{"jsonrpc": "2.0", "result": "Ada", "id": 1}')
        assert essence(json.loads(await client.recv())) == sorted([(1, 1), (["Ada"], 2)], key=repr)


async def test_a_client_may_answer_with_an_error(serve) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send('{"jsonrpc": "2.0", "method": "ask", "id": 2}')
        await client.recv()
        await client.send('{"jsonrpc": "2.0", "error": {"code": 1, "message": "no name"}, "id": 1}')
        assert essence(json.loads(await client.recv())) == (-32603, 2)


async def test_events_of_the_server_are_notifications(serve) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send('{"jsonrpc": "2.0", "method": "tell"}')
        assert [json.loads(await client.recv()) for _ in range(3)] == [
            {"jsonrpc": "2.0", "method": "told", "params": {"what": "news"}},
            {"jsonrpc": "2.0", "method": "number", "params": [7]},
            {"jsonrpc": "2.0", "method": "bare"},
        ]


@pytest.mark.within("protocol.jsonrpc.MAX_BATCH")
@pytest.mark.beyond("protocol.jsonrpc.MAX_BATCH")
async def test_a_batch_has_a_bound(serve) -> None:
    async with serve(calculator()) as url, connect(f"{url}/") as client:
        await client.send("[" + ",".join(["1"] * MAX_BATCH) + "]")
        assert len(json.loads(await client.recv())) == MAX_BATCH
        await client.send("[" + ",".join(["1"] * (MAX_BATCH + 1)) + "]")
        assert essence(json.loads(await client.recv())) == (-32600, None)


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (["jsonrpc"], "jsonrpc"),
        # Browsers fail a connection for which they offered something and nothing was chosen.
        (["symphony.v1.json", "symphony.raw", "symphony.refuse"], "symphony.raw"),
        (["other"], None),
    ],
)
async def test_it_is_spoken_whatever_a_client_offers(serve, offers: list[str], chosen: str | None) -> None:
    async with serve(calculator()) as url, connect(f"{url}/", subprotocols=offers) as client:
        assert client.subprotocol == chosen
        await client.send('{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}')
        assert essence(json.loads(await client.recv())) == (1, 1)


async def test_rooms_speak_to_each_member_in_its_own_protocol(serve) -> None:
    app = Symphony()
    for path, options in (("/rpc", {"protocol": JsonRpc}), ("/v1", {})):
        route = app.route(path, **options)

        @route.on_connect
        async def enter(socket: Socket) -> None:
            await socket.join("all")

        @route.on("shout")
        async def shout(data: list[str]) -> None:
            app.room("all").emit("shouted", data)

    async with serve(app) as url, connect(f"{url}/rpc") as rpc, connect(f"{url}/v1") as v1:
        await v1.send('{"event": "shout", "data": ["hi"]}')
        assert json.loads(await v1.recv()) == {"event": "shouted", "data": ["hi"]}
        assert json.loads(await rpc.recv()) == {"jsonrpc": "2.0", "method": "shouted", "params": ["hi"]}


@pytest.mark.parametrize(
    "method", ["error", "message", "reply", "cancel", "end", "retry", "ping", "limits", "*"]
)
async def test_a_method_with_a_name_of_another_protocol_is_answered(serve, method):
    """A call of the method `error` was taken for an error event of `symphony.v1`, and never answered."""
    made: list[JsonRpc] = []

    def make() -> JsonRpc:
        made.append(JsonRpc())
        return made[-1]

    app = Symphony()
    few, all_ = app.route("/few", protocol=make), app.route("/all", protocol=make)
    few.on("other")(lambda: None)

    @all_.on("*")
    async def handle(event: str) -> str:
        return event

    async with serve(app) as url:
        async with connect(f"{url}/few") as client:
            call = {"jsonrpc": "2.0", "method": method, "id": 1}
            await client.send(json.dumps(call))
            assert json.loads(await client.recv())["error"]["code"] == -32601
            await client.send(json.dumps([call, {**call, "id": 2}]))
            assert [each["id"] for each in json.loads(await client.recv())] == [1, 2]
        async with connect(f"{url}/all") as client:
            await client.send(json.dumps(call))
            assert json.loads(await client.recv())["result"] == method
            # A notification is not answered.
            await client.send(json.dumps({"jsonrpc": "2.0", "method": method}))
            await client.send(json.dumps({"jsonrpc": "2.0", "method": "last", "id": "x"}))
            assert json.loads(await client.recv())["result"] == "last"
    assert [protocol._calls for protocol in made] == [{}] * len(made)


@pytest.mark.parametrize("method", ["error", "message", "reply"])
async def test_the_server_calls_such_methods_too(serve, method):
    """A request of this name was never sent, and timed out."""
    app = Symphony()
    rpc = app.route("/", protocol=JsonRpc)

    @rpc.on("ask")
    async def ask(socket: Socket) -> str:
        return await socket.request(method, response_type=str)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"jsonrpc": "2.0", "method": "ask", "id": 1}')
        asked = json.loads(await client.recv())
        assert asked["method"] == method
        await client.send(json.dumps({"jsonrpc": "2.0", "result": "fine", "id": asked["id"]}))
        assert json.loads(await client.recv())["result"] == "fine"


RESERVED = ["error", "message", "reply", "cancel", "ping", "item", "end", "*"]


@pytest.mark.parametrize("on", ["*", "{event}", "exact"])
@pytest.mark.parametrize("name", RESERVED)
async def test_a_notification_with_a_name_of_another_protocol_reaches_its_handler(serve, name, on):
    """The name `error`, which `symphony.v1` reserves, was dropped on routes of every protocol."""
    if on == "exact" and name == "*":
        pytest.skip("`*` as a handler means every event")
    heard: Log = Log()
    app = Symphony()
    for path, protocol in (("/rpc", JsonRpc), ("/lines", Lines)):
        route = app.route(path, protocol=protocol)
        if on == "exact":
            route.on(name)(lambda: heard.append(name))
        else:
            route.on(on)(lambda event: heard.append(event))

    async with serve(app) as url:
        async with connect(f"{url}/rpc") as client:
            await client.send(json.dumps({"jsonrpc": "2.0", "method": name}))
            await heard.reaches(1)
        async with connect(f"{url}/lines") as client:
            await client.send(name)
            await heard.reaches(2)
    assert heard == [name, name]


@pytest.mark.parametrize("name", ["error", "reply", "message"])
async def test_the_server_sends_a_notification_of_any_name(serve, name):
    """`error` could not be sent, because `symphony.v1` reports errors with it."""
    app = Symphony()

    @app.route("/", protocol=JsonRpc).on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit(name, [1])

    async with serve(app) as url, connect(f"{url}/") as client:
        assert json.loads(await client.recv()) == {"jsonrpc": "2.0", "method": name, "params": [1]}


async def test_a_failure_that_a_protocol_decodes_is_logged_and_not_answered(serve, caplog):
    caplog.set_level("INFO", "symphony.socket")
    app = Symphony()
    app.route("/", protocol=Lines).on("other")(lambda: None)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("! it broke")
        await client.send("unknown")
        assert await client.recv() == "! not_found"
    assert sum("reported an error" in message for message in caplog.messages) == 1


async def test_in_symphony_v1_the_event_error_is_still_reserved(serve):
    heard: Log = Log()
    app = Symphony()
    app.on("*")(lambda event: heard.append(event))
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"event": "error", "data": {"code": "invalid", "message": "no"}}')
        await client.send('{"event": "last", "id": 1}')
        assert json.loads(await client.recv()) == {"reply": 1, "data": None}
    assert heard == ["last"]


class Lines:
    """A line is the name of an event, or a report of a failure."""

    subprotocol = None
    payload = "plain"

    def decode(self, message: str) -> Event:
        if message.startswith("! "):
            return Failure("!", message[2:])
        return Event(message, None)

    def encode(self, envelope: Any) -> str | None:
        match envelope:
            case Failure(data=data):
                return f"! {data['code']}"
            case Event(event):
                return event
            case _:
                return None
