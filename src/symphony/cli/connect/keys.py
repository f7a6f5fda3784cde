"""From the bytes that a terminal sends to keys. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ("Key", "Keys")


class Key(NamedTuple):
    """One key, or text that was typed or pasted.

    Attributes:
        name: `"text"`, or what the key is called: `"left"`, `"ctrl-a"`, `"alt-b"`.
        text: What to insert.
    """

    name: str
    text: str = ""


_PASTE: Final = "\x1b[200~"
_PASTE_END: Final = "\x1b[201~"
# ECMA-48 §5.4: parameters, intermediates, a final byte; SS3 has the final only.
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~]|[^\[O])", re.DOTALL)
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_BREAKS: Final = re.compile(r"[ \t]*[\r\n]+[ \t]*|\t")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_SEQUENCES: Final = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[7~": "home",
    "\x1b[8~": "end",
    "\x1b[3~": "delete",
    "\x1b[1;5C": "alt-f",
    "\x1b[1;5D": "alt-b",
    "\x1b[1;3C": "alt-f",
    "\x1b[1;3D": "alt-b",
    "\x1bb": "alt-b",
    "\x1bf": "alt-f",
    "\x1bd": "alt-d",
    "\x1b\x7f": "alt-backspace",
    "\x1b\x08": "alt-backspace",
}
_CONTROLS: Final = {
    "\x08": "backspace",
    "\x09": "tab",
    "\x0a": "enter",
    "\x0d": "enter",
    "\x7f": "backspace",
    **{chr(code): f"ctrl-{chr(code + 96)}" for code in (1, 2, 4, 5, 6, 11, 12, 14, 16, 20, 21, 23, 25)},
}


class Keys:
    """Reads keys out of what comes piece by piece."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._pasting = False

    def feed(self, data: bytes) -> Iterator[Key]:
        """Give the keys that are complete; what is not waits for the next piece."""
        text, self._rest = self._rest + self._decode(data), ""
        while text:
            if self._pasting:
                key, text = self._paste(text)
            elif text.startswith(_PASTE):
                self._pasting = True
                text = text[len(_PASTE) :]
                continue
            else:
                key, text = self._key(text)
            if key is None:
                self._rest = text
                return
            if key.name:
                yield key

    def _paste(self, text: str) -> tuple[Key | None, str]:
        pasted, end, rest = text.partition(_PASTE_END)
        if not end:
            return None, text
        self._pasting = False
        # One line, and nothing is sent before Enter.
        pasted = _BREAKS.sub(" ", pasted)
        return Key("text", _UNPRINTABLE.sub("", pasted)), rest

    def _key(self, text: str) -> tuple[Key | None, str]:
        """Split off the first key; one without a name means nothing here."""
        if text[0] == "\x1b":
            if _BEGUN.match(text):
                return None, text
            found = _SEQUENCE.match(text)
            sequence = found[0] if found else "\x1b"
            return Key(_SEQUENCES.get(sequence, "")), text[len(sequence) :]
        if _UNPRINTABLE.match(text):
            return Key(_CONTROLS.get(text[0], "")), text[1:]
        end = _UNPRINTABLE.search(text)
        typed = text[: end.start()] if end else text
        return Key("text", typed), text[len(typed) :]
