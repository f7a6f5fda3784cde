"""One line a plain HTTP request, whatever the app does."""

import logging
from typing import Any

import pytest

from symphony.transport.native.access import AccessLog


async def ask(app: Any, path: str = "/page", **scope: Any) -> list[Any]:
    """Ask an app for a page, and return what it sent."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    made = {"type": "http", "method": "GET", "path": path, "client": ("127.0.0.1", 5), **scope}
    await AccessLog(app)(made, receive, send)
    return sent


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines without their durations."""
    return [record.getMessage().rpartition(" after ")[0] for record in caplog.records]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def test_an_answer_passes_unchanged_and_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symphony.http")
    sent = await ask(answer)
    assert [event["type"] for event in sent] == ["http.response.start", *["http.response.body"] * 2]
    assert lines(caplog) == ["GET /page from 127.0.0.1:5: 201"]


async def test_a_path_cannot_write_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symphony.http")
    await ask(answer, "/a\nERROR all is lost\x1b[31m é")
    assert lines(caplog) == ["GET /a%0AERROR%20all%20is%20lost%1B%5B31m%20%C3%A9 from 127.0.0.1:5: 201"]


async def test_an_address_that_the_app_corrects_is_the_one_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "symphony.http")

    async def behind_proxy(scope: Any, receive: Any, send: Any) -> None:
        scope["client"] = ("203.0.113.9", 0)
        await answer(scope, receive, send)

    await ask(behind_proxy)
    assert lines(caplog) == ["GET /page from 203.0.113.9: 201"]


async def test_an_app_that_fails_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symphony.http")

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await ask(fail)
    assert lines(caplog) == ["GET /page from 127.0.0.1:5: 500"]


async def test_a_background_task_after_the_answer_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symphony.http")
    seen: list[str] = []

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, receive, send)
        seen.extend(lines(caplog))

    await ask(busy)
    assert seen == lines(caplog) == ["GET /page from 127.0.0.1:5: 201"]


@pytest.mark.parametrize(("level", "kind"), [(logging.WARNING, "http"), (logging.INFO, "lifespan")])
async def test_nothing_is_logged_above_info_or_of_other_scopes(
    caplog: pytest.LogCaptureFixture, level: int, kind: str
) -> None:
    caplog.set_level(level, "symphony.http")
    await ask(answer, type=kind)
    assert lines(caplog) == []
