"""The command line, made into what a client takes."""

import pytest

from symphony.cli.connect.settings import (
    UsageError,
    complete_url,
    cookie_headers,
    parse_answers,
    parse_headers,
)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost:8080", "ws://localhost:8080"),
        ("example.com/chat?room=a", "ws://example.com/chat?room=a"),
        (":8080/chat", "ws://127.0.0.1:8080/chat"),
        ("[::1]:8080", "ws://[::1]:8080"),
        ("wss://example.com", "wss://example.com"),
        ("https://example.com", "https://example.com"),
        (" ws://example.com ", "ws://example.com"),
    ],
)
def test_what_is_left_out_of_a_url_is_added(written: str, url: str) -> None:
    assert complete_url(written) == url


def test_headers_are_split_at_their_first_colon() -> None:
    assert parse_headers(["X-Url: http://x", "X-Empty:"]) == {"X-Url": "http://x", "X-Empty": ""}


def test_a_repeated_header_has_all_of_its_values() -> None:
    given = ["X-A: 1", "x-a: 2", "Cookie: a=1", "Cookie: b=2"]
    assert parse_headers(given) == {"X-A": "1, 2", "Cookie": "a=1; b=2"}


@pytest.mark.parametrize("text", ["secret", ": secret", "  :secret"])
def test_a_header_without_a_name_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_headers([text])
    assert "secret" not in str(caught.value)


def test_cookies_are_one_header() -> None:
    headers = [*cookie_headers([" a=1", "b=x=y", 'c=""']), "Cookie: d=4"]
    assert parse_headers(headers) == {"Cookie": 'a=1; b=x=y; c=""; d=4'}


@pytest.mark.parametrize("text", ["secret", "=secret", "  =secret"])
def test_a_cookie_without_a_name_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        cookie_headers([text])
    assert "secret" not in str(caught.value)


def test_answers_are_json() -> None:
    assert parse_answers(['name="Ada"', "sum=[1,2]", "x=null"]) == {"name": "Ada", "sum": [1, 2], "x": None}


@pytest.mark.parametrize("text", ["name", "=1", "name=Ada", "name="])
def test_an_answer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_answers([text])
