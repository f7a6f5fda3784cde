"""A message becomes a bounded number of objects."""

import json
from dataclasses import replace
from typing import Any

import pytest

from support.servers import serve_natively
from symphony import Limits, Symphony
from symphony.client import connect
from symphony.errors import RemoteError
from symphony.session import exchange

LIMITS = replace(Limits(), max_elements=5000)


def app() -> Symphony:
    app = Symphony(limits=LIMITS)

    @app.on("any")
    async def anything(data: Any) -> int:
        return len(data)

    @app.on("typed")
    async def typed(data: list[dict[str, int]]) -> int:
        return len(data)

    return app


@pytest.mark.within("max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("event", ["any", "typed"])
async def test_a_message_with_that_many_elements_is_handled(protocol: Any, event: str) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol) as client:
        assert await client.request(event, [{}] * 2400) == 2400


@pytest.mark.beyond("max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("event", ["any", "typed"])
async def test_one_with_more_is_refused(protocol: Any, event: str) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol) as client:
        with pytest.raises(RemoteError, match="more than 5,000 elements") as caught:
            await client.request(event, [{}] * 6000)
        assert caught.value.code == "invalid"
        assert await client.request("any", [1]) == 1


UNENDED = '"' + '\\"' * 300_000


@pytest.mark.parametrize(
    "message",
    [
        '{"event": "any", "id": 1, "data": [' + "1," * 100_001 + UNENDED,
        '{"event": "any", "id": 1, "data": ' + UNENDED,
        "[" + "1," * 100_001 + "1]",
    ],
)
async def test_a_malformed_message_is_not_counted(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    check = exchange.check_elements

    def counting(message: Any, most: int, *, is_json: bool) -> None:
        counted.append(len(message))
        check(message, most, is_json=is_json)

    monkeypatch.setattr(exchange, "check_elements", counting)
    async with serve_natively(app()) as url, connect(url, raw=True) as client:
        await client.send(message)
        error = json.loads(await anext(client))
        assert error.get("error", error.get("data"))["code"] == "invalid"
        assert counted == []
        valid = {"event": "any", "id": 2, "data": ["x" * 5000]}
        await client.send(json.dumps(valid))
        assert json.loads(await anext(client)) == {"reply": 2, "data": 1}
        assert counted == [len(json.dumps(valid))]


FLOOD = {n * 3: n for n in range(10_001)}


async def test_numbers_as_keys_are_bounded_on_both_sides() -> None:
    served = Symphony()

    @served.on("counts")
    async def counts(data: dict[int, int]) -> int:
        return len(data)

    @served.on("any")
    async def anything(data: Any) -> int:
        return len(data)

    @served.on("flood")
    async def flood() -> dict[int, int]:
        return FLOOD

    async with serve_natively(served) as url, connect(url, protocol="msgpack") as client:
        with pytest.raises(RemoteError, match="more than 10,000 elements"):
            await client.request("counts", FLOOD)
        with pytest.raises(RemoteError, match="more than 10,000 keys that are not text"):
            await client.request("any", FLOOD)
        assert await client.request("counts", {1: 2}) == 1
        with pytest.raises(Exception, match="more than 10,000 elements"):
            await client.request("flood", response_type=dict[int, int])
        with pytest.raises(Exception, match="more than 10,000 keys that are not text"):
            await client.request("flood")
