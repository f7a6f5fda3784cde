"""The line between the supervisor and one worker: a socket pair with a JSON object on each line.

A worker says `{"beat": true}` twice a second, `{"ready": stop_time}` when its app
has started, and `{"stopping": true}` when something other than the supervisor has
told it to stop. The supervisor says `{"listen": [slots]}`, which replaces what it
said before, and `{"stop": how}`. The end of the line means that the other process
has gone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

__all__ = ("NOTICED", "NOW", "REPLACED", "Line", "Stop")

Stop: TypeAlias = Literal["now", "noticed", "replaced"]
"""How a worker stops: because the server does, at once or after proxies have noticed it; or because
another worker is there in its place."""
NOW: Final = "now"
NOTICED: Final = "noticed"
REPLACED: Final = "replaced"

_READ_BYTES: Final = 4096
_BEAT: Final = b'{"beat": true}\n'


class Line:
    """One end of a line.

    Args:
        end: A connected stream socket.

    Attributes:
        ended: Whether the other process has gone.
    """

    def __init__(self, end: socket.socket) -> None:
        self.ended = False
        self._end = end
        self._unread = b""
        self._unsent = b""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._end.fileno()

    def beat(self) -> None:
        """Say that the event loop runs, unless the other process does not read."""
        if self._unsent:
            self.flush()
        else:
            self._unsent = _BEAT
            self.flush()
            if len(self._unsent) == len(_BEAT):
                # Nothing of it was taken, and the next one says the same.
                self._unsent = b""

    def say(self, **message: Any) -> None:
        """Send a message without waiting: what the line does not take yet is kept for `flush`."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what is left."""
        flags = getattr(socket, "MSG_DONTWAIT", 0)
        try:
            while self._unsent:
                self._unsent = self._unsent[self._end.send(self._unsent, flags) :]
        except BlockingIOError:
            pass
        except OSError:
            # Reading finds that out.
            self._unsent = b""

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of one read, which waits if the socket is a blocking one."""
        try:
            data = self._end.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def close(self) -> None:
        """Close this end."""
        self._end.close()
