"""What close codes mean, and a client's errors on a command line."""

import re
import ssl

import pytest

from support.pages import ROOT, rows
from symphony.cli.connect.words import MEANINGS, ended, explained, for_command_line, lost, sentence
from symphony.client import connect
from symphony.client.address import parse_url
from symphony.client.refusals import tls


def test_the_meanings_are_those_of_the_protocol() -> None:
    table = rows(ROOT / "docs" / "protocol.md", "## Closing")
    said = {
        int(code): cells[-1] == "reconnects"
        for first, cells in table.items()
        for code in re.findall(r"\d{4}", first)
    }
    assert {code: meaning.retry for code, meaning in MEANINGS.items()} == said


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1000, "", "Closed by the server (1000: the normal end)."),
        (4403, "members only", 'Closed by the server (4403: forbidden, "members only"). This is final.'),
        (4000, "", "Closed by the server (4000: a code of the app's own). This is final."),
        (
            1012,
            "the server restarts",
            "Closed by the server (1012: the server restarts). Connecting again may work.",
        ),
    ],
)
def test_an_end_says_what_it_means_and_whether_it_is_final(code: int, reason: str, said: str) -> None:
    assert ended(code, reason) == said


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        ("the connection to ws://x/ was lost (1006)", f"Lost ({explained(1006, '')})."),
        (
            "the connection to ws://x/ was lost (1013: slow: you)",
            'Lost (1013: too slow in reading, "slow: you").',
        ),
        (
            "ws://x/ could not be reached: nothing listens at x:80. Is it there?",
            "Nothing listens at x:80. Is it there?",
        ),
        ("ws://x/ refused the connection: HTTP 503", "Refused: HTTP 503."),
        ("something new", "something new."),
    ],
)
def test_what_the_client_logs_is_shown_in_fewer_words(logged: str, shown: str) -> None:
    assert lost(logged) == shown


def test_a_url_at_the_begin_of_a_sentence_stays_one() -> None:
    assert sentence("Ws://x/ refused the connection") == "ws://x/ refused the connection."


def test_hints_for_python_become_hints_for_the_command_line() -> None:
    """They are found by their text: when the client changes one, this fails."""
    problem = ssl.SSLCertVerificationError()
    problem.verify_message = "self-signed certificate"
    said = for_command_line(tls(problem, parse_url("wss://example.com")).message)
    assert said.endswith("self-signed certificate. --insecure accepts any certificate.")
    with pytest.raises(ValueError, match="user") as caught:
        connect("ws://user:secret@example.com")
    assert "use --token or --header." in for_command_line(str(caught.value))
    with pytest.raises(ValueError, match="above 0") as caught:
        connect("ws://example.com", connect_timeout=0)
    assert "--timeout must be above 0" in for_command_line(str(caught.value))
