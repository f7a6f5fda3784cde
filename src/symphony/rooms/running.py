"""Runs the hooks of a room of which each has to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony.rooms.family import Hook

__all__ = ("run_all",)


async def run_all(
    hooks: Iterable[Hook],
    socket: Any,
    subject: Any,
    where: str,
    report: Callable[[BaseException, Any, str], None],
) -> None:
    """Run each hook, even if an earlier one raises.

    Args:
        hooks: The hooks.
        socket: The socket that they are called for, or `None`.
        subject: What they are called for: the room, or a leave of it.
        where: The name of the hooks, for the report.
        report: Called with each error but the first.

    Raises:
        BaseException: What the first of them raised; the rest is reported.
    """
    raised: BaseException | None = None
    for hook in hooks:
        try:
            await hook(socket, subject)
        except BaseException as error:
            if raised is not None and isinstance(raised, Exception) and not isinstance(error, Exception):
                # A cancellation must reach the code that cancelled.
                raised, error = error, raised
            if raised is None:
                raised = error
            else:
                report(error, socket, where)
    if raised is not None:
        raise raised
