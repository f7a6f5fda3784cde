"""The server and the client start their tasks in one way."""

import re
from pathlib import Path

import symphony

SOURCE = Path(symphony.__file__).parent
# They run their own event loop, which no program has configured.
OTHERS = ("cli",)
OF_A_LOOP = re.compile(r"(asyncio|loop|\))\.create_task\(")


def test_tasks_are_not_started_with_the_factory_of_the_loop() -> None:
    """With `asyncio.eager_task_factory`, a session answered before its connection knew it."""
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in OTHERS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OF_A_LOOP.search(line)
    ]
    assert found == []
