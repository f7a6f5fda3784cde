"""Frames that were read and must wait, in about as many bytes as on the wire."""

from __future__ import annotations

from typing import Final

__all__ = ("Backlog",)

_LENGTH_BYTES: Final = 5
_HEAD_BYTES: Final = 1 + _LENGTH_BYTES


class Backlog:
    """A queue of frames, oldest first. Payloads stay as they came, undecoded and compressed.

    One buffer holds all frames: as separate objects, 64 KiB of empty frames
    would take 1 MiB.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, first: int, payload: bytes) -> None:
        """Add a frame.

        Args:
            first: The first byte of the frame: FIN, RSV and opcode.
            payload: The payload, without mask.
        """
        buffer = self._buffer
        buffer.append(first)
        buffer += len(payload).to_bytes(_LENGTH_BYTES, "big")
        buffer += payload

    def take(self) -> tuple[int, bytes]:
        """Remove the oldest frame, and return its first byte and its payload."""
        buffer = self._buffer
        end = _HEAD_BYTES + int.from_bytes(buffer[1:_HEAD_BYTES], "big")
        with memoryview(buffer) as view:
            first, payload = buffer[0], bytes(view[_HEAD_BYTES:end])
        # Removing from the front of a bytearray does not move the rest.
        del buffer[:end]
        return first, payload

    def clear(self) -> None:
        """Remove all frames."""
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Return the bytes that the frames take."""
        return len(self._buffer)
