"""What an executor remembers of a server."""

import pytest

from symphony import connect
from symphony.cli.connect.executor import Executor
from symphony.cli.connect.script_view import ScriptView


@pytest.mark.parametrize("size", [1, 200, 201, 10_000, 1_000_000])
async def test_few_and_short_names_are_remembered(size: int, tmp_path) -> None:
    client = connect("ws://127.0.0.1:9")
    with (tmp_path / "out").open("w") as out:
        executor = Executor(client, ScriptView(out, as_json=False), answers={}, as_json=False)
        for number in range(1000):
            executor._learn(f"{number:0{size}}")
    assert len(executor.event_names) == (200 if size <= 200 else 0)
    await client.close()
