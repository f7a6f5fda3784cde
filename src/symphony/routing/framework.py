"""Types of the framework: injected, and never read from what a client sends; those of other frameworks."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

from symphony.errors import ConfigurationError, Reject
from symphony.identity import Identity
from symphony.limits import Limits
from symphony.protocol.annotations import bare, is_union, types_in
from symphony.protocol.envelopes import Event

__all__ = ("fill_user", "refuse_http", "refuse_in_payload")

_NEVER_DATA = (Identity, Event, Limits)
_HTTP = ("starlette.requests", "starlette.websockets")


def fill_user(annotation: Any, default: Any, missing: Any) -> Any:
    """Return the filler of a parameter for the user, or `None` if it is not annotated as one.

    Args:
        annotation: `Identity`, or `Identity | None`.
        default: The value if no user is logged in.
        missing: The value of *default* that means that there is no default.
    """
    plain = bare(annotation)
    if plain is Identity:
        return _required_user if default is missing else _user_or(default)
    if is_union(plain) and {bare(option) for option in get_args(plain)} == {Identity, type(None)}:
        return _user_or(None if default is missing else default)
    return None


def _required_user(socket: Any, subject: Any) -> Identity:
    user = socket.user
    if user is None:
        raise Reject("unauthorized", "log in first")
    return user


def _user_or(default: Any) -> Any:
    def user(socket: Any, subject: Any) -> Any:
        return default if socket.user is None else socket.user

    return user


def refuse_http(annotation: Any, where: str) -> None:
    """Refuse a parameter that asks for the request or the WebSocket of Starlette or FastAPI.

    Args:
        annotation: The annotation of the parameter.
        where: The parameter, for the error.

    Raises:
        ConfigurationError: It does.
    """
    for kind in types_in(annotation):
        if isinstance(kind, type) and kind.__module__ in _HTTP:
            raise ConfigurationError(
                f"{where}: {kind.__name__} is a type of Starlette and FastAPI, which Symphony does not "
                "provide. Annotate it with Socket for the connection, or with Handshake for its opening "
                "request."
            )


def refuse_in_payload(annotation: Any, known: tuple[type, ...], where: str) -> None:
    """Refuse a payload that is, or contains, a type of the framework.

    Otherwise, a client could claim to be any user.

    Args:
        annotation: The annotation of the payload.
        known: The types that this stage fills or refuses.
        where: The parameter, for the error.

    Raises:
        ConfigurationError: It does.
    """
    found = _find(annotation, (*known, *_NEVER_DATA), set())
    if found is None:
        return
    name = found.__name__
    if found is bare(annotation):
        problem = f"{name} is not data that a client sends, and nothing else fills it here"
    else:
        problem = f"its type contains {name}, which is not data that a client sends"
    remedy = (
        "Take `user: Identity` or `user: Identity | None` as a separate parameter"
        if issubclass(found, Identity)
        else "Define a type with the fields that the client sends"
    )
    raise ConfigurationError(f"{where}: {problem}. {remedy}.")


def _find(annotation: Any, kinds: tuple[type, ...], seen: set[Any]) -> type | None:
    for part in types_in(annotation):
        kind = get_origin(part) or part
        if not isinstance(kind, type) or kind in seen or kind is object:
            continue
        seen.add(kind)
        if issubclass(kind, kinds):
            return kind
        try:
            fields = get_type_hints(kind, include_extras=True) if kind.__module__ != "builtins" else {}
        except Exception:  # the reader reports annotations that do not resolve
            continue
        for field in fields.values():
            found = _find(field, kinds, seen)
            if found is not None:
                return found
    return None
