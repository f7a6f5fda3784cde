"""Users of rooms in a cluster where things go wrong, seed by seed.

`CLUSTER_SEEDS=500` tries so many. One that fails is tried again alone with
`CLUSTER_SEEDS=17..18`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from random import Random

import pytest

from cluster.games import ROOMS, Ledger, make_app
from cluster.users import play
from symphony.testing import FAULTS, Cluster, Fault

BLOCK = 10
FEW: dict[int, Collection[Fault]] = {
    2: ("cut", "kill", "drop", "again", "misdeliver"),
    4: ("isolate", "pause", "drop", "again"),
    5: ("drop", "slow"),
    7: ("outage", "drop", "disturb"),
    8: ("drop", "slow", "disturb", "storm", "again", "misdeliver"),
}
RESTARTS = {"wipe", "rollback", "restart"}


def faults_of(seed: int) -> Collection[Fault]:
    """Some of the seeds have most of the faults, and the others only some, so that more is promised."""
    kind = seed % 10
    if kind in (1, 6):
        restart: Fault = ("wipe", "rollback", "restart")[seed % 3]
        return ("kill", "drop", "disturb", "storm", restart, "cut", "isolate", "again")
    if kind in FEW:
        return FEW[kind]
    return [fault for fault in FAULTS if fault not in RESTARTS]


def run(seed: int) -> Cluster:
    ledger, random = Ledger(), Random(f"rooms of {seed}")
    rooms, seats = random.sample(ROOMS, 3), random.random() < 0.5
    if seed % 10 == 4:
        # What has leases is for these seeds.
        rooms, seats = ["game:a", "pad:a", "club:a"], True
    faults = faults_of(seed)
    cluster = Cluster(lambda: make_app(ledger, rooms, seats=seats), nodes=3, seed=seed, faults=faults)
    hears, forgets = "slow" not in faults, bool(RESTARTS & {*faults})
    cluster.run(lambda cluster: play(cluster, rooms, seats=seats, hears=hears, forgets=forgets))
    return cluster


def blocks() -> list[range]:
    first, dots, last = os.environ.get("CLUSTER_SEEDS", "60").rpartition("..")
    seeds = range(int(first), int(last)) if dots else range(int(last))
    return [seeds[start : start + BLOCK] for start in range(0, len(seeds), BLOCK)]


@pytest.mark.parametrize("seeds", blocks(), ids=str)
def test_what_is_promised_holds(seeds: range) -> None:
    for seed in seeds:
        run(seed)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_seed_does_the_same_in_another_process(seed: int) -> None:
    """The order of sets, and what ran before, differ there."""
    script = f"from cluster.test_seeds import run; print(*run({seed}).trace, sep='\\n')"
    traces = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(Path(__file__).parents[1])},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert len(traces[0].splitlines()) > 100
    assert traces[0] == traces[1]
