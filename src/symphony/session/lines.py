"""What the log says about each socket: that it was opened, refused or closed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from symphony.transport.base import shown_address

if TYPE_CHECKING:
    from symphony.complaints import Complaints
    from symphony.socket import Socket

__all__ = ("log_line",)

logger = logging.getLogger("symphony.socket")

_LINE = "%s %s on %s from %s%s"


def log_line(
    complaints: Complaints, socket: Socket[Any], what: str, why: object = "", when: str = ""
) -> None:
    """Log what has happened to a socket.

    Args:
        complaints: Limits the lines that strangers can cause.
        socket: The socket.
        what: What has happened: opened, refused or closed.
        why: Why.
        when: After which time, as a part of the line.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    values = socket.id, what, socket.route, shown_address(socket.client), f"{when}: {why}" if why else when
    if what == "refused":
        complaints.log(logger, logging.INFO, _LINE, *values, kind=socket.route)
    else:
        logger.info(_LINE, *values)
