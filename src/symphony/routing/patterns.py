"""Patterns of paths and names, and tables that find the most specific one.

A pattern is literal text with parameters. `{name}` matches one or more
characters up to the next separator. `{id:int}`, `{x:float}` and `{key:uuid}`
match text that can be converted. `{rest:path}` matches the rest. The same code
is used for the paths of routes (separator `/`) and for the names of rooms and
events.

Within a table the most specific pattern wins, in any order of
registration. Patterns are compared segment by segment: literal text, then
literal text with a parameter, then a typed parameter, then an untyped one,
then `:path`.
"""

from __future__ import annotations

import re
from bisect import insort
from decimal import Decimal
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from starlette.convertors import CONVERTOR_TYPES  # codespell:ignore convertors

from symphony.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("NamePattern", "NameTable", "PathPattern", "PathTable", "join_paths")

T = TypeVar("T")

_PLACEHOLDER: Final = re.compile(r"(\{[^{}]*\})")
_PARAMETER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_][a-zA-Z0-9_]*))?\}")
# Narrower first, because all digits of `{x:int}` are also numbers of `{x:float}`.
# Converters that the app has registered with Starlette come next.
_NARROWNESS: Final[Mapping[str, int]] = {"uuid": 0, "int": 1, "float": 2, "str": 4}
_ACCEPTED: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (float, int),
    "uuid": (UUID,),
}


class _Parameter(NamedTuple):
    name: str
    converter: str


_Segment = list["str | _Parameter"]


class NamePattern:
    """One pattern for names, such as `chat:{name}` or `game.{id:int}.move`.

    Matching takes linear time in the length of the name, so that a hostile
    name cannot block the event loop. Patterns that would need more are
    refused.

    Args:
        text: The pattern.
        separator: The single character between its segments.

    Attributes:
        text: The pattern as it was written.
        names: Its parameters, in order.
        converters: The converter of each parameter: `{"id": "int"}`.
        specificity: A sort key. The lower one of two patterns is more
            specific.
        shape: The pattern without the names of its parameters. Two patterns
            with the same shape match the same names.

    Raises:
        ConfigurationError: The text is not a valid pattern.
    """

    __slots__ = ("_converts", "_regex", "_separator", "converters", "names", "shape", "specificity", "text")

    def __init__(self, text: str, *, separator: str) -> None:
        self.text = text
        self._separator = separator
        segments = self._parse()
        parameters = [piece for segment in segments for piece in segment if isinstance(piece, _Parameter)]
        self._check(segments, parameters)
        self.names: tuple[str, ...] = tuple(parameter.name for parameter in parameters)
        self.converters: dict[str, str] = dict(parameters)
        self._converts = any(converter not in ("str", "path") for converter in self.converters.values())
        self.specificity: tuple[tuple[int, ...], ...] = tuple(map(_rank, segments))
        self.shape = separator.join(
            "".join(piece if isinstance(piece, str) else f"{{:{piece.converter}}}" for piece in segment)
            for segment in segments
        )
        # `fullmatch`, because `$` would also match before a trailing newline.
        self._regex = re.compile(
            re.escape(separator).join(self._segment_regex(segment) for segment in segments), re.DOTALL
        )

    def match(self, name: str) -> dict[str, Any] | None:
        """Return the converted parameters of *name*, or `None` if it does not match.

        Text that has the form of a converter but cannot be converted (an
        integer that is too long, a number above all floats) does not match.
        """
        found = self._regex.fullmatch(name)
        if found is None:
            return None
        params: dict[str, Any] = {}
        for parameter, converter in self.converters.items():
            try:
                value = CONVERTOR_TYPES[converter].convert(found[parameter])
            except (ValueError, OverflowError):
                return None
            if isinstance(value, float) and not isfinite(value):
                return None
            params[parameter] = value
        return params

    def match_exactly(self, name: str) -> dict[str, Any] | None:
        """Return the converted parameters of *name* if `format` turns them into *name* again.

        `game:007` matches `game:{id:int}`, but its parameters are those of `game:7`.
        """
        params = self.match(name)
        if params is None or not self._converts:
            return params
        try:
            return params if self.format(**params) == name else None
        except ValueError:
            return None

    def format(self, **params: Any) -> str:
        """Return the name that matches with these parameters.

        Raises:
            ValueError: A parameter is missing, unknown, or of the wrong type,
                or the name would not match the pattern.
        """
        unknown = [name for name in params if name not in self.converters]
        missing = [name for name in self.names if name not in params]
        if unknown or missing:
            problem = f"has no parameter {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
            raise ValueError(
                f"Pattern {self.text!r} {problem} (its parameters: {', '.join(self.names) or 'none'})."
            )
        pieces = _PLACEHOLDER.split(self.text)
        for index, name in enumerate(self.names):
            pieces[2 * index + 1] = self._format_one(name, params[name])
        return "".join(pieces)

    def _format_one(self, name: str, value: Any) -> str:
        converter = self.converters[name]
        accepted = _ACCEPTED.get(converter, (object,))
        if not isinstance(value, accepted) or (isinstance(value, bool) and converter != "str"):
            raise ValueError(
                f"Parameter {name!r} of pattern {self.text!r} takes {accepted[0].__name__}, not {value!r}."
            )
        text = value if isinstance(value, str) else self._to_text(converter, value)
        if not re.fullmatch(self._regex_of(converter), text, re.DOTALL):
            raise ValueError(
                f"Parameter {name!r} of pattern {self.text!r} cannot be {value!r}: the name would not match."
            )
        return text

    @staticmethod
    def _to_text(converter: str, value: Any) -> str:
        # The shortest text that is this float again; Starlette writes up to 20 digits.
        if converter == "float":
            return format(Decimal(repr(float(value))), "f").removesuffix(".0")
        # Starlette asserts that values are valid. The caller's regex checks all types.
        try:
            return CONVERTOR_TYPES[converter].to_string(value)
        except AssertionError:
            return str(value)

    def _regex_of(self, converter: str) -> str:
        return f"[^{re.escape(self._separator)}]+" if converter == "str" else CONVERTOR_TYPES[converter].regex

    def _segment_regex(self, segment: _Segment) -> str:
        body = "".join(
            re.escape(piece)
            if isinstance(piece, str)
            else f"(?P<{piece.name}>{self._regex_of(piece.converter)})"
            for piece in segment
        )
        if sum(isinstance(piece, _Parameter) for piece in segment) < 2:
            return body
        # Atomic group: the division of a segment between its parameters does not depend
        # on later segments. Trying every division again for them would be quadratic.
        return rf"(?>{body}(?={re.escape(self._separator)}|\Z))"

    def _parse(self) -> list[_Segment]:
        if not self.text:
            raise ConfigurationError("A pattern cannot be empty.")
        segments: list[_Segment] = [[]]
        for piece in _PLACEHOLDER.split(self.text):
            if piece.startswith("{") and piece.endswith("}"):
                found = _PARAMETER.fullmatch(piece)
                if found is None:
                    raise self._error(f"{piece} is not a parameter; write {{name}} or {{name:converter}}")
                segments[-1].append(_Parameter(found[1], found[2] or "str"))
                continue
            if "{" in piece or "}" in piece:
                raise self._error("its braces are not balanced")
            first, *rest = piece.split(self._separator)
            segments[-1].extend([first] if first else [])
            segments.extend([text] if text else [] for text in rest)
        return segments

    def _check(self, segments: list[_Segment], parameters: list[_Parameter]) -> None:
        for index, (name, converter) in enumerate(parameters):
            if converter not in CONVERTOR_TYPES:
                raise self._error(
                    f"{{{name}:{converter}}} has an unknown converter; "
                    f"known are {', '.join(sorted(CONVERTOR_TYPES))}"
                )
            if name in (parameter.name for parameter in parameters[:index]):
                raise self._error(f"the parameter {name!r} is used twice")
            if converter == "path" and segments[-1][-1:] != [parameters[index]]:
                raise self._error(f"{{{name}:path}} matches the rest, so nothing may come after it")
        for segment in segments:
            inside = [piece for piece in segment if isinstance(piece, _Parameter)]
            if any(isinstance(a, _Parameter) and isinstance(b, _Parameter) for a, b in pairwise(segment)):
                raise self._error("two parameters need text between them")
            # With three parameters that match any text, there are quadratically many
            # divisions to try.
            if len(inside) > 2 and any(parameter.converter in {"str", "path"} for parameter in inside):
                raise self._error(
                    "a segment can have at most two parameters, or more if all of them are typed"
                )

    def _error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"Pattern {self.text!r}: {problem}.")


class PathPattern(NamePattern):
    """The path pattern of a route, such as `/chat/{room}`.

    It starts with `/`. A trailing slash matters: `/a` and `/a/` are different
    paths. Paths are percent-decoded before matching, so `%2F` separates
    segments like `/`.
    """

    __slots__ = ()

    def __init__(self, text: str) -> None:
        if not text.startswith("/"):
            raise ConfigurationError(f"Path {text!r} must start with '/'.")
        super().__init__(text, separator="/")


def _rank(segment: _Segment) -> tuple[int, ...]:
    literal = sum(len(piece) for piece in segment if isinstance(piece, str))
    converters = [piece.converter for piece in segment if isinstance(piece, _Parameter)]
    if not converters:
        return (0,)
    if "path" in converters:
        return (3, -literal)
    narrowness = [_NARROWNESS.get(converter, 3) for converter in converters]
    return (1, -literal, *narrowness) if literal else (2, *narrowness)


class _Table(Generic[T]):
    """Values by pattern. Literal patterns cost one dict lookup."""

    __slots__ = ("_exact", "_literal", "_parametric", "_shapes")

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._literal: dict[str, T] = {}
        self._parametric: list[tuple[NamePattern, T]] = []
        self._shapes: dict[str, tuple[str, str]] = {}

    def _add(self, pattern: NamePattern, value: T, owner: str) -> None:
        text, other = self._shapes.get(pattern.shape, (None, ""))
        if text is not None:
            same = "is registered twice" if text == pattern.text else f"matches the same as {text!r}"
            owners = f": {other} and {owner}. Remove one of them, or rename it" if owner and other else ""
            raise ConfigurationError(f"Pattern {pattern.text!r} {same}{owners}.")
        self._shapes[pattern.shape] = pattern.text, owner
        if pattern.names:
            # Equally specific patterns are sorted by shape, so that the order of
            # registration never matters.
            insort(
                self._parametric, (pattern, value), key=lambda entry: (entry[0].specificity, entry[0].shape)
            )
        else:
            self._literal[pattern.text] = value

    @property
    def texts(self) -> list[str]:
        """The patterns as they were written."""
        return [text for text, _ in self._shapes.values()]

    def match(self, name: str) -> tuple[T, dict[str, Any]] | None:
        """Return the value of the most specific match and its parameters."""
        if name in self._literal:
            return self._literal[name], {}
        for pattern, value in self._parametric:
            params = pattern.match_exactly(name) if self._exact else pattern.match(name)
            if params is not None:
                return value, params
        return None


class PathTable(_Table[T]):
    """Values by path pattern, used to find the route of a path."""

    __slots__ = ()

    def add(self, pattern: str, value: T, owner: str = "") -> None:
        """Add one path pattern.

        Args:
            pattern: The pattern.
            value: What is found by it.
            owner: Whose it is, for the error: "handler chat.enter (/app/chat.py:12)".

        Raises:
            ConfigurationError: The pattern is not valid, or another one in the
                table matches the same paths.
        """
        self._add(PathPattern(pattern), value, owner)


class NameTable(_Table[T]):
    """Values by name pattern, used for the families of rooms and the handlers of events.

    Args:
        separator: The character between the segments of all its names.
        exact: Match only names that their pattern would write in the same way: see
            `NamePattern.match_exactly`.
    """

    __slots__ = ("_separator",)

    def __init__(self, *, separator: str, exact: bool = False) -> None:
        super().__init__(exact=exact)
        self._separator = separator

    def add(self, pattern: str, value: T, owner: str = "") -> None:
        """Add one name or name pattern.

        Args:
            pattern: The name or pattern.
            value: What is found by it.
            owner: Whose it is, for the error: "handler chat.say (/app/chat.py:12)".

        Raises:
            ConfigurationError: The pattern is not valid, or another one in the
                table matches the same names.
        """
        self._add(NamePattern(pattern, separator=self._separator), value, owner)


def join_paths(prefix: str, path: str) -> str:
    """Return a path, or a nested prefix, with a router's prefix before it.

    No slash is added or removed: `join_paths("/api", "/")` is `/api/`, and
    `join_paths("/api", "")` is `/api`.

    Raises:
        ConfigurationError: The prefix is not empty and does not have the form
            `/name`, or the path is not empty and does not start with `/`.
    """
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigurationError(f"Prefix {prefix!r} must start with '/' and not end with it, as in '/api'.")
    if path and not path.startswith("/"):
        raise ConfigurationError(f"Path {path!r} must start with '/'.")
    return prefix + path
