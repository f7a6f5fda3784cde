"""Break one rule at a time, and look for a seed of the simulated cluster that notices.

```
python tests/mutants/run.py            # all, up to 100 seeds each
python tests/mutants/run.py 20 holes   # up to 20 seeds, those whose names contain "holes"
```

It changes a copy of the source. Exits with 1 if a broken rule was not noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

SCRIPT = """
import logging, sys
from cluster.test_seeds import run
logging.disable(logging.CRITICAL)
for seed in range(int(sys.argv[1])):
    try:
        run(seed)
    except Exception as error:
        print(seed, repr(str(error).splitlines()[0] if str(error) else error)[:150])
        break
"""


class Mutant(NamedTuple):
    """A rule that is broken: where, and how."""

    name: str
    file: str
    before: str
    after: str


FEED = "rooms/sharedfeed.py"
CATCH_UP = "rooms/catchup.py"
TABLE = "broker/presencetable.py"
RIGHTS = "broker/rights.py"

# After these, mutants end the other sockets of the member, too.
EXPIRED = '        self._ended.add(connection, Untracked("unknown"), now)\n'
UNTRACKED = "            joined = self._register.take_out(of_room, member, connection).kind\n"
ALL = "        for one in list(member.connections):\n            self._register.take_out(room, member, one)\n"
AGAIN = (
    "            self._after = page.end\n"
    "            for frame in self._feed.frames(page, self._recipient.encoding):\n"
    "                outbox.send(frame)\n"
)

MUTANTS = (
    Mutant(
        "holes: what is older is passed on again",
        FEED,
        "if position.offset <= last.offset:\n                return",
        "if position.offset <= last.offset:\n"
        "                super()._received(record)\n                return",
    ),
    Mutant(
        "holes: a hole is not noticed",
        FEED,
        "if position.offset == last.offset + 1:\n                super()",
        "if position.offset > last.offset:\n                super()",
    ),
    Mutant(
        "holes: a lost last publication is not looked for",
        FEED,
        "        self._mend(check=True)\n        self._schedule_check()",
        "        self._schedule_check()",
    ),
    Mutant(
        "holes: a repair begins after the hole",
        FEED,
        "self._broker.after(self._room, before,",
        "self._broker.after(self._room, before._replace(offset=before.offset + 1),",
    ),
    Mutant(
        "holes: what is held while a repair reads is dropped",
        FEED,
        "            self._overflowed = False\n            self._drain()",
        "            self._forget_held()\n            self.last = page.top",
    ),
    Mutant("holes: what the history has not is skipped silently", FEED, "self._jumped(before)", "pass"),
    Mutant(
        "positions: a new epoch is not noticed in a repair",
        FEED,
        "if page.top.epoch != self.last.epoch or not page.complete:",
        "if not page.complete:",
    ),
    Mutant(
        "positions: one of another epoch is valid",
        "broker/roomlog.py",
        "return position.epoch == self.epoch and self.floor",
        "return self.floor",
    ),
    Mutant(
        "positions: one that is trimmed away is valid",
        "broker/roomlog.py",
        "self.floor <= position.offset <= self.top",
        "position.offset <= self.top",
    ),
    Mutant(
        "join: recovered although something is gone",
        "rooms/feed.py",
        "if page.complete and top.offset",
        "if top.offset",
    ),
    Mutant(
        "join: a member that is behind is attached at once",
        CATCH_UP,
        "if self._after == self._feed.last or self._is_past_the_end:",
        "if True:",
    ),
    Mutant(
        "join: a position that this node has not reached is lost",
        CATCH_UP,
        "self._after.offset > self._feed.last.offset:",
        "False:",
    ),
    Mutant("catch-up: a page is sent again", CATCH_UP, "            self._after = page.end\n", AGAIN),
    Mutant(
        "catch-up: what is lost is not told",
        CATCH_UP,
        "            if lost:\n                self._tell_lost(page)",
        "",
    ),
    Mutant(
        "once: a repeated publish is published again",
        "broker/hub.py",
        "earlier = answers.get(number)",
        "earlier = None",
    ),
    Mutant(
        "once: a call is not repeated on the next link",
        "broker/calling.py",
        "            link.send(call.message)\n        if again",
        "        if again",
    ),
    Mutant(
        "once: a node does not take its own publication from the answer",
        "broker/remote.py",
        "if is_new and room in self._subscriptions:",
        "if False:",
    ),
    Mutant(
        "once: rooms are not subscribed to again after a lost link",
        "broker/remote.py",
        "self._resuming = start(self._resume())",
        "self._resuming = None",
    ),
    Mutant(
        "members: a repeated track does not say what the first decided",
        TABLE,
        "if room is not None and member is not None and track.connection in member.connections:",
        "if False:",
    ),
    Mutant(
        "members: the end of a connection is not remembered",
        TABLE,
        "        if ended is not None:\n",
        "        if False:\n",
    ),
    Mutant(
        "members: a refusal is not remembered",
        TABLE,
        'self._ended.add(track.connection, Untracked("unknown"), now, refused)',
        "pass",
    ),
    Mutant(
        "members: a repeated untrack does not say what the first decided",
        TABLE,
        "return ended.untracked",
        'return Untracked("unknown")',
    ),
    Mutant(
        "members: the grace begins with the reap",
        TABLE,
        "away_until = member.lease_end + member.grace",
        "away_until = now + member.grace",
    ),
    Mutant("members: one expired socket takes the others with it", TABLE, EXPIRED, EXPIRED + ALL),
    Mutant("members: untrack ends all sockets of a member", TABLE, UNTRACKED, UNTRACKED + ALL),
    Mutant(
        "members: who is away has no seat",
        TABLE,
        "room.counted >= track.most",
        "room.counted - room.soft >= track.most",
    ),
    Mutant(
        "members: a track does not reap its room first",
        TABLE,
        "            self._reap_room(of_room, now)\n        return self._rooms.get(room)",
        "            pass\n        return self._rooms.get(room)",
    ),
    Mutant(
        "members: leases end while the store is out of reach",
        TABLE,
        "elif now < self._no_end_before or now - self._last_touch > REFRESH * 1.5:",
        "elif False:",
    ),
    Mutant(
        "members: decisions are not kept until they are acknowledged",
        "broker/decisions.py",
        "                taken.append(pending.decision)\n",
        "                pass\n",
    ),
    Mutant(
        "members: a node takes a decision that another one is at work on",
        "broker/decisions.py",
        "is_free = pending.by is None or pending.until <= now",
        "is_free = True",
    ),
    Mutant(
        "members: a socket that the store does not know is not tracked again",
        "rooms/leases.py",
        "        if seen.unknown:",
        "        if False:",
    ),
    Mutant(
        "members: a gap in the changes is ignored",
        "rooms/membertable.py",
        "live.showing.heard(diff):",
        "live.showing.heard(diff) and False:",
    ),
    Mutant(
        "members: the version that touch tells is ignored",
        "rooms/membertable.py",
        "(epoch, version) != (showing.epoch, showing.version)",
        "False",
    ),
    Mutant(
        "members: a socket that has gone meanwhile is tracked again",
        "rooms/departures.py",
        "live.attendance.returning[socket] = why",
        "pass",
    ),
    Mutant(
        "members: a departure that was not heard of is not looked for",
        "rooms/leases.py",
        "            self._overdue(live)",
        "            pass",
    ),
    Mutant(
        "members: who is lost departs at once",
        "rooms/departures.py",
        'left=departure.leave.reason != "lost"',
        "left=True",
    ),
    Mutant(
        "members: leases are not renewed",
        "rooms/leases.py",
        "                await self.touch()\n",
        "                pass\n",
    ),
    Mutant(
        "members: nothing is reaped",
        "rooms/leases.py",
        "            await self.reap()\n",
        "            pass\n",
    ),
    Mutant("homes: every node gets the home", RIGHTS, "home.node != node and home.until > now", "False"),
    Mutant(
        "homes: a refused claim is not remembered",
        RIGHTS,
        "            self._end(term, now)\n            return False",
        "            return False",
    ),
    Mutant(
        "homes: a claim that was given up is not remembered",
        RIGHTS,
        "            del self._homes[room]\n        self._end(term, now)",
        "            del self._homes[room]",
    ),
    Mutant(
        "homes: a node does not look at its own clock",
        "rooms/lives.py",
        "return not live.family.has_home or self._loop.time() < live.home_until",
        "return True",
    ),
    Mutant(
        "homes: sockets stay when the home has moved",
        "rooms/leases.py",
        "                self._moved(live)\n",
        "                pass\n",
    ),
    Mutant(
        "homes: the home is not given up",
        "rooms/seating.py",
        "            await self.store.vacate(room, term)",
        "            pass",
    ),
    Mutant(
        "homes: the home is not renewed",
        "rooms/leases.py",
        "Renewal(live.name, part, live.term)",
        "Renewal(live.name, part, None)",
    ),
)


def notice(mutant: Mutant, seeds: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        file = source / "symphony" / mutant.file
        text = file.read_text()
        if text.count(mutant.before) != 1:
            return f"BROKEN LIST: found {text.count(mutant.before)} times in {mutant.file}"
        file.write_text(text.replace(mutant.before, mutant.after))
        environment = {**os.environ, "PYTHONPATH": f"{source}:{ROOT / 'tests'}", "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(seeds)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "seed ?: it does not end"
        if done.stdout:
            return f"seed {done.stdout.strip()}"
        return "NOT NOTICED" if done.returncode == 0 else f"FAILED: {done.stderr[-300:]}"


def main() -> int:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    missed = 0
    for mutant in MUTANTS:
        if word in mutant.name:
            result = notice(mutant, seeds)
            missed += not result.startswith("seed")
            print(f"{mutant.name:75} {result}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
