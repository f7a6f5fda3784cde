"""The sentinels of a Redis, which know where the master is: `redis+sentinel://`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from symphony.broker.redis.dialing import Connected, ReplicaError, Server, connect_to_server, cut
from symphony.broker.redis.sentinel import ASK, Said, Sentinel
from symphony.broker.redis.target import Address, Target, shown_address
from symphony.errors import ConfigurationError
from symphony.tasks import start

__all__ = ("Sentinels",)

logger = logging.getLogger("symphony.app")

# How long an answer is waited for after another sentinel has answered.
_OTHERS: Final = 0.5
# How long nothing is sent while a sentinel replaces the master, and how often that is looked at.
_HOLD: Final = 3.0
_LOOK: Final = 0.1


class Sentinels:
    """Connects to the server that is the master, and tells when it is another one.

    Args:
        target: The sentinels, and by which name they know the server.
    """

    def __init__(self, target: Target) -> None:
        self.where = target.shown
        self._target = target
        self._moved: list[Callable[[], object]] = []
        self._loop = asyncio.get_running_loop()
        self._sentinels: list[Sentinel] = []
        # The server that was connected to last: its run, its addresses, and since when it is the
        # master. Sentinels may know one server by different addresses.
        self._run: str | None = None
        self._addresses: set[Address] = set()
        self._epoch = -1
        # Since when sentinels replace it, by their names.
        self._ends: dict[str, float] = {}
        self._dialing: set[asyncio.Task[Server]] = set()
        self._checking: asyncio.Task[None] | None = None
        self._refused: Address | None = None

    def watch(self, *moved: Callable[[], object]) -> None:
        """See `Source.watch`.

        Publications to the server that was the master before would be acknowledged for some
        time, and lost.
        """
        self._moved += moved
        if self._sentinels:
            return
        assert self._target.master is not None
        for address in self._target.addresses:
            self._sentinels.append(Sentinel(self._target.sentinel(address), self._target.master, self._told))

    def close(self) -> None:
        """See `Source.close`."""
        if self._checking is not None:
            self._checking.cancel()
        for sentinel in self._sentinels:
            sentinel.close()

    async def dial(self) -> Connected:
        """See `Source.dial`."""
        answers = await self._answers()
        while self._is_ending():
            await asyncio.sleep(_LOOK)
            answers = await self._answers()
        why: Exception = ConnectionError("no sentinel says which server is the master")
        for said in answers:
            try:
                return await self._dial(said)
            except ReplicaError as error:
                self._is_replica(said)
                why = error
        raise why

    async def _dial(self, said: Said) -> Connected:
        dialing = start(connect_to_server(self._target.at(said.address)))
        self._dialing.add(dialing)
        try:
            await asyncio.wait((dialing,))
        except BaseException:
            dialing.cancel()
            if dialing.done() and not dialing.cancelled() and dialing.exception() is None:
                await cut(dialing.result().connection)
            raise
        finally:
            self._dialing.discard(dialing)
        if dialing.cancelled():
            raise ConnectionError("another server is the master now")
        connection, run = dialing.result()
        if not self._arrived(said, run):
            await cut(connection)
            raise ConnectionError("another server is the master now")
        return connection

    async def _answers(self) -> list[Said]:
        """Return which servers are said to be the master, the latest first."""
        asked = [sentinel.ask() for sentinel in self._sentinels]
        await asyncio.wait(asked, timeout=_OTHERS)
        if not any(each.done() and each.result() for each in asked):
            await asyncio.wait(asked)
        answers = [each.result() for each in asked if each.done()]
        found = {said.address: said for said in answers if said is not None}
        if not found:
            why = "; ".join(f"{sentinel.name}: {sentinel.why}" for sentinel in self._sentinels)
            if not any(sentinel.knows for sentinel in self._sentinels):
                raise ConfigurationError(
                    f"The sentinels of the broker {self._target.shown} know no master "
                    f"{self._target.master!r}. Write the name that is in their `sentinel monitor`."
                )
            raise ConnectionError(f"no sentinel says which server is the master ({why})")
        return sorted(found.values(), key=lambda said: said.epoch, reverse=True)

    def _told(self, said: Said) -> None:
        """Take the answer of a sentinel, which may have been asked by a timer or an event."""
        if said.ends:
            if said.by not in self._ends:
                self._ends[said.by] = self._loop.time()
                if said.address in self._addresses:
                    # The next one does not have what this one would take from now on.
                    logger.warning("The sentinel %s replaces the master of the broker.", said.by)
                    self._leave()
            return
        self._ends.pop(said.by, None)
        if self._run is None or said.address in self._addresses or said.epoch < self._epoch:
            return
        if self._checking is None or self._checking.done():
            self._checking = start(self._check(said))

    def _is_ending(self) -> bool:
        now = self._loop.time()
        return any(now - since < _HOLD for since in self._ends.values())

    async def _check(self, said: Said) -> None:
        """Leave the present server for another one, if that is the master by its own word, too."""
        try:
            async with asyncio.timeout(ASK):
                connection, run = await connect_to_server(self._target.at(said.address))
        except ReplicaError:
            self._is_replica(said)
        except (OSError, TimeoutError, ConfigurationError) as error:
            logger.warning(
                "The sentinel %s says that %s is the master now, which cannot be used: %s",
                said.by,
                shown_address(said.address),
                error,
            )
        else:
            await cut(connection)
            self._arrived(said, run)

    def _arrived(self, said: Said, run: str) -> bool:
        """Note which server is the master, and leave the one before.

        Returns:
            Whether it still is the master, as far as is known.
        """
        if said.epoch < self._epoch:
            # Such as one that was stopped, and has accepted the connection late.
            return False
        self._epoch = said.epoch
        is_same = run == self._run if run else said.address in self._addresses
        if is_same:
            self._addresses.add(said.address)
            return True
        before, self._run, self._addresses = self._run, run, {said.address}
        if said.address == self._refused:
            self._refused = None
        if before is not None:
            logger.warning("The master of the broker of the rooms is %s now.", shown_address(said.address))
            self._leave()
        return True

    def _leave(self) -> None:
        """End all connections to the present server, and those that are being made."""
        for dialing in self._dialing:
            dialing.cancel()
        for moved in self._moved:
            moved()

    def _is_replica(self, said: Said) -> None:
        if self._refused != said.address:
            self._refused = said.address
            logger.warning(
                "The sentinel %s says that %s is the master, which says that it is a replica.",
                said.by,
                shown_address(said.address),
            )
