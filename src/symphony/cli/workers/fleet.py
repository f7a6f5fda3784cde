"""Decides what happens to the workers. Pure: processes and the clock are given to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from symphony.cli.workers.line import NOW, REPLACED, Stop

__all__ = ("Fleet", "Worker")

logger = logging.getLogger("symphony.workers")

# A worker that is silent for this long is stuck, and others accept its new connections.
_SILENCE_TIMEOUT: Final = 2.0
# After this its leases have run out, and its clients have gone.
_STUCK_TIMEOUT: Final = 30.0
# A worker that runs for this long after its start has not failed to start.
_STEADY_AFTER: Final = 10.0
_FIRST_DELAY: Final = 0.5
_MAX_DELAY: Final = 30.0
# On top of the time that a worker says its stop can take.
_STOP_TOLERANCE: Final = 2.0


class Worker(Protocol):
    """What this module needs of a process."""

    @property
    def slot(self) -> int:
        """The slot that it was started for."""
        ...

    @property
    def pid(self) -> int:
        """The number of the process."""
        ...

    def listen(self, slots: Iterable[int]) -> None:
        """Have it listen for exactly these slots."""
        ...

    def stop(self, how: Stop) -> None:
        """Tell it to stop in order."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


@dataclass(slots=True, eq=False)
class _Known:
    """A worker, and what is known about it."""

    worker: Worker
    started: float
    heard: float
    stop_time: float = 0.0
    ready_at: float | None = None
    killed: bool = False
    stuck: bool = False
    # When a worker that stops is killed.
    end: float | None = None


@dataclass(slots=True)
class _Slot:
    """A listening socket, and who accepts from it."""

    number: int
    serving: _Known | None = None
    coming: _Known | None = None
    start_at: float = 0.0
    failures: int = 0
    # Since when nothing has accepted, as far as is known.
    idle_since: float = 0.0
    lent_to: _Known | None = None


@dataclass(slots=True)
class Fleet:
    """All workers.

    Args:
        count: How many there are.
        spawn: Starts the worker of a slot.
        open: Called once, when all are ready: the sockets listen from now on.
        shared: Whether all slots are one socket, so that a stuck worker keeps no
            connection waiting.

    Attributes:
        opened: Whether all workers have been ready.
        stopping: Whether the whole server stops.
        failed: The exit code of a worker that could not start at first, or of another
            failure.
        unclean: Whether a worker did not stop in order.
    """

    count: int
    spawn: Callable[[int], Worker]
    open: Callable[[], None]
    shared: bool = False
    opened: bool = False
    stopping: bool = False
    failed: int | None = None
    unclean: bool = False
    _slots: list[_Slot] = field(default_factory=list["_Slot"])
    _known: dict[Worker, _Known] = field(default_factory=dict["Worker", "_Known"])
    _outdated: set[int] = field(default_factory=set[int])
    _replaced: _Known | None = None
    _reloading: bool = False

    def __post_init__(self) -> None:
        self._slots = [_Slot(number) for number in range(self.count)]

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All processes that have not ended."""
        return tuple(self._known)

    @property
    def serving(self) -> tuple[Worker, ...]:
        """The worker of each slot that has one, in their order."""
        return tuple(slot.serving.worker for slot in self._slots if slot.serving is not None)

    # What happens

    def start(self, now: float) -> None:
        """Start the first worker. The others follow when it is ready.

        A mistake in the app is then shown once, and not once for each worker.
        """
        self._start(self._slots[0], now)

    def ready(self, worker: Worker, now: float, stop_time: float) -> None:
        """Take note that the app of a worker has started."""
        known = self._known[worker]
        known.heard = known.ready_at = now
        known.stop_time = stop_time
        slot = self._slots[worker.slot]
        if self.stopping or slot.coming is not known:
            return
        old, slot.serving, slot.coming = slot.serving, known, None
        slot.lent_to = None
        if not self.opened:
            self._go_on_starting(now)
            return
        self._assign()
        if old is not None:
            self._stop(old, now, REPLACED)
            self._replaced = old

    def heard(self, worker: Worker, now: float) -> None:
        """Take note that the event loop of a worker runs."""
        self._known[worker].heard = now

    def leaves(self, worker: Worker, now: float) -> None:
        """Take note that a worker stops. If it was not told to here, another one replaces it."""
        known = self._known[worker]
        if known.end is not None:
            return
        known.end = now + known.stop_time + _STOP_TOLERANCE
        slot = self._slots[worker.slot]
        if slot.serving is known and not self.stopping:
            logger.warning("Worker %s was told to stop. A new one replaces it.", _name(worker))
            slot.serving, slot.start_at, slot.idle_since = None, now, now

    def ended(self, worker: Worker, now: float, code: int, how: str) -> None:
        """Take note that a process has ended.

        Args:
            worker: The worker.
            now: The time.
            code: Its exit code, below 0 for a signal.
            how: The same in words.
        """
        known = self._known.pop(worker)
        if known is self._replaced:
            self._replaced = None
        slot = self._slots[worker.slot]
        if self.stopping or known.end is not None:
            if code != 0 and known.ready_at is not None:
                self.unclean = self.unclean or self.stopping
                logger.error("Worker %s did not stop in order: it %s.", _name(worker), how)
            return
        if not self.opened:
            self.failed = code if code > 0 else 1
            if code <= 0:
                logger.error("Worker %s %s before it was ready.", _name(worker), how)
            self.stop(now)
            return
        delay = self._delay(slot, known, now)
        after = f"in {delay:g} s" if delay else "now"
        if slot.serving is known:
            slot.serving, slot.start_at = None, now + delay
            slot.idle_since = min(known.heard, now) if known.stuck else now
            logger.error("Worker %s %s. A new one starts %s.", _name(worker), how, after)
        elif slot.coming is known:
            slot.coming = None
            slot.start_at = now + delay
            if slot.serving is not None:
                self._outdated.clear()
                self._reloading = False
                logger.error("Worker %s %s before it was ready. The old workers stay.", _name(worker), how)
            else:
                logger.error(
                    "Worker %s %s before it was ready. A new one starts %s.", _name(worker), how, after
                )

    def reload(self) -> None:
        """Replace all workers, one after the other."""
        if self.opened and not self.stopping:
            self._outdated = set(range(self.count))
            self._reloading = True

    def stop(self, now: float, how: Stop = NOW) -> None:
        """Stop all workers in order. Idempotent."""
        if self.stopping:
            return
        self.stopping = True
        for known in self._known.values():
            if known.end is None:
                self._stop(known, now, how)

    def missed(self, seconds: float) -> None:
        """Take note that this process did not run for some time, so that it heard nothing."""
        for known in self._known.values():
            known.heard += seconds

    def tick(self, now: float) -> None:
        """Do what is due. To be called several times a second, after all messages were read."""
        for known in self._known.values():
            self._watch(known, now)
        if self.stopping:
            return
        if self.opened:
            for slot in self._slots:
                if slot.serving is None and slot.coming is None and slot.start_at <= now:
                    self._start(slot, now)
            self._replace_next(now)
            self._lend(now)
            self._assign()

    # Starting and stopping

    def _start(self, slot: _Slot, now: float) -> None:
        worker = self.spawn(slot.number)
        slot.coming = self._known[worker] = _Known(worker, started=now, heard=now)
        self._outdated.discard(slot.number)

    def _go_on_starting(self, now: float) -> None:
        for slot in self._slots:
            if slot.serving is None and slot.coming is None:
                self._start(slot, now)
        if all(slot.serving is not None for slot in self._slots):
            self.opened = True
            self.open()
            self._assign()

    def _stop(self, known: _Known, now: float, how: Stop) -> None:
        known.end = now + known.stop_time + _STOP_TOLERANCE
        known.worker.stop(how)

    def _replace_next(self, now: float) -> None:
        """Start the next replacement of a reload, if the one before has come to its end."""
        if self._replaced is not None or any(slot.coming is not None for slot in self._slots):
            return
        if self._outdated:
            self._start(self._slots[min(self._outdated)], now)
        elif self._reloading:
            self._reloading = False
            logger.warning("All workers have been replaced.")

    def _delay(self, slot: _Slot, known: _Known, now: float) -> float:
        """Return how long to wait for the next start, after a worker has ended by itself."""
        if known.ready_at is not None and now - known.ready_at >= _STEADY_AFTER:
            slot.failures = 0
        slot.failures += 1
        # One that was ready starts again at once, the first time.
        step = slot.failures - (known.ready_at is not None)
        return min(_FIRST_DELAY * 2 ** (step - 1), _MAX_DELAY) if step else 0.0

    # Workers that are stuck

    def _watch(self, known: _Known, now: float) -> None:
        if known.killed:
            return
        silent = now - known.heard
        if known.end is not None:
            if now > known.end:
                logger.error("Worker %s did not stop in time, and is killed.", _name(known.worker))
                self._kill(known)
        elif known.ready_at is not None:
            if silent > _STUCK_TIMEOUT:
                logger.error(
                    "Worker %s has been stuck for %.0f s, and is killed.", _name(known.worker), silent
                )
                self._kill(known)
            elif (silent > _SILENCE_TIMEOUT) != known.stuck:
                known.stuck = not known.stuck
                self._tell_stuck(known)

    def _tell_stuck(self, known: _Known) -> None:
        if known.stuck:
            logger.warning(
                "Worker %s does not respond: its event loop is blocked, or its process was stopped. "
                "Others accept its new connections.",
                _name(known.worker),
            )
        else:
            logger.warning("Worker %s responds again.", _name(known.worker))

    def _kill(self, known: _Known) -> None:
        known.killed = True
        known.worker.kill()

    # Who accepts what

    def _lend(self, now: float) -> None:
        """Give the slot of a worker that does not accept to another one."""
        if self.shared:
            return
        for slot in self._slots:
            if slot.serving is not None and not slot.serving.stuck:
                slot.lent_to = None
                continue
            waits = slot.serving is not None or now - slot.idle_since >= _SILENCE_TIMEOUT
            # A worker that is to start later only will not be there in time.
            waits = waits or slot.start_at > now
            if waits and (slot.lent_to is None or not self._accepts(slot.lent_to)):
                slot.lent_to = min(self._helpers(), key=self._load, default=None)

    def _accepts(self, known: _Known) -> bool:
        return any(slot.serving is known for slot in self._slots) and not known.stuck

    def _helpers(self) -> Iterator[_Known]:
        for slot in self._slots:
            if slot.serving is not None and not slot.serving.stuck:
                yield slot.serving

    def _load(self, known: _Known) -> int:
        return sum(slot.lent_to is known for slot in self._slots)

    def _assign(self) -> None:
        for slot in self._slots:
            known = slot.serving
            if known is not None:
                lent = (other.number for other in self._slots if other.lent_to is known)
                known.worker.listen((slot.number, *lent))


def _name(worker: Worker) -> str:
    return f"{worker.slot + 1} (process {worker.pid})"
