"""Decisions of a presence store whose hooks have to run: kept until they are acknowledged."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from symphony.broker.attendance import HEAD_START, TAKEN, Decision

__all__ = ("MAX_DECISIONS", "Decisions")

MAX_DECISIONS: Final = 100_000
"""The most decisions of all rooms together."""


class _Pending:
    """A decision whose hook is not acknowledged."""

    __slots__ = ("at", "by", "decision", "node", "until")

    def __init__(self, decision: Decision, node: str, at: float, by: str | None) -> None:
        self.decision = decision
        self.node = node
        self.at = at
        self.by = by
        self.until = at + TAKEN if by is not None else 0.0


class Decisions:
    """The decisions of all rooms, the oldest first.

    Attributes:
        dropped: How many were dropped, because no node has acknowledged them and there
            were too many. Their hooks have not run.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def add(self, decision: Decision, node: str, now: float, by: str | None) -> str | None:
        """Keep a decision.

        Args:
            decision: The decision.
            node: The node where the member was last; empty: that has ended.
            now: The time.
            by: The node that runs the hook, if it knows of the decision already.

        Returns:
            The name of a decision that was dropped for it.
        """
        self._pending[decision.id] = _Pending(decision, node, now, by)
        if len(self._pending) <= MAX_DECISIONS:
            return None
        dropped, _ = self._pending.popitem(last=False)
        self.dropped += 1
        return dropped

    def take(self, node: str, now: float, most: int) -> list[Decision]:
        """Hand decisions that no other node has to *node*."""
        taken: list[Decision] = []
        for pending in self._pending.values():
            is_free = pending.by is None or pending.until <= now
            if is_free and (pending.node in (node, "") or now >= pending.at + HEAD_START):
                pending.by, pending.until = node, now + TAKEN
                taken.append(pending.decision)
                if len(taken) == most:
                    break
        return taken

    def forget(self, ids: Iterable[str]) -> list[str]:
        """Forget decisions whose hooks have run; return those that were known."""
        return [id for id in ids if self._pending.pop(id, None) is not None]

    def node_ended(self, node: str) -> None:
        """Hand the decisions of a node that has ended to the others, from now on."""
        for pending in self._pending.values():
            if pending.by == node:
                pending.by = None
            if pending.node == node:
                pending.node = ""
