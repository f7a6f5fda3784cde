"""Streaming: an answer that comes piece by piece, as of an AI, and can be stopped.

An async generator is a handler whose answer is a stream. There is no AI here: a
toy of a few lines strings words together that it has seen follow each other.

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
    """Give words without end; of the same prompt, the same."""
    chance = random.Random(prompt)
    word = prompt.split()[-1].lower()
    while True:
        word = chance.choice(FOLLOWERS.get(word) or list(FOLLOWERS))
        yield word


class Question(Struct):
    """What a client asks: `{"prompt": "the sea", "tokens": 40}`."""

    prompt: Annotated[str, Meta(pattern=r"\S", max_length=1000)]
    tokens: Annotated[int, Meta(ge=1, le=10_000)] = 40


# Each `yield` is one item on its way to the client. The generator goes on only while
# the client has room for more items: a slow reader makes a slow generator, and nothing
# piles up. When it returns, the stream is complete.
#
# The client may have had enough: it cancels the stream, or goes. Then the generator is
# closed where it is, and `finally` runs: a real one would hang up on its model here.
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
