"""The command line of `symphony connect`."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from symphony.cli.main import cli


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("ftp://example.com",), "Error: 'ftp://example.com' is not the URL of a server"),
        (("http://",), "Error: 'http://' is not the URL of a server"),
        (("/chat",), "Error: 'ws:///chat' is not the URL of a server"),
        (
            ("user:secret@example.com",),
            "Error: A user and a password in the URL are not sent: use --token or",
        ),
        (("x", "--header", "nothing"), "Error: --header takes NAME:VALUE"),
        (("x", "-H", "Upgrade: x"), "Error: The header 'Upgrade' is set by the handshake itself."),
        (("x", "--answer", "name=Ada"), "Error: --answer name=: 'Ada' is not JSON."),
        (("x", "--timeout", "0"), "Error: --timeout must be above 0"),
        (("x", "--subprotocol", "a b"), "Error: 'a b' cannot be a subprotocol"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    result = CliRunner().invoke(cli, ["connect", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(complaint)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("x", "--protocol", "xml"), ("x", "--wait", "-1"), ("x", "y")])
def test_what_there_is_not_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, ["connect", *arguments]).exit_code == 2


def test_prompt_toolkit_is_imported_for_a_terminal_only() -> None:
    """`symphony run` and scripts do not wait for it."""
    code = "import sys, symphony.cli.main; sys.exit('prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
