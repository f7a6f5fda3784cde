"""A small world for the tests of plans: sockets, rooms, and the stages they are met in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import pytest
from starlette.datastructures import QueryParams

from symphony.errors import ConfigurationError
from symphony.routing.plan import MESSAGE, Plan, compile_plan
from symphony.routing.socketscope import SocketScope
from symphony.routing.stage import Known, the_socket, the_subject
from symphony.socketsession import HomeContext

S = TypeVar("S")


class Handshake:
    def __init__(self, query: str) -> None:
        self.query_params = QueryParams(query)


class Socket(Generic[S]):
    def __init__(self, query: str = "", **params: Any) -> None:
        self.handshake = Handshake(query)
        self.params = params
        self._scope = SocketScope(asyncio.Event, HomeContext(copy_context()))


class Room:
    def __init__(self, **params: Any) -> None:
        self.params = params


class Close:
    pass


CONNECT = Known(
    types={Socket: the_socket, Handshake: lambda socket, subject: socket.handshake},
    refused={Close: "a Close is there in disconnect handlers only."},
)
DISCONNECT = Known(types={Socket: the_socket, Close: the_subject})
ROOM = Known(types={Socket: the_socket, Room: the_subject})
EMPTY_ROOM = Known(
    types={Room: the_subject}, refused={Socket: "on_empty has no socket; the last one has left."}
)


def on_connect(handler: Callable[..., Any], **options: Any) -> Plan:
    options = {"known": CONNECT, "query": True, "overrides": {}, **options}
    return compile_plan(handler, where="on_connect of route '/'", **options)


def on_message(handler: Callable[..., Any], **options: Any) -> Plan:
    options = {"known": CONNECT, "payload": MESSAGE, "overrides": {}, **options}
    return compile_plan(handler, where="on_message of route '/'", **options)


def on_disconnect(handler: Callable[..., Any], **options: Any) -> Plan:
    return compile_plan(
        handler, where="on_disconnect of route '/'", known=DISCONNECT, overrides={}, **options
    )


def on_join(handler: Callable[..., Any], **options: Any) -> Plan:
    options = {"pattern_names": {"name": "str"}, "overrides": {}, **options}
    return compile_plan(handler, where="on_join of rooms 'chat:{name}'", known=ROOM, **options)


def on_empty(handler: Callable[..., Any], **options: Any) -> Plan:
    options = {"pattern_names": {"name": "str"}, "overrides": {}, **options}
    return compile_plan(handler, where="on_empty of rooms 'chat:{name}'", known=EMPTY_ROOM, **options)


def error_of(stage: Callable[..., Plan], handler: Callable[..., Any], **options: Any) -> str:
    """Return the error of compiling a handler, with its tests' own names and places cut away."""
    with pytest.raises(ConfigurationError) as caught:
        stage(handler, **options)
    text = re.sub(r" \(\S+:\d+\)(?=[,:])", "", str(caught.value), count=1)
    outer = handler.__qualname__.rpartition(".")[0]
    return text.replace(f"{handler.__module__}.{outer}.", "").replace(f"{handler.__module__}.", "")
