"""Lines of asyncio about writes to clients that have gone."""

import logging

import pytest

from symphony.transport.native import lostwrites
from symphony.transport.native.lostwrites import limit_lost_writes

LINES = ["socket.send() raised exception.", "SSL connection is closed"]


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(lostwrites, "monotonic", lambda: clock[0])
    limit_lost_writes()
    logging.getLogger("asyncio").filters[-1].__init__()
    return clock


@pytest.mark.parametrize("line", LINES)
def test_one_line_a_second_is_logged(line: str, seconds: list[float], caplog: pytest.LogCaptureFixture):
    for _ in range(3):
        for _ in range(1000):
            logging.getLogger("asyncio").warning(line)
        seconds[0] += 1.5
    assert [record.getMessage() for record in caplog.records] == [line] * 3


def test_other_lines_of_asyncio_are_all_logged(caplog: pytest.LogCaptureFixture):
    lines = [LINES[0], *(f"another line {number}" for number in range(20))]
    for line in lines:
        logging.getLogger("asyncio").warning(line)
    assert [record.getMessage() for record in caplog.records] == lines


def test_limiting_twice_is_limiting_once():
    before = list(logging.getLogger("asyncio").filters)
    limit_lost_writes()
    assert logging.getLogger("asyncio").filters == before
