"""One valid conversation, cut anywhere, always gets the same answers."""

import asyncio

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    cut,
    dial,
    frame,
    handshake,
    text,
)
from support.servers import serve_natively
from support.sizes import size
from symphony import Limits, Symphony

CONVERSATION = b"".join(
    (
        handshake(),
        text(""),
        text("hello"),
        frame(BINARY, bytes(range(256))),
        frame(PING, b"first"),
        frame(TEXT, "κόσ".encode()[:3], fin=False),
        frame(PONG, b"unasked"),
        frame(CONTINUATION, b"", fin=False),
        frame(PING, b"inside"),
        frame(CONTINUATION, "κόσμε".encode()[3:]),
        frame(BINARY, b"m" * 70_000),
        text("€" * 50),
    )
)
MESSAGES = [
    Frame(TEXT, b""),
    Frame(TEXT, b"hello"),
    Frame(BINARY, bytes(range(256))),
    Frame(TEXT, "κόσμε".encode()),
    Frame(BINARY, b"m" * 70_000),
    Frame(TEXT, ("€" * 50).encode()),
]
PONGS = [Frame(PONG, b"first"), Frame(PONG, b"inside")]


# Where something changes: around each header, and inside.
INTERESTING = st.one_of(
    st.integers(0, len(CONVERSATION)),
    st.integers(0, len(handshake()) + 420),
    st.integers(len(CONVERSATION) - 170, len(CONVERSATION)),
)


async def hold(places: list[int], pauses: list[int]) -> None:
    app = Symphony(limits=Limits(max_early_bytes=1000))

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    async with asyncio.timeout(10), serve_natively(app) as url, await dial(url) as client:

        async def say() -> None:
            for index, piece in enumerate(cut(CONVERSATION, places)):
                await client.send(piece)
                # Between none and enough turns for the server to answer what it has.
                for _ in range(pauses[index % len(pauses)]):
                    await asyncio.sleep(0)

        saying = asyncio.ensure_future(say())
        assert (await client.response()).status == 101
        answers = [await client.frame() for _ in range(len(MESSAGES) + len(PONGS))]
        assert [answer for answer in answers if answer.opcode != PONG] == MESSAGES
        assert [answer for answer in answers if answer.opcode == PONG] == PONGS
        await saying
        await client.send(close(1000))
        assert await client.rest() == [Frame(CLOSE, b"\x03\xe8")]


@settings(max_examples=size(30, full=300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places=st.lists(INTERESTING, max_size=30),
    pauses=st.lists(st.sampled_from([0, 0, 1, 3, 10]), min_size=1, max_size=5),
    new_loop=st.sampled_from([uvloop.new_event_loop, asyncio.new_event_loop]),
)
def test_a_conversation_cut_anywhere_gets_the_same_answers(places, pauses, new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(hold(places, pauses))
