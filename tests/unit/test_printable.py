import pytest

from symphony.errors import DisconnectedError, Reject, RemoteError
from symphony.printable import escaped, printable
from symphony.websocket.close import Close

HOSTILE = [
    "a\nERROR all is lost",
    "\x1b[31mred",
    "\x9b31m\x85next",
    "\u202eevil\u202c",
    "\u2066x\u2069",
    "a\u2028b\u2029c",
    "\x00\x7f",
    "\ud800",
    "x" * 100_000,
    "\x1b" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_peer_cannot_write_lines_or_controls(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 200
    for message in (
        str(RemoteError(text, text)),
        str(RemoteError("x", text)),
        str(Close(4000, text, clean=True)),
        str(Reject("app.x", text)),
    ):
        assert message.isprintable()
    assert "\x1b" not in str(DisconnectedError(text))


@pytest.mark.within("printable.MAX_SHOWN")
@pytest.mark.beyond("printable.MAX_SHOWN")
def test_other_text_is_unchanged() -> None:
    assert printable("Grüße, 世界 🎵") == "Grüße, 世界 🎵"
    assert printable(None) == "None"
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"


def test_the_attributes_keep_what_was_sent() -> None:
    error = RemoteError("a\n", "b\x1b")
    assert (error.code, error.message) == ("a\n", "b\x1b")


def test_kept_characters_stay() -> None:
    assert escaped("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"
