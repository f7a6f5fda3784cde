"""Frames that wait, against a plain list of them."""

from hypothesis import given
from hypothesis import strategies as st

from symphony.websocket.backlog import Backlog

frames = st.tuples(st.integers(0, 255), st.one_of(st.binary(max_size=20), st.binary(max_size=70_000)))


@given(st.lists(st.one_of(frames, st.none()), max_size=60))
def test_frames_come_out_as_they_went_in(script: list[tuple[int, bytes] | None]) -> None:
    backlog, model = Backlog(), list[tuple[int, bytes]]()
    for step in script:
        if step is not None:
            backlog.add(*step)
            model.append(step)
        elif model:
            assert backlog.take() == model.pop(0)
        assert bool(backlog) == bool(model)
        assert len(backlog) == sum(6 + len(payload) for _, payload in model)
    assert [backlog.take() for _ in model] == model
    assert not backlog


def test_tiny_frames_take_no_more_bytes_than_on_the_wire() -> None:
    backlog = Backlog()
    for payload in (b"", b"x", b"xy"):
        before = len(backlog)
        backlog.add(0x89, payload)
        assert len(backlog) - before == 2 + 4 + len(payload)
    backlog.clear()
    assert len(backlog) == 0
