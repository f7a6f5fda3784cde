"""A message becomes a bounded number of objects."""

from dataclasses import replace
from typing import Any

import pytest

from support.servers import serve_natively
from symphony import Limits, Symphony
from symphony.client import connect
from symphony.errors import RemoteError

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
