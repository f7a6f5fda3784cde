from __future__ import annotations

import sys
from typing import Annotated, Any, NewType, Optional, Union

import pydantic
import pytest
from typing_extensions import TypeAliasType

from symphony.protocol.annotations import bare, is_pydantic, is_union, metadata, unalias

Age = NewType("Age", int)
Marked = TypeAliasType("Marked", Annotated[Age, "mark"])


def test_an_alias_stands_for_its_value() -> None:
    assert unalias(Marked) == Annotated[Age, "mark"]
    assert unalias(int) is int


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
def test_a_type_statement_stands_for_its_value() -> None:
    names: dict[str, Any] = {}
    exec("type Alias = int", names)
    assert unalias(names["Alias"]) is int


@pytest.mark.parametrize("annotation", [Marked, Annotated[Age, "mark"], Age, int])
def test_bare_is_the_type_under_all_names_and_marks(annotation: Any) -> None:
    assert bare(annotation) is int


def test_metadata_is_found_at_any_depth() -> None:
    assert metadata(dict[str, Annotated[list[Marked], "outer"]]) == ["outer", "mark"]
    assert metadata(int) == []


@pytest.mark.parametrize("annotation", [int | None, Optional[int], Union[int, str]])  # noqa: UP007, UP045
def test_a_union_is_one_in_every_spelling(annotation: Any) -> None:
    assert is_union(annotation)


def test_only_pydantic_is_pydantic() -> None:
    class Model(pydantic.BaseModel):
        pass

    assert is_pydantic(Model)
    assert is_pydantic(pydantic.Field(gt=0))
    assert not is_pydantic(int)
    assert not is_pydantic("mark")
