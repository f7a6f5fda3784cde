"""The vectors of `protocol/vectors/`, as its README describes them."""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

__all__ = (
    "FOLDER",
    "Ids",
    "decoded",
    "encoded",
    "fits",
    "joined",
    "load",
    "means",
    "message",
    "named",
    "plain",
    "same",
    "texts",
)

FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"

_MODULES = {"json": msgspec.json, "msgpack": msgspec.msgpack}
_IDS = ("id", "reply", "error", "item", "end", "grant", "cancel", "ping", "pong")
_TEXTS = ("key", "client")
_OF_ROOMS = ("join", "leave", "history", "joined", "left", "lost", "presence", "count")
_KINDS = (
    *(
        "event",
        "reply",
        "error",
        "item",
        "end",
        "grant",
        "cancel",
        "ping",
        "pong",
        "retry",
        "limits",
        "dropped",
    ),
    *_OF_ROOMS,
    "publish",
)
_FIELDS = (
    *("data", "id", "since", "timeout", "credit", "position"),
    *("recovered", "snapshot", "members", "diff", "room", "offset", "epoch"),
    *("after", "replaces", "key", "client", "limit", "before"),
)

Ids = dict[str, Any]
"""What the variables of a conversation stand for, ids and epochs: `{"$a": 1}`."""


def load(name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of one file."""
    return json.loads((FOLDER / name).read_text("utf-8"))


def joined(parts: str | list[Any]) -> str:
    """Return a message that may be written in parts."""
    if isinstance(parts, str):
        return parts
    return "".join(part if isinstance(part, str) else part["repeat"] * part["times"] for part in parts)


def message(vector: Mapping[str, Any], codec: str) -> str | bytes:
    """Return the message that a vector has for a codec."""
    written = joined(vector[codec])
    return written if codec == "json" else bytes.fromhex(written)


def plain(value: Any) -> Any:
    """Return what a value of a vector stands for."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("$bytes", digits)]:
            return bytes.fromhex(digits)
        case [("$time", text)]:
            return datetime.fromisoformat(text)
        case [("$int" | "$float" as kind, text)]:
            return int(text) if kind == "$int" else float(text)
        case [("$repeat", text), ("times", times)]:
            return text * times
    return {key: plain(item) for key, item in value.items()}


def means(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the map that says an envelope of `envelopes.json`, in the canonical order."""
    kind = envelope["kind"]
    about = {
        "event": "event",
        "publish": "event",
        "ping": "number",
        "pong": "number",
        "retry": "seconds",
    }.get(kind, "id")
    if kind in _OF_ROOMS:
        about = "room"
    return {kind: envelope[about]} | {
        name: plain(envelope[name]) for name in _FIELDS if name in envelope and name != about
    }


def encoded(envelope: Any, codec: str) -> str | bytes:
    """Return the message that says a map."""
    written = _MODULES[codec].encode(plain(envelope))
    return written.decode() if codec == "json" else written


def decoded(message: str | bytes, codec: str) -> Any:
    """Return what a message says; it must be of the kind that the codec has."""
    assert isinstance(message, str) is (codec == "json"), message
    return _MODULES[codec].decode(message)


def same(expected: Any, found: Any) -> bool:
    """Whether two values are equal, where one of them may have gone through JSON."""
    match expected, found:
        case bytes(), str():
            return base64.b64encode(expected).decode() == found
        case datetime(), str():
            return expected == datetime.fromisoformat(found)
        case list(), list():
            return len(expected) == len(found) and all(map(same, expected, found))
        case dict(), dict():
            return list(expected) == list(found) and all(same(expected[key], found[key]) for key in expected)
        case float(), float() if expected != expected:
            return found != found
        case (bool(), _) | (_, bool()):
            return expected is found
    return expected == found


def fits(expected: Mapping[str, Any], envelope: Mapping[str, Any], ids: Ids) -> bool:
    """Whether an envelope is what a conversation expects; binds the ids that are new in it if so."""
    if _kind(expected) != _kind(envelope) or ("id" in envelope) is not ("id" in expected):
        return False
    known = dict(ids)
    if not all(key in envelope and _field_fits(key, expected, envelope[key], known) for key in expected):
        return False
    ids.update(known)
    return True


def _kind(envelope: Mapping[str, Any]) -> str:
    return next(kind for kind in _KINDS if kind in envelope)


def _field_fits(key: str, envelope: Mapping[str, Any], found: Any, ids: Ids) -> bool:
    expected = envelope[key]
    if key in _IDS and isinstance(expected, str) and expected.startswith("$"):
        return ids.setdefault(expected, found) == found and type(found) is int
    if key in _TEXTS and expected.startswith("$"):
        return ids.setdefault(expected, found) == found and isinstance(found, str)
    if key in ("position", "replaces") and isinstance(expected, dict):
        epoch = ids.setdefault(expected["epoch"], found["epoch"])
        return found == {"epoch": epoch, "offset": expected["offset"]}
    match expected:
        case {"$at_least": _} | {"$at_most": _}:
            return _within(expected, found)
    if key in ("members", "diff") or (key == "data" and isinstance(expected, dict) and "version" in expected):
        return isinstance(found, dict) and _members_fit(expected, found, ids)
    if key == "data" and ("error" in envelope or "left" in envelope or envelope.get("event") == "error"):
        return _error_fits(expected, found)
    return same(plain(_with_epochs(expected, ids)), found)


def _with_epochs(value: Any, ids: Ids) -> Any:
    if isinstance(value, list):
        return [_with_epochs(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: ids.get(item, item) if key == "epoch" else _with_epochs(item, ids) for key, item in value.items()
    }


def _within(expected: Mapping[str, Any], found: Any) -> bool:
    if "$at_least" in expected:
        return found >= expected["$at_least"]
    return 0 < found <= expected["$at_most"]


def _members_fit(expected: Mapping[str, Any], found: Mapping[str, Any], ids: Ids) -> bool:
    for field, value in expected.items():
        came = found.get(field)
        if field == "epoch":
            if ids.setdefault(value, came) != came:
                return False
        elif isinstance(value, dict):
            if not _within(value, came):
                return False
        elif not same(plain(value), came):
            return False
    return True


def _error_fits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    if set(found) < {"code", "message", "retryable", "details"} or not isinstance(found["message"], str):
        return False
    listed = plain(expected)
    details = listed.pop("details", ())
    if not all(same(value, found[key]) for key, value in listed.items()):
        return False
    if not isinstance(details, dict):
        return details == () or same(details, found["details"])
    return isinstance(found["details"], dict) and all(
        key in found["details"] and same(value, found["details"][key]) for key, value in details.items()
    )


def named(ids: Ids, envelope: Any) -> Any:
    """Return an envelope with the ids that its variables stand for."""
    return {key: _meant(ids, key, value) for key, value in envelope.items()}


def _meant(ids: Ids, key: str, value: Any) -> Any:
    if key in _IDS and isinstance(value, str) and value.startswith("$"):
        return ids[value]
    if key in ("since", "before", "replaces") and isinstance(value, dict):
        return {**value, "epoch": ids.get(value["epoch"], value["epoch"])}
    return value


def texts(file: Mapping[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the entries of a file, each with a name to speak of it."""
    for group, entries in file.items():
        for number, entry in enumerate(entries):
            yield f"{group}: {entry.get('name', number)}", entry
