"""The meaning of close codes."""

import re

import pytest

from support.pages import ROOT, rows
from symphony.cli.connect.close_codes import MEANINGS, describe_end


def test_the_meanings_are_those_of_the_protocol() -> None:
    table = rows(ROOT / "docs" / "protocol.md", "## Closing")
    said = {
        int(code): cells[-1] in ("reconnects", "reconnects at once")
        for first, cells in table.items()
        for code in re.findall(r"\d{4}", first)
    }
    assert {code: meaning.retry for code, meaning in MEANINGS.items()} == said


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1000, "", "Closed by the server (1000: normal)."),
        (
            4403,
            "members only",
            'Closed by the server (4403: forbidden, "members only"). Connecting again will not help.',
        ),
        (4000, "", "Closed by the server (4000: a code of the application). Connecting again will not help."),
        (
            1012,
            "the server restarts",
            "Closed by the server (1012: the server restarts). Connecting again may work.",
        ),
    ],
)
def test_an_end_says_what_it_means_and_whether_it_is_final(code: int, reason: str, said: str) -> None:
    assert describe_end(code, reason) == said
