import json
from typing import Any

import pytest

from support.clients import connect, refused
from support.examples import load, served
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/routing.py"

ANSWERS = {
    "/": {"route": "home"},
    "/pages/start": {"route": "page", "name": "start"},
    "/pages/Zo%C3%AB": {"route": "page", "name": "Zoë"},
    "/files/a.txt": {"route": "file", "path": "a.txt"},
    "/files/docs/2025/a.txt": {"route": "file", "path": "docs/2025/a.txt"},
    "/search?q=cats": {"route": "search", "q": "cats", "page": 1},
    "/search?q=two+words&page=3": {"route": "search", "q": "two words", "page": 3},
    "/api/users/42": {"route": "user", "id": 42},
    "/api/users/me": {"route": "me"},
}

REFUSALS = {
    "/search?q=cats&page=first": (400, "page"),
    "/search": (400, "q"),
    "/pages": (404, "/pages"),
    "/pages/a/b": (404, "/pages/a/b"),
    "/api/users/alice": (404, "/api/users/alice"),
    "/users/42": (404, "/users/42"),
}


async def test_each_path_is_answered_by_its_route() -> None:
    async with served(NAME) as url:
        for path, answer in ANSWERS.items():
            async with connect(url + path) as client:
                assert json.loads(await client.recv()) == answer
                await client.wait_closed()
                assert client.close_code == 1000


async def test_what_is_on_no_route_is_refused() -> None:
    async with served(NAME) as url:
        for path, (status, named) in REFUSALS.items():
            refusal = await refused(url + path)
            assert refusal.status == status
            assert named in refusal.message


@pytest.mark.parametrize("path", ANSWERS)
async def test_in_memory_it_is_the_same(path: str) -> None:
    async with TestClient(load(NAME).app) as client, client.connect(path) as c:
        assert await c.receive_json() == ANSWERS[path]
        assert (await c.wait_closed()).code == 1000


@pytest.mark.parametrize("path", REFUSALS)
async def test_refused_in_memory_as_well(path: str) -> None:
    app: Any = load(NAME).app
    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError) as nowhere:
            await client.connect(path)
    assert nowhere.value.status == REFUSALS[path][0]
