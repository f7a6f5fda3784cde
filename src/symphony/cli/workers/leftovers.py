"""The socket files of a supervisor. Its workers remove them if it is killed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from symphony.transport.native.listen import identity

__all__ = ("Leftovers",)


class Leftovers(NamedTuple):
    """What a killed supervisor leaves behind. It can be pickled for another process.

    Attributes:
        uds: Path of the Unix socket that the server listens on.
        uds_identity: What tells this socket from one that another server has made since.
        broker: The URL of the broker in the supervisor.
    """

    uds: str | None = None
    uds_identity: tuple[int, ...] | None = None
    broker: str | None = None

    @classmethod
    def of(cls, uds: str | None, broker: str | None) -> Leftovers:
        """Return what the supervisor would leave behind now."""
        return cls(uds, None if uds is None else identity(uds), broker)

    def remove(self) -> None:
        """Remove it. Several workers may do so."""
        if self.uds is not None and self.uds_identity == identity(self.uds) is not None:
            with suppress(OSError):
                os.unlink(self.uds)
        parts = urlsplit(self.broker or "")
        if parts.scheme == "ipc" and not parts.netloc:
            # Its directory was made for it alone, and has a random name.
            path = Path(parts.path)
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                path.parent.rmdir()
