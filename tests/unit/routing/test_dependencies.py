# Annotations are not postponed here, so that the tests can use local functions in them.

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from symphony.errors import Reject
from symphony.routing.markers import Depends, Query, Scope
from unit.routing.stages import (
    Close,
    Handshake,
    Room,
    Socket,
    error_of,
    on_connect,
    on_disconnect,
    on_empty,
    on_join,
    on_message,
)


class Log(list[str]):
    """What happened, in order; makes dependencies that write to it."""

    def generator(self, name: str) -> Callable[[], AsyncIterator[str]]:
        async def open_and_close() -> AsyncIterator[str]:
            self.append(f"open {name}")
            try:
                yield name
            except BaseException as error:
                self.append(f"{name} saw {type(error).__name__}")
                raise
            finally:
                self.append(f"close {name}")

        return open_and_close


@pytest.fixture
def log() -> Log:
    return Log()


# What a dependency may be


def plain() -> str:
    return "plain"


async def coroutine() -> str:
    return "coroutine"


def generator() -> Iterator[str]:
    yield "generator"


async def async_generator() -> AsyncIterator[str]:
    yield "async generator"


class Callables:
    def method(self) -> str:
        return "method"

    async def __call__(self) -> str:
        return "object"


def named(*, name: str) -> Iterator[str]:
    yield name


@pytest.mark.parametrize(
    ("dependency", "value"),
    [
        (plain, "plain"),
        (coroutine, "coroutine"),
        (generator, "generator"),
        (async_generator, "async generator"),
        (Callables().method, "method"),
        (Callables(), "object"),
        (functools.partial(named, name="partial"), "partial"),
        (lambda: coroutine(), "coroutine"),
    ],
)
async def test_a_dependency_is_any_callable(dependency: Any, value: str) -> None:
    async def handler(message: str, given: Annotated[str, Depends(dependency)]) -> Any:
        return message, given

    plan = on_message(handler)
    assert plan.is_async
    assert await plan.call(Socket(), "hi") == ("hi", value)


async def test_a_class_is_a_dependency_whose_fields_are_filled() -> None:
    @dataclass
    class Paging:
        page: int = 1
        size: int = 10

    async def handler(message: str, paging: Annotated[Paging, Depends(Paging)]) -> Any:
        return paging

    assert await on_message(handler).call(Socket("page=3"), "hi") == Paging(3, 10)


async def test_a_callable_that_cannot_be_hashed_is_a_dependency() -> None:
    @dataclass
    class Factory:
        name: str

        def __call__(self) -> str:
            return self.name

    async def handler(message: str, given: Annotated[str, Depends(Factory("a"))]) -> Any:
        return given

    assert await on_message(handler).call(Socket(), "hi") == "a"


async def test_plain_handlers_have_dependencies_too() -> None:
    def handler(message: str, *, given: Annotated[str, Depends(coroutine)]) -> Any:
        return given

    plan = on_message(handler)
    assert plan.is_async
    assert await plan.call(Socket(), "hi") == "coroutine"


async def test_a_plain_handler_that_hands_on_a_coroutine_has_its_dependencies_open_in_it(log: Log) -> None:
    async def later() -> str:
        log.append("work")
        return "done"

    def handler(message: str, db: Annotated[str, Depends(log.generator("db"))]) -> Any:
        return later()

    assert await on_message(handler).call(Socket(), "hi") == "done"
    assert log == ["open db", "work", "close db"]


def test_a_decorated_generator_is_an_error() -> None:
    opened = asynccontextmanager(async_generator)

    async def handler(message: str, db: Annotated[str, Depends(opened)]) -> None: ...

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler, parameter 'db': dependency async_generator: a "
        "decorator hides "
        "that it is a generator. Depends opens and closes generators itself. Remove @asynccontextmanager "
        "or @contextmanager."
    )


# Their parameters


async def test_the_parameters_of_dependencies_follow_the_rules_of_handlers() -> None:
    def dependency(
        socket: Socket[Any],
        opening: Handshake,
        room: str,
        aliased: Annotated[int, Query(alias="n")],
        page: int = 1,
        *,
        nested: Annotated[str, Depends(plain)],
    ) -> Any:
        return opening is socket.handshake, room, aliased, page, nested

    async def handler(message: str, given: Annotated[Any, Depends(dependency)]) -> Any:
        return given

    plan = on_message(handler, path_names={"room": "str"})
    assert await plan.call(Socket("n=5&page=2", room="lobby"), "hi") == (True, "lobby", 5, 2, "plain")


async def test_a_query_parameter_of_a_dependency_refuses_like_a_handlers() -> None:
    def dependency(page: int) -> int:
        return page

    async def handler(page: Annotated[int, Depends(dependency)]) -> None: ...

    with pytest.raises(Reject, match="query parameter 'page' is missing"):
        await on_connect(handler).call(Socket(), None)


def test_an_error_in_a_dependency_names_the_way_to_it() -> None:
    def inner(thing: dict[str, str]) -> None: ...

    def outer(got: Annotated[None, Depends(inner)]) -> None: ...

    async def handler(socket: Socket[Any], given: Annotated[None, Depends(outer)]) -> None: ...

    assert error_of(on_connect, handler).startswith(
        "on_connect of route '/': handler handler, parameter 'given': dependency outer, parameter 'got': "
        "dependency inner, parameter 'thing': dict[str, str] is not supported in a query string;"
    )


async def test_dependencies_of_a_room_hook_may_use_the_room_and_its_name() -> None:
    def dependency(room: Room, name: str) -> Any:
        return room, name

    async def handler(given: Annotated[Any, Depends(dependency)]) -> Any:
        return given

    room = Room(name="a")
    assert await on_empty(handler).call(None, room) == (room, "a")


def test_a_stage_without_a_socket_has_no_query_and_no_socket_scope_for_dependencies() -> None:
    def paging(page: int) -> int:
        return page

    async def query(room: Room, page: Annotated[int, Depends(paging)]) -> None: ...

    async def scoped(room: Room, db: Annotated[str, Depends(plain, scope="socket")]) -> None: ...

    why = "on_empty has no socket; the last one has left."
    assert error_of(on_empty, query).endswith(f"dependency paging, parameter 'page': {why}")
    assert error_of(on_empty, scoped).endswith(f"handler scoped, parameter 'db': {why}")


# One value a call


async def test_one_dependency_has_one_value_a_call(log: Log) -> None:
    session = log.generator("session")

    def users(db: Annotated[str, Depends(session)]) -> str:
        return f"users of {db}"

    def rooms(db: Annotated[str, Depends(session)]) -> str:
        return f"rooms of {db}"

    async def handler(
        message: str,
        a: Annotated[str, Depends(users)],
        b: Annotated[str, Depends(rooms)],
        c: Annotated[str, Depends(session)],
    ) -> Any:
        return a, b, c

    plan = on_message(handler)
    for _ in range(2):
        assert await plan.call(Socket(), "hi") == ("users of session", "rooms of session", "session")
        assert log == ["open session", "close session"]
        log.clear()


async def test_dependencies_close_after_the_handler_in_reverse_order(log: Log) -> None:
    async def handler(
        message: str,
        a: Annotated[str, Depends(log.generator("a"))],
        b: Annotated[str, Depends(log.generator("b"))],
    ) -> None:
        log.append("handler")

    await on_message(handler).call(Socket(), "hi")
    assert log == ["open a", "open b", "handler", "close b", "close a"]


async def test_a_plain_generator_sees_the_error_of_the_handler(log: Log) -> None:
    def session() -> Iterator[str]:
        try:
            yield "session"
        except ValueError as error:
            log.append(f"rolled back for {error}")
            raise

    async def handler(message: str, db: Annotated[str, Depends(session)]) -> None:
        raise ValueError(message)

    with pytest.raises(ValueError, match="hi"):
        await on_message(handler).call(Socket(), "hi")
    assert log == ["rolled back for hi"]


async def test_every_dependency_sees_the_error_even_if_one_swallows_it(log: Log) -> None:
    async def swallowing() -> AsyncIterator[str]:
        try:
            yield "value"
        except ValueError:
            log.append("swallowed")

    def swallowing_too() -> Iterator[str]:
        try:
            yield "value"
        except ValueError:
            log.append("swallowed too")

    async def handler(
        message: str,
        a: Annotated[str, Depends(log.generator("a"))],
        b: Annotated[str, Depends(swallowing)],
        c: Annotated[str, Depends(swallowing_too)],
    ) -> None:
        raise ValueError(message)

    with pytest.raises(ValueError, match="hi"):
        await on_message(handler).call(Socket(), "hi")
    assert log == ["open a", "swallowed too", "swallowed", "a saw ValueError", "close a"]


async def test_a_dependency_may_turn_an_error_into_another(log: Log) -> None:
    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            raise Reject("conflict") from None

    async def handler(
        message: str,
        a: Annotated[str, Depends(log.generator("a"))],
        b: Annotated[None, Depends(translating)],
    ) -> None:
        raise ValueError(message)

    with pytest.raises(Reject, match="conflict"):
        await on_message(handler).call(Socket(), "hi")
    assert log == ["open a", "a saw Reject", "close a"]


async def test_what_was_opened_is_closed_when_a_later_dependency_fails(log: Log) -> None:
    async def failing() -> None:
        raise ValueError("no connection")

    async def handler(
        message: str,
        a: Annotated[str, Depends(log.generator("a"))],
        b: Annotated[None, Depends(failing)],
    ) -> None:
        log.append("handler")

    with pytest.raises(ValueError, match="no connection"):
        await on_message(handler).call(Socket(), "hi")
    assert log == ["open a", "a saw ValueError", "close a"]


async def test_dependencies_close_when_the_handler_is_cancelled(log: Log) -> None:
    started = asyncio.Event()

    async def handler(message: str, a: Annotated[str, Depends(log.generator("a"))]) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(on_message(handler).call(Socket(), "hi"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["open a", "a saw CancelledError", "close a"]


# Streams


async def test_the_dependencies_of_a_stream_close_at_its_end(log: Log) -> None:
    async def handler(message: str, a: Annotated[str, Depends(log.generator("a"))]) -> AsyncIterator[str]:
        for letter in message:
            yield letter

    plan = on_message(handler)
    assert (plan.is_async, plan.is_generator) == (False, True)
    async for letter in plan.call(Socket(), "hi"):
        log.append(letter)
    assert log == ["open a", "h", "i", "close a"]


async def test_the_dependencies_of_a_stream_close_when_it_is_stopped_and_after_the_handler(log: Log) -> None:
    async def handler(message: str, a: Annotated[str, Depends(log.generator("a"))]) -> AsyncIterator[str]:
        try:
            for letter in message:
                yield letter
        finally:
            log.append("end of handler")

    async with aclosing(on_message(handler).call(Socket(), "hi")) as stream:
        assert await anext(stream) == "h"
    assert log == ["open a", "end of handler", "a saw GeneratorExit", "close a"]


async def test_the_dependencies_of_a_stream_see_its_error(log: Log) -> None:
    async def handler(message: str, a: Annotated[str, Depends(log.generator("a"))]) -> AsyncIterator[str]:
        yield message
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async for _ in on_message(handler).call(Socket(), "hi"):
            pass
    assert log == ["open a", "a saw ValueError", "close a"]


# One value a socket


async def test_a_socket_scoped_dependency_has_one_value_a_socket_over_all_handlers(log: Log) -> None:
    session = log.generator("session")

    async def entering(socket: Socket[Any], db: Annotated[str, Depends(session, scope="socket")]) -> None:
        log.append("connect")

    async def saying(message: str, db: Annotated[str, Depends(session, scope="socket")]) -> None:
        log.append(message)

    async def leaving(close: Close, db: Annotated[str, Depends(session, scope="socket")]) -> None:
        log.append("disconnect")

    socket = Socket[None]()
    await on_connect(entering).call(socket, None)
    await on_message(saying).call(socket, "hi")
    await on_disconnect(leaving).call(socket, Close())
    assert log == ["open session", "connect", "hi", "disconnect"]
    await socket._scope.aclose()
    assert log[-1] == "close session"

    await on_message(saying).call(Socket(), "hi")
    assert log[-2:] == ["open session", "hi"]


async def test_one_function_has_a_value_in_each_scope(log: Log) -> None:
    session = log.generator("session")

    async def handler(
        message: str,
        long: Annotated[str, Depends(session, scope="socket")],
        short: Annotated[str, Depends(session)],
    ) -> None:
        log.append("handler")

    await on_message(handler).call(Socket(), "hi")
    assert log == ["open session", "open session", "handler", "close session"]


async def test_socket_scoped_dependencies_nest_and_close_in_reverse_order_with_the_reason(log: Log) -> None:
    pool = log.generator("pool")

    async def session(pool: Annotated[str, Depends(pool, scope="socket")]) -> AsyncIterator[str]:
        log.append(f"open session on {pool}")
        yield "session"
        log.append("not reached when the socket ended by an error")

    async def handler(message: str, db: Annotated[str, Depends(session, scope="socket")]) -> None:
        pass

    socket = Socket[None]()
    await on_message(handler).call(socket, "hi")
    await socket._scope.aclose(ConnectionError("lost"))
    await socket._scope.aclose()
    assert log == ["open pool", "open session on pool", "pool saw ConnectionError", "close pool"]


async def test_a_call_scoped_dependency_may_use_a_socket_scoped_one(log: Log) -> None:
    pool = log.generator("pool")

    def session(pool: Annotated[str, Depends(pool, scope="socket")]) -> str:
        return f"session of {pool}"

    async def handler(message: str, db: Annotated[str, Depends(session)]) -> Any:
        return db

    assert await on_message(handler).call(Socket(), "hi") == "session of pool"
    assert log == ["open pool"]


def test_a_socket_scoped_dependency_cannot_use_a_call_scoped_one() -> None:
    def session() -> None: ...

    def cache(db: Annotated[None, Depends(session)]) -> None: ...

    async def handler(message: str, cache: Annotated[None, Depends(cache, scope="socket")]) -> None: ...

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler, parameter 'cache': dependency cache, parameter 'db': "
        "a dependency "
        "with scope='socket' outlives one with scope='call', and cannot use session. Give both the same "
        "scope."
    )


def test_a_socket_scoped_dependency_cannot_use_what_belongs_to_one_call() -> None:
    def by_room(room: Room) -> None: ...

    def by_name(name: str) -> None: ...

    for dependency, parameter in ((by_room, "room"), (by_name, "name")):

        async def handler(given: Annotated[None, Depends(dependency, scope="socket")]) -> None: ...

        assert error_of(on_join, handler).endswith(
            f"parameter {parameter!r}: a dependency with scope='socket' outlives this call, and cannot "
            "use its values. Give it scope='call'."
        )


class Gate:
    """A dependency that waits until it is let through, and counts how often it was tried."""

    def __init__(self) -> None:
        self.tries = 0
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.tries += 1
        self.entered.set()
        await self.open.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.tries


def through(gate: Gate) -> Any:
    async def handler(message: str, value: Annotated[int, Depends(gate, scope="socket")]) -> int:
        return value

    return on_message(handler).call


async def test_calls_at_the_same_time_share_one_creation() -> None:
    gate, socket = Gate(), Socket[None]()
    calls = [asyncio.create_task(through(gate)(socket, "hi")) for _ in range(3)]
    await gate.entered.wait()
    gate.open.set()
    assert await asyncio.gather(*calls) == [1, 1, 1]


async def test_a_creation_that_fails_is_tried_again_by_who_waited() -> None:
    gate, socket = Gate(), Socket[None]()
    gate.error = ValueError("no connection")
    first, second = (asyncio.create_task(through(gate)(socket, "hi")) for _ in range(2))
    await gate.entered.wait()
    gate.open.set()
    with pytest.raises(ValueError, match="no connection"):
        await first
    assert await second == 2


async def test_a_creation_that_is_cancelled_is_tried_again_by_who_waited() -> None:
    gate, socket = Gate(), Socket[None]()
    first, second = (asyncio.create_task(through(gate)(socket, "hi")) for _ in range(2))
    await gate.entered.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open.set()
    assert await second == 2


async def test_a_closed_scope_creates_nothing_more() -> None:
    socket = Socket[None]()
    await socket._scope.aclose()
    with pytest.raises(RuntimeError, match="The socket has disconnected, and its dependencies are closed"):
        await through(Gate())(socket, "hi")


async def test_closing_goes_on_when_one_dependency_fails_to_close(log: Log) -> None:
    async def failing() -> AsyncIterator[None]:
        yield
        raise ValueError("cannot close")

    async def handler(
        message: str,
        a: Annotated[str, Depends(log.generator("a"), scope="socket")],
        b: Annotated[None, Depends(failing, scope="socket")],
    ) -> None: ...

    socket = Socket[None]()
    await on_message(handler).call(socket, "hi")
    with pytest.raises(ValueError, match="cannot close"):
        await socket._scope.aclose()
    assert log == ["open a", "a saw ValueError", "close a"]


# Overrides and circles


@pytest.mark.parametrize("scope", ["call", "socket"])
async def test_an_override_is_called_instead_and_has_parameters_of_its_own(scope: Scope) -> None:
    async def fake(page: int) -> str:
        return f"fake {page}"

    def users(db: Annotated[str, Depends(plain, scope=scope)]) -> str:
        return f"users of {db}"

    async def handler(message: str, users: Annotated[str, Depends(users, scope=scope)]) -> Any:
        return users

    plan = on_message(handler, overrides={plain: fake})
    assert await plan.call(Socket("page=3"), "hi") == "users of fake 3"


async def test_an_override_is_taken_when_the_plan_is_compiled() -> None:
    async def handler(message: str, db: Annotated[str, Depends(plain)]) -> Any:
        return db

    overrides: dict[Any, Any] = {}
    plan = on_message(handler, overrides=overrides)
    overrides[plain] = coroutine
    assert await plan.call(Socket(), "hi") == "plain"


def test_dependencies_in_a_circle_are_an_error_that_names_it() -> None:
    def first(db: Any) -> None: ...

    def second(db: Annotated[None, Depends(first)]) -> None: ...

    first.__annotations__["db"] = Annotated[None, Depends(second)]

    def entry(db: Annotated[None, Depends(first)]) -> None: ...

    async def handler(message: str, db: Annotated[None, Depends(entry)]) -> None: ...

    assert error_of(on_message, handler).endswith(
        ": these dependencies form a cycle: first -> second -> first."
    )
