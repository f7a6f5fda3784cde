import pytest

from support.clients import connect, refused
from support.examples import load, running, served
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/middleware.py"


async def test_a_message_is_tidied_answered_and_numbered_and_spam_is_dropped() -> None:
    async with running(NAME) as server:
        async with connect(f"{server.url}/?token=sesame") as client:
            assert await client.recv() == "Welcome, Ali!"
            await client.send("  so   much  space ")
            assert await client.recv() == "1. You said: so much space"
            await client.send("buy spam")
            await client.send("hi")
            assert await client.recv() == "3. You said: hi"
        assert await server.line() == "Ali left after 3 messages"


async def test_without_a_known_token_the_handshake_is_refused_with_401() -> None:
    async with served(NAME) as url:
        refusal = await refused(f"{url}/?token=guess")
        assert refusal.status == 401
        assert refusal.body["message"] == "connect with ?token=sesame"


async def test_a_refused_client_gets_no_farewell(capsys: pytest.CaptureFixture[str]) -> None:
    async with TestClient(load(NAME).app) as client:
        with pytest.raises(HandshakeRefusedError):
            await client.connect("/")
        async with client.connect("/?token=swordfish") as c:
            assert await c.receive() == "Welcome, Harpo!"
    assert capsys.readouterr().out == "Harpo left after 0 messages\n"


async def test_spam_is_not_answered() -> None:
    async with TestClient(load(NAME).app) as client, client.connect("/?token=sesame") as c:
        assert await c.receive() == "Welcome, Ali!"
        await c.send("spam")
        await c.nothing_more()
