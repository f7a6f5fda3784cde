import logging

import pytest

from symphony import complaints
from symphony.complaints import Complaint


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


@pytest.mark.parametrize("burst", [1, 2, 10])
def test_so_many_lines_are_written_in_a_second(
    burst: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(complaints, "monotonic", lambda: now[0])
    complaint = Complaint(logging.getLogger("symphony.test"), logging.WARNING, "%s.", burst=burst)
    for _ in range(3):
        for step in range(15):
            complaint.log(step)
        now[0] += 1.0
    left_out = f" ({15 - burst} more like this were not logged.)"
    first = [f"{step}." for step in range(burst)]
    assert [record.getMessage() for record in caplog.records] == [
        *first,
        *(first[0] + left_out, *first[1:]) * 2,
    ]
