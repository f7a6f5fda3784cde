from typing import Any

import pytest

from symphony.errors import ConfigurationError
from symphony.node.mounts import Mounts


class App:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __repr__(self) -> str:
        return self.name


REST, METRICS, DAILY = App("rest"), App("metrics"), App("daily")


def mounts() -> Mounts:
    mounts = Mounts(REST)
    # The shorter first: the order of registration must not decide.
    mounts.add("/metrics", METRICS)
    mounts.add("/metrics/daily", DAILY)
    return mounts


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/metrics", ("/metrics", METRICS)),
        ("/metrics/", ("/metrics", METRICS)),
        ("/metrics/cpu", ("/metrics", METRICS)),
        ("/metrics/dailyx", ("/metrics", METRICS)),
        ("/metrics/daily", ("/metrics/daily", DAILY)),
        ("/metrics/daily/", ("/metrics/daily", DAILY)),
        ("/metrics/daily/cpu/0", ("/metrics/daily", DAILY)),
        ("/metricsx", ("", REST)),
        ("/metrics.html", ("", REST)),
        ("/METRICS", ("", REST)),
        ("/x/metrics", ("", REST)),
        ("//metrics", ("", REST)),
        ("/", ("", REST)),
        ("", ("", REST)),
    ],
)
def test_the_longest_mount_above_a_path_answers(path, found):
    assert mounts().find(path) == found


def test_below_no_mount_and_without_another_app_there_is_no_app():
    assert Mounts(None).find("/metrics") == ("", None)


def test_a_path_of_many_segments_costs_no_more_than_a_short_one():
    """Each segment of a path was looked up, so 60,000 slashes held the event loop for 0.7 s."""

    class Counted(str):
        slices = 0

        def __getitem__(self, key: Any) -> str:
            Counted.slices += 1
            return super().__getitem__(key)

    assert mounts().find(Counted("/metrics" + "/" * 60_000))[0] == "/metrics"
    assert mounts().find(Counted("/x" + "/" * 60_000))[0] == ""
    assert Counted.slices <= 4


@pytest.mark.parametrize(
    "path",
    ["", "/", "metrics", "/metrics/", "//metrics", "/a//b", "/{name}", "/a b", "/a?b", "/a#b", "/a\n", None],
)
def test_a_path_that_is_not_a_mount_is_refused(path):
    with pytest.raises(ConfigurationError, match=r"takes a path such as '/metrics'") as caught:
        Mounts(None).add(path, METRICS)
    assert repr(path) in str(caught.value)


def test_arguments_in_the_wrong_order_are_refused_with_the_right_one():
    with pytest.raises(ConfigurationError, match=r"takes a path such as '/metrics'.*not metrics"):
        Mounts(None).add(METRICS, "/metrics")  # type: ignore[arg-type]


def test_a_path_that_is_taken_is_refused_and_names_the_app_that_has_it():
    taken = mounts()
    with pytest.raises(ConfigurationError, match="mounted at '/metrics' already: metrics"):
        taken.add("/metrics", DAILY)
    assert taken.find("/metrics") == ("/metrics", METRICS)


def test_an_app_that_cannot_be_called_is_refused():
    with pytest.raises(ConfigurationError, match=r"app.mount\('/x'\) takes an ASGI app, not 'y'"):
        Mounts(None).add("/x", "y")


def test_each_app_is_given_once_and_named_by_where_it_was_first():
    several = mounts()
    several.add("/again", METRICS)
    several.add("/rest", REST)
    assert list(several) == [
        ("http app", REST),
        ("app mounted at '/metrics'", METRICS),
        ("app mounted at '/metrics/daily'", DAILY),
    ]


def test_apps_that_are_equal_are_still_two_apps():
    class Equal(App):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    one, two = Equal("one"), Equal("two")
    both = Mounts(None)
    both.add("/one", one)
    both.add("/two", two)
    assert [app.name for _, app in both] == ["one", "two"]
