from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from symphony.errors import ConfigurationError
from symphony.routing.markers import Depends, Query


def session() -> str:
    return "a session"


def test_a_dependency_lives_for_one_call_unless_it_says_otherwise() -> None:
    assert Depends(session).scope == "call"
    assert Depends(session, scope="socket").scope == "socket"


def test_marks_are_values() -> None:
    assert Depends(session) == Depends(session, scope="call")
    assert Query(alias="q") == Query(alias="q")
    mark: Any = Depends(session)
    with pytest.raises(FrozenInstanceError):
        mark.scope = "socket"


def test_depends_refuses_the_result_of_a_call() -> None:
    called: Any = session()
    with pytest.raises(ConfigurationError) as caught:
        Depends(called)
    assert str(caught.value) == (
        "Depends takes a function, not 'a session'. Write Depends(f), without calling f yourself."
    )


def test_depends_refuses_an_unknown_scope() -> None:
    scope: Any = "request"
    with pytest.raises(ConfigurationError, match=r"Depends\(scope=\) is 'call' or 'socket', not 'request'\."):
        Depends(session, scope=scope)
