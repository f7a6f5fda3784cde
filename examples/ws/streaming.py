"""Streaming: an answer in parts that the client can stop.

A handler that is an async generator answers with a stream. This one looks like a
language model, but it only joins words that follow each other in a short text.

Run it with `python examples/ws/streaming.py`, and connect with
`symphony connect ws://127.0.0.1:8080`; then type `/stream ask {"prompt": "the sea"}`.
"""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, Struct

from symphony import Symphony

app = Symphony()

TEXT = """
the sea is wide and the wind is in the sails of the ship and the ship is far from the shore
the shore is white and the sand is warm and the night is long and the stars are over the sea
the wind is cold and the waves are over the sand and the sails are white in the night
"""

FOLLOWERS: dict[str, list[str]] = defaultdict(list)
for word, follower in pairwise(TEXT.split()):
    FOLLOWERS[word].append(follower)


def tokens(prompt: str) -> Iterator[str]:
    """Yield an endless sequence of words, always the same for the same prompt."""
    chance = random.Random(prompt)
    word = prompt.split()[-1].lower()
    while True:
        word = chance.choice(FOLLOWERS.get(word) or list(FOLLOWERS))
        yield word


class Question(Struct):
    """The data of a request: `{"prompt": "the sea", "tokens": 40}`."""

    prompt: Annotated[str, Meta(pattern=r"\S", max_length=1000)]
    tokens: Annotated[int, Meta(ge=1, le=10_000)] = 40


# Each `yield` sends one item to the client. The generator continues only while the client
# has room for more items, so a slow reader slows it down. When the generator returns, the
# stream is complete.
#
# If the client cancels the stream or disconnects, the generator is closed, and `finally`
# runs. A real server would cancel the request to its model there.
@app.on("ask")
async def answer(question: Question) -> AsyncIterator[str]:
    sent = 0
    words = tokens(question.prompt)
    print(f"thinking about {question.prompt!r}", flush=True)
    try:
        while sent < question.tokens:
            await asyncio.sleep(0.03)
            sent += 1
            yield next(words)
    finally:
        print(f"stopped after {sent} of {question.tokens} tokens", flush=True)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
