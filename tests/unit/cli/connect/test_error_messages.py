"""The client's messages, rewritten for the command line."""

import ssl

import pytest

from symphony.cli.connect.close_codes import describe
from symphony.cli.connect.error_messages import connection_problem, for_command_line, sentence
from symphony.client import connect
from symphony.client.address import parse_url
from symphony.client.refusals import tls


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        ("the connection to ws://x/ was lost (1006)", f"Connection lost ({describe(1006, '')})."),
        (
            "the connection to ws://x/ was lost (1013: slow: you)",
            'Connection lost (1013: the client reads too slowly, "slow: you").',
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
    assert connection_problem(logged) == shown


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
