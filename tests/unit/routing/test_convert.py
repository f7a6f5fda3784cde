from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

import msgspec
import pytest
from annotated_types import Gt
from starlette.datastructures import QueryParams

from symphony.errors import ConfigurationError, Reject
from symphony.routing.convert import MISSING, query_reader


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


UserId = NewType("UserId", int)
KEY = UUID("12345678-1234-5678-1234-567812345678")


def read(annotation: Any, query: str, default: Any = MISSING) -> Any:
    return query_reader("x", annotation, default)(QueryParams(query))


def refusal(annotation: Any, query: str) -> Reject:
    with pytest.raises(Reject) as caught:
        read(annotation, query)
    return caught.value


@pytest.mark.parametrize(
    ("annotation", "query", "value"),
    [
        (str, "x=a%20b", "a b"),
        (str, "x=", ""),
        (Any, "x=1", "1"),
        (MISSING, "x=1", "1"),
        (int, "x=42", 42),
        (int, "x=-7", -7),
        (int, "x=123456789012345678901234567890", 123456789012345678901234567890),
        (UserId, "x=5", 5),
        (float, "x=1.5", 1.5),
        (float, "x=-.5", -0.5),
        (float, "x=2e3", 2000.0),
        (float, "x=3", 3.0),
        (UUID, f"x={KEY}", KEY),
        (UUID, f"x={KEY.hex}", KEY),
        (Color, "x=blue", Color.BLUE),
        (Level, "x=2", Level.HIGH),
        (Literal["asc", "desc"], "x=desc", "desc"),
        (Literal[1, 2], "x=2", 2),
        (Literal[True], "x=true", True),
        (Literal[Color.RED], "x=red", Color.RED),
        (list[int], "x=1&y=5&x=2", [1, 2]),
        (list, "x=1&x=2", ["1", "2"]),
        (set[str], "x=a&x=b&x=a", {"a", "b"}),
        (frozenset[Color], "x=red", frozenset({Color.RED})),
        (tuple[int, ...], "x=1&x=2", (1, 2)),
        (int | None, "x=1", 1),
        (Optional[list[int]], "x=1", [1]),  # noqa: UP045 (users write it)
        (Annotated[int, "documentation"], "x=1", 1),
        (list[Annotated[int, "documentation"]], "x=1", [1]),
    ],
)
def test_a_query_parameter_converts(annotation: Any, query: str, value: Any) -> None:
    found = read(annotation, query)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", "Yes"])
def test_words_for_true(text: str) -> None:
    assert read(bool, f"x={text}") is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "False"])
def test_words_for_false(text: str) -> None:
    assert read(bool, f"x={text}") is False


def test_a_single_value_is_the_last_of_a_repeated_key() -> None:
    assert read(int, "x=1&x=2") == 2


@pytest.mark.parametrize(
    ("annotation", "query", "message"),
    [
        (int, "x=abc", "query parameter 'x' must be an integer, not 'abc'"),
        (int, "x=", "query parameter 'x' must be an integer, not ''"),
        (int, "x=1.0", "query parameter 'x' must be an integer, not '1.0'"),
        (int, "x=1_000", "query parameter 'x' must be an integer, not '1_000'"),
        (int, "x=%201", "query parameter 'x' must be an integer, not ' 1'"),
        (int, "x=%D9%A3", "query parameter 'x' must be an integer, not '٣'"),
        (float, "x=nan", "query parameter 'x' must be a number, not 'nan'"),
        (float, "x=-inf", "query parameter 'x' must be a number, not '-inf'"),
        (float, "x=1e999", "query parameter 'x' must be a number, not '1e999'"),
        (bool, "x=maybe", "query parameter 'x' must be true or false, not 'maybe'"),
        (UUID, "x=1234", "query parameter 'x' must be a UUID, not '1234'"),
        (Color, "x=green", "query parameter 'x' must be one of 'red', 'blue', not 'green'"),
        (Literal["asc", "desc"], "x=up", "query parameter 'x' must be one of 'asc', 'desc', not 'up'"),
        (list[int], "x=1&x=two", "query parameter 'x' must be an integer, not 'two'"),
        (int | None, "x=two", "query parameter 'x' must be an integer, not 'two'"),
    ],
)
def test_a_value_that_does_not_convert_is_refused_with_http_400(
    annotation: Any, query: str, message: str
) -> None:
    error = refusal(annotation, query)
    assert (error.code, error.status) == ("invalid", 400)
    assert error.message == message
    assert error.details == {"parameter": "x"}


def test_a_long_value_is_not_sent_back_whole() -> None:
    digits = "9" * 5000
    assert (
        refusal(int, f"x={digits}").message == f"query parameter 'x' must be an integer, not '{digits[:50]}…'"
    )


@pytest.mark.parametrize("annotation", [str, int, list[int]])
def test_a_missing_parameter_is_refused(annotation: Any) -> None:
    error = refusal(annotation, "y=1")
    assert (error.code, error.status) == ("invalid", 400)
    assert error.message == "query parameter 'x' is missing"
    assert error.details == {"parameter": "x"}


def test_a_missing_parameter_takes_its_default() -> None:
    assert read(int, "", 7) == 7
    assert read(list[int], "", (1,)) == (1,)
    assert read(int | None, "", 7) == 7


def test_a_missing_parameter_that_may_be_none_is_none() -> None:
    assert read(int | None, "") is None
    assert read(list[int] | None, "") is None


def test_bounds_of_msgspec_are_checked() -> None:
    page = Annotated[int, msgspec.Meta(ge=1)]
    assert read(page, "x=1") == 1
    assert read(page | None, "") is None
    error = refusal(page, "x=0")
    assert (error.code, error.details) == ("invalid", {"parameter": "x"})
    assert error.message == "query parameter 'x': Expected `int` >= 1"
    assert refusal(list[page], "x=1&x=0").message == "query parameter 'x': Expected `int` >= 1"


def test_bounds_that_do_not_fit_the_type_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="Can only set `ge` on a numeric type"):
        query_reader("x", Annotated[str, msgspec.Meta(ge=1)])


def test_bounds_that_would_be_passed_over_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"with msgspec\.Meta, not with pydantic's Field"):
        query_reader("x", Annotated[int, Gt(0)])


@pytest.mark.parametrize(
    "annotation",
    [dict, dict[str, int], bytes, int | str, tuple[int, str], list[list[int]], Literal[None], type(None)],
)
def test_a_type_that_a_query_string_cannot_give_is_an_error(annotation: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        query_reader("x", annotation)
    assert str(caught.value) == (
        f"{annotation!r} is not supported in a query string; use str, int, float, bool, UUID, an Enum, a "
        f"Literal, "
        "a list, set, frozenset or tuple[X, ...] of these, or any of them | None"
    )
