from __future__ import annotations

from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.errors import ConfigurationError
from symphony.routing.patterns import NamePattern, NameTable, PathPattern, PathTable, join_paths


def paths(*patterns: str) -> PathTable[str]:
    table = PathTable[str]()
    for pattern in patterns:
        table.add(pattern, pattern)
    return table


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/chat/{room}", "/chat/lobby", {"room": "lobby"}),
        ("/chat/{room:str}", "/chat/lobby", {"room": "lobby"}),
        ("/users/{id:int}", "/users/42", {"id": 42}),
        ("/at/{x:float}", "/at/1.5", {"x": 1.5}),
        ("/files/{path:path}", "/files/a/b.txt", {"path": "a/b.txt"}),
        ("/files/{path:path}", "/files/", {"path": ""}),
        ("/files/{path:path}", "/files/two\nlines", {"path": "two\nlines"}),
        ("/v{n:int}/status", "/v2/status", {"n": 2}),
        ("/{name}.{ext}", "/archive.tar.gz", {"name": "archive.tar", "ext": "gz"}),
        ("/{y:int}-{m:int}-{d:int}", "/2025-01-31", {"y": 2025, "m": 1, "d": 31}),
        ("/{a}/{b:int}", "/ü/7", {"a": "ü", "b": 7}),
    ],
)
def test_a_path_gives_converted_parameters(pattern: str, path: str, params: dict[str, Any]) -> None:
    assert paths(pattern).match(path) == (pattern, params)


def test_a_uuid_parameter_gives_a_uuid() -> None:
    key = UUID("12345678-1234-5678-1234-567812345678")
    assert paths("/x/{key:uuid}").match(f"/x/{key}") == ("/x/{key:uuid}", {"key": key})


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/a", "/a/"),
        ("/a/", "/a"),
        ("/a", "/A"),
        ("/chat/{room}", "/chat/"),
        ("/chat/{room}", "/chat/a/b"),
        ("/users/{id:int}", "/users/-1"),
        ("/users/{id:int}", "/users/5\n"),
        ("/chat/{room}/end", "/chat/a/end\n"),
        ("/users/{id:int}", "/users/٣"),
        ("/x/{key:uuid}", "/x/1234"),
        ("/{name}.{ext}/x", "/a.b/y"),
    ],
)
def test_another_path_is_no_match(pattern: str, path: str) -> None:
    assert paths(pattern).match(path) is None


def test_a_number_that_does_not_convert_is_no_match_and_leaves_the_path_to_others() -> None:
    too_long = "9" * 5000
    assert paths("/users/{id:int}").match(f"/users/{too_long}") is None
    assert paths("/users/{x:float}").match(f"/users/{too_long}") is None
    assert paths("/users/{id:int}", "/users/{name}").match(f"/users/{too_long}") == (
        "/users/{name}",
        {"name": too_long},
    )


@pytest.mark.parametrize(
    ("path", "winner"),
    [
        ("/a/me", "/a/me"),
        ("/a/v7", "/a/v{n:int}"),
        ("/a/vx", "/a/v{x}"),
        ("/a/7", "/a/{id:int}"),
        ("/a/7.5", "/a/{x:float}"),
        ("/a/12345678123456781234567812345678", "/a/{key:uuid}"),
        ("/a/seven", "/a/{name}"),
        ("/a/b/c", "/a/{rest:path}"),
        ("/b/c", "/{rest:path}"),
    ],
)
def test_the_most_specific_pattern_wins(path: str, winner: str) -> None:
    patterns = [
        "/{rest:path}",
        "/a/{rest:path}",
        "/a/{name}",
        "/a/{x:float}",
        "/a/{id:int}",
        "/a/{key:uuid}",
        "/a/v{x}",
        "/a/v{n:int}",
        "/a/me",
    ]
    for order in (patterns, patterns[::-1]):
        found = paths(*order).match(path)
        assert found is not None
        assert found[0] == winner


def test_patterns_are_compared_segment_by_segment_whatever_the_order() -> None:
    for order in permutations(["/{a}/x", "/chat/{b}", "/chat/{p:path}", "/{q:path}"]):
        found = paths(*order).match("/chat/x")
        assert found == ("/chat/{b}", {"b": "x"})


def test_patterns_equally_specific_do_not_depend_on_the_order_either() -> None:
    assert paths("/{a}-{b}", "/{a}.{b}").match("/x-y.z") == paths("/{a}.{b}", "/{a}-{b}").match("/x-y.z")


def test_none_is_a_value_like_any_other() -> None:
    table = PathTable[None]()
    table.add("/", None)
    assert table.match("/") == (None, {})


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("/a", "/a", "Pattern '/a' is registered twice."),
        ("/a/{x}", "/a/{x}", "Pattern '/a/{x}' is registered twice."),
        ("/a/{x}", "/a/{y}", "Pattern '/a/{y}' matches the same as '/a/{x}'."),
        ("/a/{x}", "/a/{x:str}", "Pattern '/a/{x:str}' matches the same as '/a/{x}'."),
        ("/{x:int}/b/{p:path}", "/{y:int}/b/{q:path}", "matches the same as '/{x:int}/b/{p:path}'"),
    ],
)
def test_a_duplicate_is_refused_and_names_both_patterns(first: str, second: str, message: str) -> None:
    table = paths(first)
    with pytest.raises(ConfigurationError) as caught:
        table.add(second, second)
    assert message in str(caught.value)


def test_a_pattern_with_another_converter_is_no_duplicate() -> None:
    assert paths("/a/{x}", "/a/{x:int}").match("/a/1") == ("/a/{x:int}", {"x": 1})


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("chat", "Path 'chat' must start with '/'."),
        ("", "Path '' must start with '/'."),
        (
            "/{id:integer}",
            "Pattern '/{id:integer}': {id:integer} has an unknown converter; known are float, int, path, "
            "str, uuid.",
        ),
        ("/{a}/{a}", "Pattern '/{a}/{a}': the parameter 'a' is used twice."),
        ("/{a", "Pattern '/{a': its braces are not balanced."),
        ("/a}", "Pattern '/a}': its braces are not balanced."),
        ("/{{a}}", "Pattern '/{{a}}': its braces are not balanced."),
        ("/{}", "Pattern '/{}': {} is not a parameter; write {name} or {name:converter}."),
        ("/{1a}", "Pattern '/{1a}': {1a} is not a parameter; write {name} or {name:converter}."),
        (
            "/{p:path}/x",
            "Pattern '/{p:path}/x': {p:path} matches the rest, so nothing may come after it.",
        ),
        ("/{a}{b}", "Pattern '/{a}{b}': two parameters need text between them."),
        (
            "/{a}-{b}-{c}",
            "Pattern '/{a}-{b}-{c}': a segment can have at most two parameters, or more if all of them "
            "are typed.",
        ),
    ],
)
def test_a_wrong_path_pattern_says_what_is_wrong(pattern: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PathTable[int]().add(pattern, 1)
    assert str(caught.value) == message


def test_a_refused_pattern_leaves_no_trace_in_the_table() -> None:
    table = paths("/a/{x}")
    with pytest.raises(ConfigurationError):
        table.add("/a/{y}", "other")
    assert table.match("/a/1") == ("/a/{x}", {"x": "1"})


def test_a_path_pattern_tells_its_parameters() -> None:
    pattern = PathPattern("/{room}/{id:int}/{rest:path}")
    assert pattern.names == ("room", "id", "rest")
    assert pattern.converters == {"room": "str", "id": "int", "rest": "path"}


@given(
    segments=st.lists(st.text(st.characters(exclude_characters="/{}"), min_size=1), min_size=1, max_size=4),
)
def test_whatever_a_parameter_takes_comes_out_unchanged(segments: list[str]) -> None:
    names = [f"p{index}" for index in range(len(segments))]
    pattern = "/" + "/".join(f"{{{name}}}" for name in names)
    path = "/" + "/".join(segments)
    assert paths(pattern).match(path) == (pattern, dict(zip(names, segments, strict=True)))


# Names of rooms and events


@pytest.mark.parametrize(
    ("pattern", "separator", "name", "params"),
    [
        ("lobby", ":", "lobby", {}),
        ("chat:{name}", ":", "chat:a/b.c", {"name": "a/b.c"}),
        ("chat:{name}", ":", "chat:", None),
        ("chat:{name}", ":", "chat:a:b", None),
        ("game.{id:int}.move", ".", "game.7.move", {"id": 7}),
        ("game.{id:int}.move", ".", "game.x.move", None),
        ("log:{rest:path}", ":", "log:a:b", {"rest": "a:b"}),
    ],
)
def test_a_name_matches_up_to_its_separator(
    pattern: str, separator: str, name: str, params: dict[str, Any] | None
) -> None:
    assert NamePattern(pattern, separator=separator).match(name) == params


def test_names_are_in_the_order_of_the_pattern() -> None:
    assert NamePattern("{b}.{a:int}", separator=".").names == ("b", "a")


def test_specificity_sorts_exact_before_parameter_before_wildcard() -> None:
    texts = ["chat:{rest:path}", "chat:{name}", "chat:{id:int}", "chat:lobby"]
    patterns = [NamePattern(text, separator=":") for text in texts]
    assert [each.text for each in sorted(patterns, key=lambda each: each.specificity)] == texts[::-1]


def test_an_empty_name_pattern_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be empty"):
        NamePattern("", separator=":")


def test_a_pattern_formats_the_name_that_it_matches() -> None:
    pattern = NamePattern("game.{id:int}.{who}", separator=".")
    assert pattern.format(id=7, who="ada") == "game.7.ada"
    assert pattern.match("game.7.ada") == {"id": 7, "who": "ada"}


@given(x=st.floats(min_value=0, max_value=1e9), key=st.uuids(), rest=st.text())
def test_format_and_match_are_inverse(x: float, key: UUID, rest: str) -> None:
    pattern = NamePattern("a:{x:float}:{key:uuid}:{rest:path}", separator=":")
    params = pattern.match(pattern.format(x=x, key=key, rest=rest))
    assert params == {"x": pytest.approx(x), "key": key, "rest": rest}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Pattern 'chat:{name}:{id:int}' needs 'name' (its parameters: name, id)."),
        (
            {"name": "a", "id": 1, "x": 1},
            "Pattern 'chat:{name}:{id:int}' has no parameter 'x' (its parameters: name, id).",
        ),
        ({"name": None, "id": 1}, "Parameter 'name' of pattern 'chat:{name}:{id:int}' takes str, not None."),
        ({"name": "a", "id": "1"}, "Parameter 'id' of pattern 'chat:{name}:{id:int}' takes int, not '1'."),
        ({"name": "a", "id": True}, "Parameter 'id' of pattern 'chat:{name}:{id:int}' takes int, not True."),
        (
            {"name": "a:b", "id": 1},
            "Parameter 'name' of pattern 'chat:{name}:{id:int}' cannot be 'a:b': the name would not match.",
        ),
        (
            {"name": "", "id": 1},
            "Parameter 'name' of pattern 'chat:{name}:{id:int}' cannot be '': the name would not match.",
        ),
        (
            {"name": "a", "id": -1},
            "Parameter 'id' of pattern 'chat:{name}:{id:int}' cannot be -1: the name would not match.",
        ),
    ],
)
def test_format_says_what_it_cannot_use(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        NamePattern("chat:{name}:{id:int}", separator=":").format(**params)
    assert str(caught.value) == message


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -1.0])
def test_format_refuses_floats_that_no_name_has(x: float) -> None:
    with pytest.raises(ValueError, match="the name would not match"):
        NamePattern("{x:float}", separator=":").format(x=x)


def test_a_table_of_names_finds_the_most_specific() -> None:
    table = NameTable[str](separator=":")
    for pattern in ("chat:{rest:path}", "chat:{name}", "chat:lobby"):
        table.add(pattern, pattern)
    assert table.match("chat:lobby") == ("chat:lobby", {})
    assert table.match("chat:a") == ("chat:{name}", {"name": "a"})
    assert table.match("chat:a:b") == ("chat:{rest:path}", {"rest": "a:b"})
    assert table.match("game:a") is None


@pytest.mark.parametrize(
    ("prefix", "path", "joined"),
    [
        ("", "/a", "/a"),
        ("/api", "/a", "/api/a"),
        ("/api", "/", "/api/"),
        ("/api", "", "/api"),
        ("/api", "/v1", "/api/v1"),
        ("", "", ""),
    ],
)
def test_a_prefix_goes_before_a_path(prefix: str, path: str, joined: str) -> None:
    assert join_paths(prefix, path) == joined


@pytest.mark.parametrize("prefix", ["api", "/api/", "/"])
def test_a_wrong_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="must start with '/' and not end with it, as in '/api'"):
        join_paths(prefix, "/a")


def test_a_path_under_a_prefix_starts_with_a_slash() -> None:
    with pytest.raises(ConfigurationError, match="Path 'a' must start with '/'"):
        join_paths("/api", "a")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/{name}.{ext}/x", "/" + "." * 60_000 + "/y"),
        ("/{name}-{n:int}", "/" + "-1" * 30_000 + "x"),
        ("/{y:int}-{m:int}-{d:int}", "/" + "1" * 4000 + "-" + "1" * 50_000),
    ],
)
def test_a_hostile_path_costs_linear_time(pattern: str, path: str) -> None:
    """Trying all divisions of a segment again would run into the timeout of the tests."""
    assert paths(pattern).match(path) is None
