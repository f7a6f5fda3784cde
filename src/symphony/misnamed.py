"""Names that nothing has: logged if a similar name exists, which was probably meant."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

from symphony.printable import printable

__all__ = ("Misnamed", "nearest")

MAX_LOOKED_AT: Final = 100
"""For so many names a similar one is looked for. Strangers choose the names, and each look takes time."""
MAX_COMPARED: Final = 200
"""A name is compared with so many others at most."""
MAX_CHARACTERS: Final = 64
"""Longer names are not compared."""

# How much of two names must be the same: "sya" and "say" are 0.67.
_SIMILAR: Final = 0.65


class Misnamed:
    """A kind of log line about a name that nothing has, at most one for each name.

    Only the log has the similar name. A client is not told which names
    exist beside the one that it has sent.

    Args:
        logger: Where it is logged, as a warning.
        text: The line, with `%s` for the name, for the other values, and for
            the similar name.
        separator: What is between the segments of a name.
    """

    __slots__ = ("_logger", "_looked_at", "_separator", "_text")

    def __init__(self, logger: logging.Logger, text: str, separator: str) -> None:
        self._logger = logger
        self._text = text
        self._separator = separator
        self._looked_at: set[tuple[object, ...]] = set()

    def look(self, name: str, names: Iterable[str], *values: object) -> None:
        """Log the name if one of *names* is similar.

        Args:
            name: As the peer has sent it.
            names: The names and patterns that exist.
            *values: Further values for the line, such as the place.
        """
        if len(name) > MAX_CHARACTERS or len(self._looked_at) >= MAX_LOOKED_AT:
            return
        if (key := (name, *values)) in self._looked_at:
            return
        self._looked_at.add(key)
        near = nearest(name, names, self._separator)
        if near is not None:
            self._logger.warning(self._text, printable(name), *values, printable(near))


def nearest(name: str, names: Iterable[str], separator: str) -> str | None:
    """Return the name or pattern that is most similar, or `None`.

    Args:
        name: The name.
        names: Names and patterns such as `/chat/{room}`. Segments with a
            parameter match anything.
        separator: What is between the segments.
    """
    best, near = _SIMILAR, None
    matcher = SequenceMatcher(autojunk=False)
    for other in islice(names, MAX_COMPARED):
        if len(other) > 2 * MAX_CHARACTERS:
            continue
        given, expected = _literal(name, other, separator)
        matcher.set_seqs(given.lower(), expected.lower())
        if (
            matcher.quick_ratio() >= best
            and (ratio := matcher.ratio()) >= best
            and (near is None or ratio > best)
        ):
            best, near = ratio, other
    return near


def _literal(name: str, pattern: str, separator: str) -> tuple[str, str]:
    """Return both without the segments that are parameters, if they have the same number of segments."""
    given, expected = name.split(separator), pattern.split(separator)
    if "{" not in pattern or len(given) != len(expected) or "" in given[1:]:
        return name, pattern
    both = [(one, other) for one, other in zip(given, expected, strict=True) if "{" not in other]
    return separator.join(one for one, _ in both), separator.join(other for _, other in both)
