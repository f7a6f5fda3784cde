"""`protocol/refusals.py`: the HTTP response of a refusal."""

import json
from urllib.parse import unquote

import pytest

from symphony import Reject
from symphony.protocol.refusals import REFUSAL, http_refusal


def test_a_refusal_is_its_error_as_json_and_marked_with_its_code() -> None:
    status, headers, body = http_refusal(
        Reject("room_full", "no seat", details={"seats": 0}, retry_after=1.5)
    )
    assert status == 409
    assert headers == {"content-type": "application/json", "Retry-After": "2", REFUSAL: "room_full"}
    assert json.loads(body) == {
        "code": "room_full",
        "message": "no seat",
        "retryable": True,
        "details": {"seats": 0},
        "retry_after": 1.5,
    }


@pytest.mark.parametrize(
    "code", ["shop.sold_out", "a.b\r\nSet-Cookie: x", "obchod.vyprodáno", "a.b c", "a.%"]
)
def test_the_code_of_an_app_always_fits_into_the_header(code: str) -> None:
    marked = http_refusal(Reject(code)).headers[REFUSAL]
    assert marked.isascii()
    assert marked.isprintable()
    assert " " not in marked
    assert unquote(marked) == code


@pytest.mark.parametrize("name", ["Symphony-Refusal", "symphony-refusal", "SYMPHONY-REFUSAL"])
def test_an_app_cannot_mark_its_refusal_with_another_code(name: str) -> None:
    headers = http_refusal(Reject("forbidden", headers={name: "room_full", "X-More": "1"})).headers
    assert {key.lower(): value for key, value in headers.items()} == {
        "content-type": "application/json",
        "symphony-refusal": "forbidden",
        "x-more": "1",
    }


@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_an_app_may_set_the_content_type(name: str) -> None:
    headers = http_refusal(Reject("forbidden", headers={name: "application/problem+json"})).headers
    assert headers == {name: "application/problem+json", REFUSAL: "forbidden"}


def test_details_that_cannot_be_encoded_raise() -> None:
    with pytest.raises(TypeError):
        http_refusal(Reject("forbidden", details=object()))
