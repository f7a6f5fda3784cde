"""The rules that are broken on purpose, one at a time: see `run.py`.

Not here, because nothing goes wrong without them:

- A repair compares the epoch of what it has read. A page after a position of another epoch is not
  complete, which has the same effect.
- A node repeats its calls on the next link. Otherwise they fail after their timeout, as they may.
- A node takes its own publication from the answer. Otherwise it reads it from the history, before the
  publisher is answered. One mutant leaves out both.
- A repair passes the empty places at the end of a page. The broker in memory has none there: its last
  publication is not replaced, because what replaces it is the last one then.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A rule that is broken: where, and how. `more` has further changes of the same kind."""

    name: str
    file: str
    before: str
    after: str
    more: tuple[tuple[str, str, str], ...] = ()


FEED = "rooms/sharedfeed.py"
CATCH_UP = "rooms/catchup.py"
TABLE = "broker/presencetable.py"
RIGHTS = "broker/rights.py"

# After these, mutants end the other sockets of the member, too.
EXPIRED = '        self._ended.add(connection, Untracked("unknown"), now)\n'
UNTRACKED = "            joined = self._register.take_out(of_room, member, connection).kind\n"
ALL = "        for one in list(member.connections):\n            self._register.take_out(room, member, one)\n"
ALL_HERE = (
    "            for one in list(member.connections):\n"
    "                self._register.take_out(of_room, member, one)\n"
)
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
        "self._broker.after(self._room, Position(before.epoch, before.offset + 1),",
    ),
    Mutant(
        "holes: what is held while a repair reads is dropped",
        FEED,
        "            self._overflowed = False\n            self._drain()",
        "            self._forget_held()\n            self.last = page.top",
    ),
    Mutant("holes: what the history has not is skipped silently", FEED, "self._jumped(before)", "pass"),
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
        "            if page.complete and first <= before:\n",
        "            if True:\n",
    ),
    Mutant(
        "join: a member that is behind is attached at once",
        CATCH_UP,
        "if self._after == self._feed.last or self._is_past_the_end:",
        "if True:",
    ),
    Mutant(
        "join: a member that is ahead of this node gets again what it has",
        "rooms/announcing.py",
        "start.after is None or start.after == feed.last:",
        "start.after is None or start.after.offset >= feed.last.offset:",
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
        "elif (ended := self._ended.of(connection)) is not None:\n            return ended.untracked",
        'elif self._ended.of(connection) is not None:\n            return Untracked("unknown")',
    ),
    Mutant(
        "members: the grace begins with the reap",
        TABLE,
        "away_until = member.lease_end + member.grace",
        "away_until = now + member.grace",
    ),
    Mutant("members: one expired socket takes the others with it", TABLE, EXPIRED, EXPIRED + ALL),
    Mutant("members: untrack ends all sockets of a member", TABLE, UNTRACKED, UNTRACKED + ALL_HERE),
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
        "rooms/showing.py",
        "if diff.epoch != self.epoch or diff.version != self.version + 1:",
        "if diff.epoch != self.epoch:",
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
        'left, opened = why.reason != "lost", ',
        "left, opened = True, ",
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
    Mutant(
        "positions: a broker that has lost its memory goes on in the same epoch",
        "broker/memory.py",
        "self.first_epoch = new_epoch()",
        'self.first_epoch = "1"',
    ),
    Mutant(
        "positions: a broker that has lost the last publications goes on in the same epoch",
        "testing/promises.py",
        "epoch = state.top.epoch if back is None else self._new_epoch()",
        "epoch = state.top.epoch",
    ),
    Mutant(
        "positions: a node does not look at the epoch of a publication",
        FEED,
        "if position.epoch == last.epoch:\n            if position.offset <= last.offset:",
        "if True:\n            if position.offset <= last.offset:",
    ),
    Mutant(
        "positions: a node does not look at the epoch after a lost link",
        FEED,
        "if self._is_live and top != self.last:",
        "if self._is_live and top.offset != self.last.offset:",
    ),
    Mutant(
        "positions: what was held is passed on in another epoch",
        FEED,
        "if record.position.epoch != self.last.epoch:\n                continue",
        "pass",
    ),
    Mutant(
        "history: more is kept than its size",
        "broker/memory.py",
        "or len(records) > history.size\n",
        "or False\n",
    ),
    Mutant(
        "history: it is kept for longer than its ttl", "broker/memory.py", "records[0][0] <= oldest", "False"
    ),
    Mutant(
        "history: more bytes are kept",
        "broker/memory.py",
        "(size > history.bytes and len(records) > 1)",
        "False",
    ),
    Mutant(
        "history: it is not known what was trimmed",
        "broker/memory.py",
        "        log.floor = record.position.offset\n",
        "",
    ),
    Mutant(
        "keys: they are not remembered",
        "broker/memory.py",
        "self._keys.remember(room, key, position, now)",
        "pass",
    ),
    Mutant(
        "keys: they are forgotten too early",
        "broker/keys.py",
        "KEY_WINDOW: Final = 300.0",
        "KEY_WINDOW = 3.0",
    ),
    Mutant("keys: another payload is no conflict", "broker/keys.py", "if digest != key.digest:", "if False:"),
    Mutant(
        "keys: those of all publishers are the same",
        "broker/keys.py",
        "entry = self._entries.get((room, key.publisher, key.key))",
        'entry = self._entries.get((room, "", key.key))',
        (
            (
                "broker/keys.py",
                "self._entries[room, key.publisher, key.key] =",
                'self._entries[room, "", key.key] =',
            ),
        ),
    ),
    Mutant(
        "keys: those of all rooms are the same",
        "broker/keys.py",
        "entry = self._entries.get((room, key.publisher, key.key))",
        'entry = self._entries.get(("", key.publisher, key.key))',
        (
            (
                "broker/keys.py",
                "self._entries[room, key.publisher, key.key] =",
                'self._entries["", key.publisher, key.key] =',
            ),
        ),
    ),
    Mutant(
        "keys: a client has another one at each attempt",
        "client/acknowledging.py",
        "room=self.room, key=self._key, client=client)",
        'room=self.room, key=self._key and f"{self._key} at {self._loop.time()}", client=client)',
    ),
    Mutant(
        "edits: what is replaced is still there",
        "broker/memory.py",
        "record = self._kept(log, replaced)\n        if record is not None:",
        "record = self._kept(log, replaced)\n        if False:",
    ),
    Mutant(
        "edits: of an edit names that edit, not the first publication",
        "broker/memory.py",
        "            if record.replaces is not None:\n                first = record.replaces\n",
        "",
    ),
    Mutant(
        "edits: a page does not say which places are empty",
        "rooms/feed.py",
        "gap = None if after is None or after.offset + 1 == offset else after.offset",
        "gap = None",
    ),
    Mutant(
        "join: a leave in mid-join is not noticed",
        "rooms/changes.py",
        "        refuse_gone(recipient, name)\n"
        "        if self.undone is not None:\n            raise undone(name)",
        "        pass",
    ),
    Mutant(
        "join: one does not wait until the room has gone",
        "rooms/joining.py",
        "        if live.over is not None:\n"
        "            await self._lives.gone(live)\n            return False\n",
        "",
    ),
    Mutant(
        "holes: a repair is not tried again",
        FEED,
        "                pause = min(pause * 2, _LONGEST_PAUSE)\n"
        "                continue\n            if page.top",
        "                return\n            if page.top",
    ),
    Mutant(
        "holes: a room is not compared after a lost link",
        FEED,
        "        if self._is_live and top != self.last:\n            self._mend()",
        "        pass",
    ),
    Mutant(
        "holes: a quiet room is not compared now and then",
        FEED,
        "    def _check(self) -> None:\n        self._mend(check=True)\n",
        "    def _check(self) -> None:\n",
    ),
    Mutant(
        "holes: a node that hears nothing does not subscribe again",
        FEED,
        "deaf = check and page.top.offset > self.last.offset",
        "deaf = False",
    ),
    Mutant(
        "holes: what was dropped because too much was held is not read again",
        FEED,
        "            self._overflowed = True",
        "            pass",
        (
            (FEED, "_MAX_HELD: Final = 1000", "_MAX_HELD: Final = 1"),
            (FEED, "deaf or self._held or self._overflowed or self._reads_again", "self._reads_again"),
        ),
    ),
    Mutant(
        "catch-up: what is still kept is lost, too",
        CATCH_UP,
        "after = page.top if first is None else Position(first.epoch, first.offset - 1)",
        "after = page.top",
    ),
    Mutant(
        "once: a client takes again what it has",
        "client/places.py",
        "if offset == seen.offset + 1 or (after is not None and after <= seen.offset < offset):",
        "if True:",
    ),
    Mutant(
        "once: a client does not notice a jump",
        "client/places.py",
        "return HAD if same and offset <= seen.offset else GAP",
        "return HAD if same and offset <= seen.offset else Position(epoch or seen.epoch, offset)",
    ),
    Mutant(
        "once: the position of a client is past what waits for the program",
        "client/places.py",
        "return next(iter(self._pending.values()), self.seen)",
        "return self.seen",
    ),
    Mutant(
        "once: an answer does not wait until this node has the publication",
        "rooms/publishing.py",
        "            await heard(live.feed, self._timeout, position)\n",
        "            pass\n",
        (("broker/remote.py", "if is_new and room in self._subscriptions:", "if False:"),),
    ),
    Mutant("snapshots: none is taken after a loss", CATCH_UP, "if lost and self._has_snapshot:", "if False:"),
    Mutant(
        "snapshots: the position is that after the snapshot",
        "rooms/snapshots.py",
        "return Start(after, start.recovered, _content(data))\n\n    def attached",
        "return Start(live.feed.last, start.recovered, _content(data))\n\n    def attached",
    ),
    Mutant(
        "snapshots: a plain one is taken before the step of the join",
        "rooms/snapshots.py",
        "        if snapshot is None or snapshot.later is None or start.recovered:\n"
        "            return start\n",
        "        if snapshot is not None and snapshot.now is not None:\n"
        "            data = list(snapshot.now(socket, self._handle(live.name)))\n"
        "            return start._replace(snapshot=_content(data))\n"
        "        if snapshot is None or snapshot.later is None or start.recovered:\n"
        "            return start\n",
        (
            (
                "rooms/snapshots.py",
                "if snapshot is None or snapshot.now is None or start.recovered:",
                "if snapshot is None or snapshot.now is None or start.recovered or start.snapshot:",
            ),
        ),
    ),
    Mutant(
        "members: one that has counted does not count any more",
        "broker/register.py",
        "member.counts = member.counts or track.counts",
        "member.counts = track.counts",
    ),
    Mutant(
        "members: one more than the limit gets a seat",
        TABLE,
        "room.counted >= track.most",
        "room.counted > track.most",
    ),
    Mutant(
        "members: a full room does not say that a seat may become free",
        TABLE,
        'soft = kind == "full" and room is not None and room.soft > 0',
        "soft = False",
    ),
    Mutant(
        "members: sockets without a user have a grace period",
        "rooms/seating.py",
        "grace=policy.grace if socket.user is not None else 0.0,",
        "grace=policy.grace,",
    ),
    Mutant(
        "members: the node where a member was last has no head start",
        "broker/decisions.py",
        '(pending.node in (node, "") or now >= pending.at + HEAD_START)',
        "True",
    ),
    Mutant(
        "members: a store that has lost its memory lets known members arrive",
        "broker/register.py",
        "known = track.resume[1] if track.resume is not None and track.resume[0] != self.epoch else None",
        "known = None",
    ),
    Mutant(
        "members: a node does not tell which arrival it knows",
        "rooms/seating.py",
        "resume = member._epoch, member.arrival",
        'resume = "", ""',
        (("rooms/seating.py", "counts=counts)._replace(resume=resume)", "counts=counts)"),),
    ),
    Mutant(
        "members: the id of a connection is used again",
        "rooms/seating.py",
        'connection = f"{socket.id}.{next(self._number)}"',
        'connection = f"{socket.id}.{live.name}"',
    ),
    Mutant(
        "members: a join that is given up is not ended",
        "rooms/seating.py",
        "            self.departing.give_up(live, socket, id, connection, state)\n            if isinstance",
        "            if isinstance",
    ),
    Mutant(
        "members: what a join that was given up had decided is not known",
        "rooms/departures.py",
        'hook = {"arrived": family.on_arrive, "back": family.on_back}.get(untracked.joined)',
        "hook = None",
    ),
    Mutant(
        "members: versions begin anew in a room that was empty",
        "broker/register.py",
        "            self.floor = max(self.floor, room.version)\n",
        "",
    ),
    Mutant(
        "members: who leaves has a grace period",
        "rooms/departures.py",
        'left, opened = why.reason != "lost", ',
        "left, opened = False, ",
    ),
    Mutant(
        "claims: everybody gets one",
        RIGHTS,
        "if connection not in claims and len(claims) >= most:",
        "if False:",
    ),
    Mutant("claims: the end of one is not remembered", TABLE, "if connection in self._ended:", "if False:"),
    Mutant("claims: it is not told which are lost", RIGHTS, "lost.append(connection)", "pass"),
    Mutant(
        "claims: one that is claimed again replaces another one",
        "node/sharedperuser.py",
        "claimed = await self._store.claim(scope, user, id, self._node, most=1, replace=False)",
        "claimed = await self._store.claim(scope, user, id, self._node, most=1, replace=True)",
    ),
    Mutant(
        "claims: a socket that has lost its own stays open",
        "node/sharedperuser.py",
        "            super().replace((id,))\n            self._held.discard(id)\n",
        "            self._held.discard(id)\n",
    ),
    Mutant("claims: they are not renewed", "node/sharedperuser.py", "held = list(self._held)", "held = []"),
    Mutant(
        "claims: a socket claims before it has its seat",
        "rooms/seating.py",
        "        try:\n            tracked = await self.store.track(track)\n",
        "        if claim is not None:\n            await claim()\n            claim = None\n"
        "        try:\n            tracked = await self.store.track(track)\n",
    ),
    Mutant(
        "claims: the node of a replaced socket is not told",
        "node/sharedperuser.py",
        '                self._peers.tell(node_of(id) or "", "replaced", [id])\n',
        "                pass\n",
    ),
    Mutant(
        "homes: a track does not check the home",
        TABLE,
        "if track.term is not None and not self._rights.settle(track.room, track.node, track.term, now):",
        "if False:",
    ),
    Mutant(
        "calls: one that is not answered does not fail",
        "broker/waiting.py",
        '            self.give_up(call, f"it did not answer within {self.timeout:g} s")\n',
        "            break\n",
    ),
)
