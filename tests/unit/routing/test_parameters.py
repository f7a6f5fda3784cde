from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import fastapi.params
import msgspec
import pytest
from typing_extensions import TypeAliasType

from symphony.errors import ConfigurationError
from symphony.routing.markers import Depends, Query
from symphony.routing.parameters import EMPTY, qualified_name, read_parameters, underlying

if TYPE_CHECKING:
    from decimal import Decimal


class Session:
    pass


def session() -> Session:
    return Session()


DB = Annotated[Session, Depends(session)]
Aliased = TypeAliasType("Aliased", DB)


def names_of(call: Any) -> list[str]:
    return [parameter.name for parameter in read_parameters(call, where="here")]


def error_of(call: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_parameters(call, where="here")
    return str(caught.value)


def test_parameters_are_read_in_order_with_their_marks() -> None:
    def handler(socket, message: str, /, page: Annotated[int, Query()] = 1, *, db: DB) -> None: ...

    socket, message, page, db = read_parameters(handler, where="here")
    assert (socket.annotation, socket.default, socket.is_first) == (EMPTY, EMPTY, True)
    assert (message.annotation, message.is_first, message.keyword_only) == (str, False, False)
    assert (page.query, page.default) == (Query(), 1)
    assert (db.depends, db.keyword_only) == (Depends(session), True)


def test_marks_are_found_through_aliases_and_nested_annotations() -> None:
    def handler(a: Aliased, b: Annotated[DB, "documentation"]) -> None: ...

    assert [each.depends for each in read_parameters(handler, where="here")] == [Depends(session)] * 2


class Handlers:
    def method(self, message: Session) -> None: ...

    @staticmethod
    def static(message: Session) -> None: ...

    def __call__(self, message: Session) -> None: ...


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorated
def plain(message: Session) -> None: ...


class Made:
    def __init__(self, message: Session) -> None: ...


@dataclass
class Dataclass:
    message: Session


class Struct(msgspec.Struct):
    message: Session


@pytest.mark.parametrize(
    "call",
    [
        Handlers().method,
        Handlers.static,
        Handlers(),
        plain,
        functools.partial(plain),
        functools.partial(Handlers().method),
        Made,
        Dataclass,
        Struct,
    ],
)
def test_every_kind_of_callable_resolves_its_string_annotations(call: Any) -> None:
    (parameter,) = read_parameters(call, where="here")
    assert (parameter.name, parameter.annotation) == ("message", Session)


def test_what_a_partial_has_bound_is_left_out() -> None:
    def handler(socket: Any, db: Session, message: str) -> None: ...

    assert names_of(functools.partial(handler, db=Session())) == ["socket", "message"]
    assert names_of(functools.partial(handler, "a socket")) == ["db", "message"]


def test_a_local_class_that_the_body_uses_is_found() -> None:
    class Local:
        pass

    def handler(message: Local) -> Local:
        return Local()

    assert read_parameters(handler, where="here")[0].annotation is Local


def test_what_a_handler_returns_need_not_resolve() -> None:
    def handler(message: str) -> Decimal: ...  # type: ignore[empty-body]

    assert names_of(handler) == ["message"]


def test_a_name_for_type_checkers_only_is_an_error() -> None:
    def handler(message: str, price: Decimal) -> None: ...

    assert error_of(handler) == (
        "here, parameter 'price': its annotation 'Decimal' cannot be resolved, because the name "
        "'Decimal' in it is "
        "not known at run time. Define it at the module's top level, and import it outside `if "
        "TYPE_CHECKING:`."
    )


def test_a_local_class_that_only_the_annotation_names_is_an_error() -> None:
    class Local:
        pass

    def handler(message: list[Local]) -> None: ...

    assert "the name 'Local' in it is not known at run time" in error_of(handler)


def test_an_annotation_that_is_no_type_is_an_error() -> None:
    def handler(message: Session.missing) -> None: ...  # type: ignore[name-defined]

    assert error_of(handler).startswith(
        "here, parameter 'message': its annotation 'Session.missing' cannot be resolved (type object "
        "'Session'"
    )


def test_star_parameters_are_an_error() -> None:
    def many(*messages: str) -> None: ...

    def named(**options: str) -> None: ...

    assert error_of(many) == "here: *messages cannot be filled; name each parameter."
    assert error_of(named) == "here: **options cannot be filled; name each parameter."


def test_a_callable_without_a_signature_is_an_error() -> None:
    assert error_of(iter) == "here: its signature cannot be read."


def test_a_mark_as_default_value_is_an_error_that_suggests_annotated() -> None:
    def with_depends(db: Any = Depends(session)) -> None: ...  # noqa: B008

    def with_query(page: Any = Query()) -> None: ...  # noqa: B008

    assert error_of(with_depends) == (
        "here, parameter 'db': Depends() is not a default value here. "
        "Write `db: Annotated[<type>, Depends(session)]`."
    )
    assert error_of(with_query) == (
        "here, parameter 'page': Query() is not a default value here. Write `page: Annotated[<type>, "
        "Query()]`."
    )


def test_a_mark_without_parentheses_is_an_error() -> None:
    def handler(page: Annotated[int, Query]) -> None: ...

    assert error_of(handler) == "here, parameter 'page': write Query() with parentheses."


def test_two_marks_are_an_error() -> None:
    def handler(page: Annotated[int, Query(), Depends(session)]) -> None: ...

    assert error_of(handler) == "here, parameter 'page': it has 2 of Depends() and Query(). Use only one."


def test_the_marks_of_fastapi_are_an_error_that_says_what_to_import() -> None:
    def annotated(db: Annotated[Session, fastapi.Depends(session)]) -> None: ...

    def default(db: Session = fastapi.Depends(session)) -> None: ...  # noqa: B008

    def secured(db: Annotated[Session, fastapi.Security(session)]) -> None: ...

    def query(page: Annotated[int, fastapi.Query()]) -> None: ...

    def header(token: Annotated[str, fastapi.Header()]) -> None: ...

    hint = "is FastAPI's and has no effect here. Use Symphony's: `from symphony import Depends`."
    assert error_of(annotated) == f"here, parameter 'db': Depends {hint}"
    assert error_of(default) == f"here, parameter 'db': Depends {hint}"
    assert error_of(secured) == f"here, parameter 'db': Security {hint}"
    assert error_of(query).endswith(
        "Query is FastAPI's and has no effect here. Use Symphony's: `from symphony import Query`."
    )
    assert error_of(header).endswith(
        "Header is FastAPI's and has no effect here. Symphony has Depends and Query."
    )


def test_callables_are_named_so_that_their_author_finds_them() -> None:
    module = __name__
    assert qualified_name(plain) == f"{module}.plain"
    assert qualified_name(Handlers().method) == f"{module}.Handlers.method"
    assert qualified_name(Handlers()) == f"{module}.Handlers"
    assert qualified_name(functools.partial(functools.partial(plain), 1)) == f"{module}.plain"


def test_the_underlying_function_of_a_callable() -> None:
    handlers = Handlers()
    assert underlying(plain) is plain
    assert underlying(functools.partial(plain, 1)) is plain
    assert underlying(handlers) is Handlers.__call__
    assert underlying(handlers.method) == handlers.method
    assert underlying(Made) is Made
    assert underlying(len) is len
