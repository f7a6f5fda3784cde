"""Routers: routes and rooms that belong together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from symphony.broker.base import History
from symphony.errors import ConfigurationError
from symphony.limits import Limits
from symphony.protocol.envelopes import Protocol
from symphony.rooms.places import check_room
from symphony.rooms.policy import RoomPolicy, Rooms
from symphony.routing.handlers import Handlers
from symphony.routing.patterns import PathPattern, join_paths
from symphony.routing.route import Options, Route

__all__ = ("Router",)


class Router(Handlers):
    """A group of routes that can be included in the app.

    The handlers and middleware of a router apply to all of its routes.

    Args:
        prefix: Added before the paths of its routes, for example `"/api"`.
    """

    # Whether no prefix can be added to the paths of its routes.
    _is_root = False

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        join_paths(prefix, "/")
        self.prefix = prefix
        self._parts: list[Route | tuple[str, Router]] = []
        self._families: dict[str, Rooms] = {}

    def route(
        self,
        path: str,
        *,
        state: Callable[[], Any] | None = None,
        subprotocols: Sequence[str] | None = None,
        origins: Sequence[str] | None = None,
        limits: Limits | None = None,
        compression: int | None = None,
        slow_consumer: Literal["disconnect", "drop_oldest", "conflate", "resync"] | None = None,
        protocol: Callable[[], Protocol] | None = None,
        concurrency: int | None = None,
        events: bool = False,
        errors: Literal["close", "message"] | None = None,
        everyone: bool | None = None,
        per_user: Literal[1] | None = None,
        on_conflict: Literal["replace", "refuse"] | None = None,
        room: str | None = None,
    ) -> Route:
        """Add a route.

        Args:
            path: `/chat`, `/chat/{room}`, `/users/{id:int}`, `/files/{path:path}`.
            state: A class without arguments; each socket gets one as its `state`.
            subprotocols: The supported subprotocols, in order of preference.
            origins: Pages of other origins that may connect:
                `"https://example.com"`, `"https://*.example.com"` or `"*"`.
            limits: Limits that replace all limits of the app.
            compression: Compress messages of at least this many bytes, if the
                client supports it (RFC 7692). `None` uses the app's setting.
            slow_consumer: What happens if a client's outbox is full:
                `"disconnect"` closes the socket with 1013,
                `"drop_oldest"` drops the oldest messages and counts them,
                `"resync"` drops all of them and calls the `on_resync` handler,
                and `"conflate"` closes it like `"disconnect"`, but lets messages
                wait for any time, since those with `conflate=` stay up to date.
            protocol: The protocol for the events of this route: a class or
                function that creates a `Protocol`, called without arguments
                for each connection. With `None`, a route with event handlers
                uses `symphony.v1` in JSON and MessagePack.
            concurrency: How many messages of one socket are handled at once,
                each in a separate task and in any order. With `None` or 1,
                they are handled one at a time. Streams never wait for each
                other.
            events: Whether the route speaks events even without an event
                handler, as a route needs that only sends events.
            errors: What happens on a raw route if a message is refused, or its
                handler fails: `"message"` sends the error as JSON text, and
                `"close"` closes the socket with 1008 (refused), 1013 (refused,
                but can be tried again) or 1011 (failed), unless the `Reject`
                has a close code. With `None`, a route whose handler takes
                `bytes` closes.
            everyone: Whether `app.everyone` reaches the sockets of this route.
                With `None`, all but those of a route whose handler takes
                `bytes`.
            per_user: 1: a user may have one socket on this route, so a user must be
                logged in. `None`: any number.
            on_conflict: What happens if the user has a socket already. `"replace"`, or
                `None`: the other one is closed with the code `replaced`, and does not
                come back. `"refuse"`: this one is refused with `conflict`.
            room: The room that its sockets join when they connect, such as
                `"chat:{room}"`, with parameters of the path. If the join is refused, so
                is the connection. When the membership ends, the connection ends too.

        Returns:
            The route. Register handlers on it, or use it as the decorator of
            its connect handler.

        Raises:
            ConfigurationError: The path is not a valid pattern, or *room* has other
                parameters than the path.
        """
        options = Options(
            state=state,
            subprotocols=subprotocols,
            origins=origins,
            limits=limits,
            compression=compression,
            slow_consumer=slow_consumer,
            protocol=protocol,
            concurrency=concurrency,
            events=events or None,
            errors=errors,
            everyone=everyone,
            per_user=per_user,
            on_conflict=on_conflict,
            room=room,
        )
        if room is not None and self._is_root:
            # Other routers may have prefixes with parameters, and are checked at the start.
            check_room(room, PathPattern(path).converters, f"route {path!r}")
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        route = Route(path, options, f"{caller.f_code.co_filename}:{caller.f_lineno}")
        self._parts.append(route)
        return route

    def rooms(
        self,
        pattern: str,
        *,
        max_members: int | None = None,
        linger: float = 0.0,
        state: Callable[..., Any] | None = None,
        history: History | int | None = None,
        client_join: bool = False,
        members: Callable[..., Any] | None = None,
        counts: Callable[..., Any] | None = None,
        grace: float = 0.0,
        presence: bool = False,
        each_node: bool = False,
        slow_consumer: Literal["disconnect", "drop_oldest", "conflate", "resync"] | None = None,
    ) -> Rooms:
        """Give all rooms whose names match a pattern one policy.

        A room's name belongs to the whole app, so the prefix of a router does
        not apply to it.

        Args:
            pattern: Such as `"chat:{name}"`; `:` separates the segments.
            max_members: The most members in one room: users, or sockets without a
                user. Another one is refused with `room_full`. `None`: no limit.
            linger: How many seconds an empty room keeps its state. 0: it is
                dropped at once.
            state: Creates `room.state` before the first join returns, once for each
                room: a class, or a plain or async function. It takes parameters of
                the pattern, the `Room`, and dependencies. If it raises, this join is
                refused, and the next join tries again. `None`: no state.
            history: How many publications a room keeps for members that come back,
                or a `History`. `None`: none, and delivery is at most once.
            client_join: Whether clients may join on their own. If the family has an
                `authorize` hook, they may ask in any case, and it decides.
            members: Creates `member.state`, once for each member: a class or a
                function. Its parameters are those of *state*, and `Socket` and
                `Identity`. `None`: no state.
            counts: A function that tells whether the member of a socket counts in
                *max_members*. It is asked at each join. A member that has counted once
                counts until it departs. `None`: each member does.
            grace: How many seconds a user stays a member after the last connection was
                lost, for example while a page is reloaded. Sockets without a user have
                no grace period.
            presence: Whether clients are told who is in the room.
            each_node: Whether each node has its own state of a room and of its members,
                if several serve the app. Otherwise a room with state is on one node, and
                joins on others are refused with `elsewhere`.
            slow_consumer: What happens if the outbox of a member is full, or too old, because
                of publications of these rooms that are not kept. `"disconnect"` closes the
                socket with 1013. `"drop_oldest"` drops the oldest unwritten publications of
                the room. `"conflate"` disconnects, too, but no publication is too old.
                `"resync"` drops all unwritten publications of the room, and calls the
                `on_resync` handler of the route. In each case the client is told how many
                were dropped. `None`: what the route says. Members get what is kept from the
                history.

        Returns:
            The family, to register hooks on.

        Raises:
            ConfigurationError: The pattern or an option is wrong, or the
                pattern has rooms already.
        """
        policy = RoomPolicy(
            pattern,
            max_members=max_members,
            linger=linger,
            state=state,
            history=History(history) if isinstance(history, int) else history,
            client_join=client_join,
            members=members,
            counts=counts,
            grace=grace,
            presence=presence,
            each_node=each_node,
            slow_consumer=slow_consumer,
        )
        if not pattern:
            raise ConfigurationError(f"{self}.rooms() takes a pattern such as 'chat:{{name}}'.")
        if pattern in self._families:
            raise ConfigurationError(
                f"There are rooms {pattern!r} already. Register further hooks on the object that the "
                "first rooms() returned."
            )
        rooms = self._families[pattern] = Rooms(policy)
        return rooms

    def _all_families(self) -> Iterator[Rooms]:
        """Give the families of this router and of all routers below it, each once."""
        # A router may be included several times, under different prefixes.
        for router in dict.fromkeys((self, *self._all_routers())):
            yield from router._families.values()

    def include(self, router: Router, *, prefix: str = "") -> None:
        """Add all routes of *router*, including routes that it gets later.

        Args:
            router: Another router.
            prefix: Added before the router's own prefix.

        Raises:
            ConfigurationError: The prefix is not valid, or the router would
                include itself.
        """
        join_paths(prefix, "/")
        if router is self or any(inner is self for inner in router._all_routers()):
            raise ConfigurationError(f"{router!r} cannot be included into itself.")
        self._parts.append((prefix, router))

    def _all_routers(self) -> Iterator[Router]:
        """Yield all routers that this router includes, directly or indirectly."""
        for part in self._parts:
            if not isinstance(part, Route):
                yield part[1]
                yield from part[1]._all_routers()

    def _groups(self) -> Iterator[Handlers]:
        """Yield all routers and routes of this router, directly or indirectly; each once."""
        yield from dict.fromkeys(layer for _, _, inside in self._all_routes() for layer in inside[1:])

    def _all_routes(self, prefix: str = "") -> Iterator[tuple[str, Route, tuple[Handlers, ...]]]:
        """Yield each route with its full path and the objects around it, outermost first."""
        prefix = join_paths(prefix, self.prefix)
        for part in self._parts:
            if isinstance(part, Route):
                yield join_paths(prefix, part.path), part, (self, part)
            else:
                outer, router = part
                for path, route, inside in router._all_routes(join_paths(prefix, outer)):
                    yield path, route, (self, *inside)

    def __repr__(self) -> str:
        return f"router {self.prefix!r}" if self.prefix else "router"
