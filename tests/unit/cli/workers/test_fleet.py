"""What a supervisor decides about its workers, with a clock and processes that the test moves."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from symphony.cli.workers.fleet import Fleet
from symphony.cli.workers.line import NOTICED, Stop

numbers = itertools.count(1)


class Process:
    """A worker that does only what the test says."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.pid = next(numbers)
        self.listens: tuple[int, ...] = ()
        self.told: list[str] = []

    def listen(self, slots: Iterable[int]) -> None:
        self.listens = tuple(slots)

    def stop(self, how: Stop) -> None:
        self.told.append(how)

    def kill(self) -> None:
        self.told.append("kill")


class World:
    """A fleet, its processes in the order in which they were started, and the time."""

    def __init__(self, count: int, *, shared: bool = False) -> None:
        self.now = 100.0
        self.started: list[Process] = []
        self.opened = 0
        self.fleet = Fleet(count, self._spawn, self._open, shared=shared)
        self.fleet.start(self.now)

    def _spawn(self, slot: int) -> Process:
        self.started.append(Process(slot))
        return self.started[-1]

    def _open(self) -> None:
        self.opened += 1

    def ready(self, *processes: Process) -> None:
        for process in processes:
            self.fleet.ready(process, self.now, stop_time=20.0)
        self.fleet.tick(self.now)

    def end(self, process: Process, code: int = -9) -> None:
        self.fleet.ended(process, self.now, code, "has ended")
        self.fleet.tick(self.now)

    def pass_by(self, seconds: float, *silent: Process) -> None:
        """Let time pass, in which all processes say that they run, except for some."""
        steps = round(seconds / 0.1)
        for _ in range(steps):
            self.now += 0.1
            for worker in self.fleet.workers:
                if worker not in silent:
                    self.fleet.heard(worker, self.now)
            self.fleet.tick(self.now)

    @classmethod
    def running(cls, count: int, **options: Any) -> "World":
        world = cls(count, **options)
        world.ready(world.started[0])
        world.ready(*world.started[1:])
        return world


# Start


def test_the_first_worker_starts_alone_and_the_sockets_open_when_all_are_ready() -> None:
    world = World(3)
    assert [process.slot for process in world.started] == [0]
    world.ready(world.started[0])
    assert [process.slot for process in world.started] == [0, 1, 2]
    world.ready(world.started[2])
    assert world.opened == 0
    assert {process.listens for process in world.started} == {()}
    world.ready(world.started[1])
    assert world.opened == 1
    assert [process.listens for process in world.started] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("code", "reported"), [(1, 1), (2, 2), (0, 1), (-9, 1)])
def test_a_worker_that_cannot_start_at_first_stops_all(code: int, reported: int) -> None:
    world = World(3)
    world.ready(world.started[0])
    world.end(world.started[1], code)
    assert world.fleet.failed == reported
    assert world.started[0].told == world.started[2].told == ["now"]
    world.end(world.started[0], 0)
    world.end(world.started[2], 143)
    assert world.fleet.workers == ()
    assert len(world.started) == 3
    assert not world.fleet.unclean


# Restart


def test_a_worker_that_ends_is_started_again_at_once() -> None:
    world = World.running(2)
    world.end(world.started[0])
    assert [process.slot for process in world.started] == [0, 1, 0]
    world.ready(world.started[2])
    assert world.started[2].listens == (0,)


@pytest.mark.within("cli.workers.fleet._MAX_DELAY")
@pytest.mark.beyond("cli.workers.fleet._MAX_DELAY")
def test_starts_that_fail_have_ever_longer_delays() -> None:
    world = World.running(2)
    world.end(world.started[0])
    delays: list[float] = []
    for _ in range(9):
        count, since = len(world.started), world.now
        world.end(world.started[-1], 1)
        while len(world.started) == count:
            world.pass_by(0.1)
        delays.append(round(world.now - since, 1))
    assert delays == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 30], abs=0.11)
    # One that has run for a while starts at once again.
    world.ready(world.started[-1])
    world.pass_by(11)
    count = len(world.started)
    world.end(world.started[-1])
    assert len(world.started) == count + 1


def test_a_worker_that_was_told_to_stop_by_another_is_replaced_before_it_ends() -> None:
    world = World.running(2)
    world.fleet.leaves(world.started[1], world.now)
    world.pass_by(0.1)
    assert [process.slot for process in world.started] == [0, 1, 1]
    world.ready(world.started[2])
    world.end(world.started[1], 0)
    assert len(world.started) == 3


# Reload


def test_a_replacement_is_ready_before_the_old_worker_stops_one_after_the_other() -> None:
    world = World.running(2)
    first, second = world.started
    world.fleet.reload()
    world.pass_by(0.1)
    assert [process.slot for process in world.started] == [0, 1, 0]
    assert first.told == []
    world.ready(world.started[2])
    assert world.started[2].listens == (0,)
    assert first.told == ["replaced"]
    world.pass_by(5)
    # Not before the first one has gone.
    assert len(world.started) == 3
    world.end(first, 0)
    assert [process.slot for process in world.started] == [0, 1, 0, 1]
    world.ready(world.started[3])
    assert second.told == ["replaced"]
    world.end(second, 0)
    world.pass_by(5)
    assert len(world.started) == 4


def test_a_second_reload_replaces_all_again() -> None:
    world = World.running(2)
    world.fleet.reload()
    world.pass_by(0.1)
    world.ready(world.started[2])
    world.fleet.reload()
    world.end(world.started[0], 0)
    for _ in range(2):
        world.ready(world.started[-1])
        old = next(process for process in world.started if process.told and process in world.fleet.workers)
        world.end(old, 0)
    world.pass_by(1)
    assert [process.slot for process in world.started] == [0, 1, 0, 0, 1]


def test_a_reload_that_fails_leaves_the_old_workers() -> None:
    world = World.running(2)
    world.fleet.reload()
    world.pass_by(0.1)
    world.end(world.started[2], 1)
    world.pass_by(5)
    assert len(world.started) == 3
    assert [process.told for process in world.started[:2]] == [[], []]


# Workers that are stuck


@pytest.mark.within("cli.workers.fleet._SILENCE_TIMEOUT")
@pytest.mark.beyond("cli.workers.fleet._SILENCE_TIMEOUT")
def test_the_slot_of_a_silent_worker_is_lent_and_given_back() -> None:
    world = World.running(3)
    stuck, *others = world.started
    world.pass_by(1.9, stuck)
    assert [process.listens for process in others] == [(1,), (2,)]
    world.pass_by(0.3, stuck)
    assert sorted(process.listens for process in others) == [(1, 0), (2,)]
    world.pass_by(0.1)
    assert [process.listens for process in world.started] == [(0,), (1,), (2,)]


def test_slots_are_lent_to_those_with_the_fewest_and_again_if_these_end() -> None:
    world = World.running(4)
    a, b, c, d = world.started
    world.pass_by(2.5, a, b)
    assert {len(c.listens), len(d.listens)} == {2}
    world.fleet.ended(c, world.now, -9, "has ended")
    world.pass_by(2.5, a, b)
    assert set(d.listens) == {0, 1, 2, 3}


def test_the_slot_of_a_dead_worker_is_lent_if_the_new_one_takes_too_long() -> None:
    world = World.running(2)
    world.end(world.started[0])
    world.pass_by(1.5)
    assert world.started[1].listens == (1,)
    world.pass_by(1.0)
    assert world.started[1].listens == (1, 0)
    world.ready(world.started[2])
    assert world.started[1].listens == (1,)
    assert world.started[2].listens == (0,)


def test_the_slot_of_a_worker_that_starts_later_is_lent_at_once() -> None:
    world = World.running(2)
    world.end(world.started[0])
    world.end(world.started[2])
    assert world.started[1].listens == (1, 0)


def test_nothing_is_lent_if_all_have_one_socket() -> None:
    world = World.running(2, shared=True)
    world.pass_by(5, world.started[0])
    assert world.started[1].listens == (1,)


@pytest.mark.within("cli.workers.fleet._STUCK_TIMEOUT")
@pytest.mark.beyond("cli.workers.fleet._STUCK_TIMEOUT")
def test_a_worker_that_stays_silent_is_killed_and_replaced() -> None:
    world = World.running(2)
    stuck = world.started[0]
    world.pass_by(29.5, stuck)
    assert stuck.told == []
    world.pass_by(1, stuck)
    assert stuck.told == ["kill"]
    world.end(stuck)
    assert [process.slot for process in world.started] == [0, 1, 0]


def test_a_supervisor_that_was_suspended_kills_nothing() -> None:
    world = World.running(2)
    world.now += 3600
    world.fleet.missed(3600)
    world.fleet.tick(world.now)
    assert [process.told for process in world.started] == [[], []]
    assert [process.listens for process in world.started] == [(0,), (1,)]


# Stop


def test_a_stop_tells_all_once_and_kills_those_that_do_not_stop_in_their_time() -> None:
    world = World.running(3)
    world.end(world.started[2])
    world.fleet.stop(world.now, NOTICED)
    world.fleet.stop(world.now)
    first, second, _, coming = world.started
    assert first.told == second.told == coming.told == ["noticed"]
    world.end(first, 0)
    # It was still importing its app.
    world.end(coming, 143)
    world.pass_by(21.5)
    assert second.told == ["noticed"]
    world.pass_by(1)
    assert second.told == ["noticed", "kill"]
    world.end(second)
    assert world.fleet.unclean
    assert world.fleet.workers == ()
    assert len(world.started) == 4


def test_a_worker_that_becomes_ready_while_all_stop_does_not_listen() -> None:
    world = World(2)
    world.fleet.stop(world.now)
    world.ready(world.started[0])
    assert world.started[0].listens == ()
    assert world.opened == 0
    world.end(world.started[0], 0)
    assert (world.fleet.workers, world.fleet.failed, world.fleet.unclean) == ((), None, False)
