import logging

import pytest

from symphony import complaints
from symphony.complaints import Complaint, Complaints, place_of


def test_one_line_a_second_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(complaints, "monotonic", lambda: now[0])
    complaint = Complaint(logging.getLogger("symphony.test"), logging.WARNING, "Refused %s.")
    other = Complaint(logging.getLogger("symphony.test"), logging.WARNING, "Other %s.")
    for step in range(5):
        complaint.log(step)
    other.log("kind")
    now[0] += 1.0
    complaint.log("again")
    now[0] += 1.0
    complaint.log("at last")
    assert [record.getMessage() for record in caplog.records] == [
        "Refused 0.",
        "Other kind.",
        "Refused again. (4 more like this were not logged.)",
        "Refused at last.",
    ]


def test_nothing_is_counted_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("symphony.test.quiet")
    logger.setLevel(logging.ERROR)
    complaint = Complaint(logger, logging.INFO, "x %s")
    complaint.log(1)
    logger.setLevel(logging.INFO)
    complaint.log(2)
    assert [record.getMessage() for record in caplog.records] == ["x 2"]


@pytest.mark.within("complaints._MAX_KINDS")
@pytest.mark.beyond("complaints._MAX_KINDS")
def test_kinds_are_told_apart_and_their_number_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complaints, "monotonic", lambda: 100.0)
    monkeypatch.setattr(complaints, "_MAX_KINDS", 3)
    logger, lines = logging.getLogger("symphony.test"), Complaints()
    for _ in range(3):
        for status in (400, 404):
            lines.log(logger, logging.WARNING, "Refused with %d.", status, kind=status)
        lines.log(logger, logging.WARNING, "Dropped.")
    for status in range(500, 600):
        lines.log(logger, logging.WARNING, "Refused with %d.", status, kind=status)
    assert [record.getMessage() for record in caplog.records] == [
        "Refused with 400.",
        "Refused with 404.",
        "Dropped.",
        "Refused with 500.",
    ]


def test_an_exception_is_told_apart_by_its_class_and_line() -> None:
    def fail(value: int) -> None:
        if value < 0:
            raise ValueError(value)
        raise ValueError(str(value)) if value < 10 else KeyError(value)

    found = []
    for value in (-1, -2, 1, 2, 10):
        try:
            fail(value)
        except Exception as error:
            found.append(place_of(error))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found)) == 3
    assert place_of(ValueError()) == (ValueError, None)


def test_a_line_has_the_traceback_of_its_error(caplog: pytest.LogCaptureFixture) -> None:
    complaint = Complaint(logging.getLogger("symphony.test"), logging.ERROR, "It failed.")
    try:
        raise ValueError("why")
    except ValueError as error:
        complaint.log(error=error)
    assert "ValueError: why" in caplog.text


def test_some_kinds_may_be_logged_more_often(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(complaints, "monotonic", lambda: now[0])
    lines = Complaints()
    for step in range(5):
        now[0] = 100.0 + step / 10
        lines.log(logging.getLogger("symphony.test"), logging.ERROR, "Failed: %d.", step, most=3)
    now[0] = 101.0
    lines.log(logging.getLogger("symphony.test"), logging.ERROR, "Failed: %d.", 9, most=3)
    assert [record.getMessage() for record in caplog.records] == [
        "Failed: 0.",
        "Failed: 1.",
        "Failed: 2.",
        "Failed: 9. (2 more like this were not logged.)",
    ]
