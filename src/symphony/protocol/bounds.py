"""Bounds on what decoding a message of a peer may cost.

Python hashes text with a secret, but not numbers and tuples of them. A peer that chooses such keys
can give all of them one hash, and then a dict of n keys costs n² steps. So untyped data has text and
64-bit integers as keys. Types that need other keys are limited to `MAX_HASHED` elements a message.
Even small numbers can be chosen so that they collide in a dict, but each step then costs less. They are
limited to `MAX_HASHED_NUMBERS`.

Each element becomes an object. A message of 1 MiB could become a million of them, so their number is
limited, too. Only messages that are long enough to exceed a bound are examined.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import inspect

from symphony.errors import Reject
from symphony.protocol.annotations import parts

__all__ = (
    "MAX_HASHED",
    "MAX_HASHED_NUMBERS",
    "SMALL",
    "Hashed",
    "bounded",
    "calm",
    "check_elements",
    "check_hashed",
    "hashed",
    "hashed_by_pydantic",
    "unpack",
    "worst",
)

MAX_HASHED: Final = 1000
"""The most elements of a message whose type has sets or keys with a hash that a peer can choose."""

MAX_HASHED_NUMBERS: Final = 10_000
"""The most elements of a message whose type has sets or keys of numbers, times or durations, and the
most keys of untyped MessagePack that are not text."""

SMALL: Final = 4096
"""Up to this many bytes, a message is decoded without looking at its size."""

Hashed: TypeAlias = Literal["numbers", "integers", "others"] | None
"""What a type hashes: numbers, times and durations; integers, too, of which JSON has some with more
than 64 bits; or other values whose hash a peer can choose, such as tuples, UUIDs and decimals."""

_SAFE_HASHES: Final = (
    inspect.StrType,
    inspect.BytesType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.DateType,
)
# Python hashes a time with a time zone like the numbers it consists of.
_NUMBERS: Final = (inspect.FloatType, inspect.DateTimeType, inspect.TimeType, inspect.TimeDeltaType)
_SEVERITY: Final = (None, "numbers", "integers", "others")
_PYDANTIC_SAFE: Final = frozenset(("str", "bytes", "bool", "enum", "literal"))
_PYDANTIC_NUMBERS: Final = frozenset(("float", "datetime", "time", "timedelta"))
# The message is above the bound; its exact cost no longer matters.
_HARMLESS: Final = 256
# A text without an end ends with the message. If it did not match, the search would begin again
# at each escaped quote in it.
_TEXT: Final = rb'"(?:[^"\\]++|\\.|\\\Z)*+(?:"|\Z)'
_STRING: Final = re.compile(_TEXT, re.DOTALL)
_STRING_OR_KEY: Final = re.compile(_TEXT + rb"(\s*+:)?", re.DOTALL)
_LONG_INTEGER: Final = re.compile(rb"(?<![0-9.])[0-9]{21}")
_KEYS: Final = frozenset((str, int))


def check_elements(message: str | bytes, most: int, *, is_json: bool) -> None:
    """Check how many values, items and keys a message contains.

    Args:
        message: The message, in JSON or MessagePack.
        most: How many it may contain.
        is_json: Whether it is JSON.

    Raises:
        Reject: It contains more.
    """
    # An element has at least one byte.
    if len(message) <= most:
        return
    data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
    if not (_json_fits(data, most) if is_json else _fits(data, most, any_key=True)):
        raise Reject("invalid", f"more than {most:,} elements in one message", details={"path": "$"})


def _json_fits(data: bytes, most: int) -> bool:
    return _elements(data) <= most or _elements(_STRING.sub(b'"', data)) <= most


def _elements(data: bytes) -> int:
    return data.count(b",") + data.count(b":") + data.count(b"[") + data.count(b"{") + 1


def _fits(data: bytes, most: int, *, any_key: bool) -> bool:
    """Return whether a MessagePack value has at most so many elements.

    Raises:
        Reject: It has a key that is neither text nor an integer, or too many that are not text.
    """
    at, end = 0, len(data)
    numbers = MAX_HASHED_NUMBERS
    # For each array or map that is open: how many parts are missing, and whether it is a map.
    missing, is_map = 1, False
    stack: list[tuple[int, bool]] = []
    while at < end:
        if most <= 0:
            return False
        most -= 1
        code = data[at]
        if is_map and not missing % 2 and not any_key and not _is_text(code):
            if not _is_integer(code):
                raise Reject("invalid", "a key that is neither text nor an integer", details={"path": "$"})
            if not numbers:
                raise Reject(
                    "invalid",
                    f"more than {MAX_HASHED_NUMBERS:,} keys that are not text in one message",
                    details={"path": "$"},
                )
            numbers -= 1
        missing -= 1
        at += 1
        length = 0
        opens = 0
        if code < 0x80 or code >= 0xE0 or code in (0xC0, 0xC2, 0xC3):
            pass
        elif code < 0x90:
            opens = 2 * (code & 0x0F)
        elif code < 0xA0:
            opens = code & 0x0F
        elif code < 0xC0:
            length = code & 0x1F
        elif code in _SIZES:
            length = _SIZES[code]
        else:
            size, extra = _COUNTED.get(code, (0, 0))
            count = int.from_bytes(data[at : at + size], "big")
            at += size
            if code >= 0xDC:
                opens = count if code < 0xDE else 2 * count
            else:
                length = count + extra
        at += length
        if opens:
            stack.append((missing, is_map))
            missing, is_map = opens, 0x80 <= code < 0x90 or code >= 0xDE
        while not missing and stack:
            missing, is_map = stack.pop()
        if not missing:
            break
    return True


_SIZES: Final = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
"""How many bytes follow a code."""
_COUNTED: Final = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0), 0xDC: (2, 0), 0xDD: (4, 0), 0xDE: (2, 0), 0xDF: (4, 0),
}  # fmt: skip
"""How many bytes of a length follow a code, and how many bytes more follow than the length says."""


def _is_text(code: int) -> bool:
    return 0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB


def _is_integer(code: int) -> bool:
    return code < 0x80 or code >= 0xE0 or 0xCC <= code <= 0xD3


def unpack(data: Any) -> Any:
    """Decode MessagePack to plain values, whose keys are text and integers.

    Raises:
        Reject: There is another key, or too many integers are keys.
    """
    packed = bytes(data)
    if len(packed) > _HARMLESS:
        _fits(packed, len(packed), any_key=False)
        return msgspec.msgpack.decode(packed)
    value = msgspec.msgpack.decode(packed)
    _check_keys(value)
    return value


def _check_keys(value: Any) -> None:
    if type(value) is dict:
        for key, item in cast("dict[Any, Any]", value).items():
            if type(key) not in _KEYS:
                raise Reject("invalid", "a key that is neither text nor an integer", details={"path": "$"})
            _check_keys(item)
    elif type(value) is list:
        for item in cast("list[Any]", value):
            _check_keys(item)


def hashed(info: inspect.Type) -> Hashed:
    """Return what a type hashes, from msgspec's description of it."""
    found: Hashed = None
    for part in parts(info):
        if isinstance(part, inspect.SetType | inspect.FrozenSetType):
            found = worst(found, _hash_of(part.item_type))
        elif isinstance(part, inspect.DictType) and not isinstance(part.key_type, inspect.AnyType):
            found = worst(found, _hash_of(part.key_type))
    return found


def worst(*kinds: Hashed) -> Hashed:
    """Return the one of several kinds that has the strictest bound."""
    return max(kinds, key=_SEVERITY.index)


def _hash_of(info: Any) -> Hashed:
    if isinstance(info, inspect.UnionType):
        return worst(*map(_hash_of, info.types))
    if isinstance(info, inspect.IntType):
        return "integers"
    if isinstance(info, _NUMBERS):
        return "numbers"
    return None if isinstance(info, _SAFE_HASHES) else "others"


def hashed_by_pydantic(nodes: Iterator[dict[str, Any]]) -> Hashed:
    """Return what a type hashes, from the nodes of pydantic's schema of it."""
    found: Hashed = None
    for node in nodes:
        if node.get("type") in ("set", "frozenset"):
            inside: Any = node.get("items_schema") or {}
        elif node.get("type") == "dict":
            inside = node.get("keys_schema") or {"type": "str"}
        else:
            continue
        kind = inside.get("type")
        if kind == "int":
            found = worst(found, "integers")
        elif kind in _PYDANTIC_NUMBERS:
            found = worst(found, "numbers")
        elif kind not in _PYDANTIC_SAFE:
            return "others"
    return found


def check_hashed(message: Any, kind: Hashed, *, is_json: bool) -> None:
    """Check that decoding a message to a type that hashes is linear.

    Raises:
        Reject: It might not be.
    """
    data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else bytes(message)
    if len(data) <= _HARMLESS:
        return
    check_elements(data, MAX_HASHED if kind == "others" else MAX_HASHED_NUMBERS, is_json=is_json)
    if (
        kind == "integers"
        and is_json
        and _LONG_INTEGER.search(data)
        and _LONG_INTEGER.search(_without_texts(data))
    ):
        raise Reject("invalid", "an integer of more than 64 bits", details={"path": "$"})


def _without_texts(data: bytes) -> bytes:
    # Keys stay, because they may become integers.
    return _STRING_OR_KEY.sub(lambda found: found[0] if found[1] else b'"', data)


@contextmanager
def _paused() -> Generator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def calm(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a reader in which the garbage collector does not run.

    It would look at all objects of a large message again and again, and find
    nothing, because all of them are in use.
    """

    def read_calmly(data: Any) -> Any:
        if type(data) is msgspec.Raw and memoryview(data).nbytes > SMALL:
            with _paused():
                return read(data)
        return read(data)

    return read_calmly


def bounded(read: Callable[[Any], Any], most: int, *, is_json: bool) -> Callable[[Any], Any]:
    """Return a reader that decodes data only if it does not contain too much.

    While it decodes large data, the garbage collector does not run, as in `calm`.

    Args:
        read: Decodes the data: `Raw`, text or bytes.
        most: How many values, items and keys the data may contain.
        is_json: Whether it is JSON, and otherwise MessagePack.

    Raises:
        Reject: By the reader: the data contains more.
    """

    def read_bounded(data: Any) -> Any:
        is_raw = type(data) is msgspec.Raw
        size = memoryview(data).nbytes if is_raw else len(data)
        if size <= SMALL and size <= most:
            return read(data)
        if size > most:
            check_elements(bytes(data) if is_raw else data, most, is_json=is_json)
        with _paused():
            return read(data)

    return read_bounded
