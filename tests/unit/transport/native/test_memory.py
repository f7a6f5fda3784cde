"""How often a server's process looks for garbage."""

import gc

import pytest

from symphony.transport.native.memory import collect_less_often


@pytest.fixture(autouse=True)
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_what_python_begins_with_is_raised():
    gc.set_threshold(700, 10, 10)
    collect_less_often()
    assert gc.get_threshold() == (10_000, 2, 10)


@pytest.mark.parametrize("own", [(0, 10, 10), (700, 10, 5), (50_000, 10, 10)])
def test_what_an_app_has_set_stays(own: tuple[int, int, int]):
    gc.set_threshold(*own)
    collect_less_often()
    assert gc.get_threshold() == own
