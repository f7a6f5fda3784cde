"""The sentinels of a Redis: they know which server is the master, and tell when it is another one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, cast

from redis.exceptions import ResponseError

from symphony.broker.redis.commands import packed
from symphony.broker.redis.dialing import Connected, Dialer, ReplicaError, connect, connect_to_server
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.target import Address, Target, shown_address
from symphony.errors import ConfigurationError
from symphony.tasks import start

__all__ = ("Said", "Sentinel", "Sentinels")

logger = logging.getLogger("symphony.app")

# How often each sentinel is asked, and how long it may take to answer.
_ASK: Final = 5.0
_SENTINEL_TIMEOUT: Final = 2.0
# How long an answer is waited for after another sentinel has answered.
_OTHERS: Final = 0.5
# Told by a sentinel that has seen the new master itself, and by one that has heard of it.
_EVENTS: Final = ("+promoted-slave", "+switch-master")


class Said(NamedTuple):
    """What a sentinel says about the master.

    Attributes:
        address: Where it is.
        epoch: The higher, the later it became the master.
        by: Which sentinel says so.
    """

    address: Address
    epoch: int
    by: str


_NOTHING: Final = object()
_UNASKED: Final = "it has not answered yet"
_Asked: TypeAlias = "asyncio.Future[Said | None]"


class Sentinel:
    """One sentinel. It is asked again and again, and when it tells of a change.

    Args:
        target: The sentinel.
        master: The name of the master.
        told: Called with each answer.

    Attributes:
        name: Its address.
        why: Why it does not name the master; `None`: it does.
        knows: Whether it answers, no matter whether it knows the name of the master.
    """

    def __init__(self, target: Target, master: str, told: Callable[[Said], object]) -> None:
        self.name = shown_address(target.addresses[0])
        self.why: str | None = _UNASKED
        self.knows = True
        self._master = master
        self._told = told
        self._dialer = Dialer(lambda: connect(target), _SENTINEL_TIMEOUT, random.random, self._failed)
        self._loop = asyncio.get_running_loop()
        self._question = b"".join(
            (
                # A connection that hears events takes no other commands.
                packed("UNSUBSCRIBE", *_EVENTS),
                packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master),
                packed("SENTINEL", "MASTER", master),
                packed("SUBSCRIBE", *_EVENTS),
            )
        )
        # Who waits for the answers to the questions that were sent, in their order; and for
        # the connection.
        self._asked: deque[list[_Asked]] = deque()
        self._waiting: list[_Asked] | None = []
        # The answer to the first part of a question.
        self._address: object = _NOTHING
        self._link: RedisLink | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task = start(self._connect())

    def ask(self) -> _Asked:
        """Return who is the master; `None` if this sentinel does not say so."""
        asked: _Asked = self._loop.create_future()
        if self._link is not None:
            self._ask(self._link, [asked])
        elif self._waiting is not None:
            self._waiting.append(asked)
        else:
            asked.set_result(None)
        return asked

    def close(self) -> None:
        """End the connection."""
        self._task.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._end(None)

    async def _connect(self) -> None:
        connection = await self._dialer.connected(again=True)
        self._link = link = RedisLink(connection, self._received, self._lost)
        asked, self._waiting = self._waiting or [], None
        self._ask(link, asked)

    def _failed(self, error: Exception) -> None:
        self._says_nothing(f"it cannot be reached: {str(error) or 'it does not answer'}")
        for asked in self._waiting or ():
            _tell(asked, None)
        # Until there is a connection, nobody waits for this one.
        self._waiting = None

    def _ask(self, link: RedisLink, asked: list[_Asked]) -> None:
        self._asked.append(asked)
        link.send(self._question)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_SENTINEL_TIMEOUT, self._late, link)

    def _late(self, link: RedisLink) -> None:
        self._says_nothing("it does not answer")
        link.close()

    def _again(self, link: RedisLink) -> None:
        # It has been of use for some time.
        self._dialer.worked()
        self._ask(link, [])

    def _received(self, link: RedisLink, message: object) -> None:
        if link is not self._link:
            return
        fields = _fields(message)
        kind = fields[0] if fields else b""
        if kind in (b"subscribe", b"unsubscribe"):
            return
        if kind == b"message":
            of_master = fields[2].decode(errors="replace").split(" ")
            # `+switch-master` begins with the name, other events with `master` and the name.
            if self._master in of_master[:2]:
                self._ask(link, [])
        elif self._address is _NOTHING:
            self._address = message
        else:
            address, self._address = self._address, _NOTHING
            self._answered(link, address, message)

    def _answered(self, link: RedisLink, address: object, master: object) -> None:
        said: Said | None = None
        try:
            said = self._read(address, master)
        except (LookupError, TypeError, ValueError, AttributeError):
            self._says_nothing("it cannot be understood")
        for asked in self._asked.popleft():
            _tell(asked, said)
        if not self._asked:
            assert self._timer is not None
            self._timer.cancel()
            self._timer = self._loop.call_later(_ASK, self._again, link)
        if said is not None:
            if self.why not in (None, _UNASKED):
                logger.info("The sentinel %s says which server is the master again.", self.name)
            self.why = None
            self._told(said)

    def _read(self, address: object, master: object) -> Said | None:
        error = address if isinstance(address, ResponseError) else master
        self.knows = True
        if isinstance(error, ResponseError):
            if address is None:
                self.knows = False
                self._says_nothing(f"it knows no master {self._master!r}")
            else:
                self._says_nothing(f"it refuses to answer: {error}")
            return None
        host, port = cast("list[bytes]", address)
        fields = cast("list[bytes]", master)
        of_master = dict(zip(fields[::2], fields[1::2], strict=True))
        return Said((host.decode(), int(port)), int(of_master[b"config-epoch"]), self.name)

    def _says_nothing(self, why: str) -> None:
        if why != self.why:
            self.why = why
            logger.warning("The sentinel %s does not say which server is the master: %s.", self.name, why)

    def _lost(self, link: RedisLink) -> None:
        if link is not self._link:
            return
        self._link = None
        self._waiting = []
        self._end(None)
        self._task = start(self._connect())

    def _end(self, said: Said | None) -> None:
        """Answer what was asked over a connection that has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._address = _NOTHING
        while self._asked:
            for asked in self._asked.popleft():
                _tell(asked, said)


class Sentinels:
    """Connects to the server that is the master, and tells when it is another one.

    Args:
        target: The sentinels, and by which name they know the server.
    """

    def __init__(self, target: Target) -> None:
        self.where = target.shown
        self._target = target
        self._moved: tuple[Callable[[], object], ...] = ()
        self._sentinels: list[Sentinel] = []
        # The server that was connected to last: its run, its addresses, and since when it is the
        # master. Sentinels may know one server by different addresses.
        self._run: str | None = None
        self._addresses: set[Address] = set()
        self._epoch = -1
        self._checking: asyncio.Task[None] | None = None
        self._refused: Address | None = None

    def watch(self, *moved: Callable[[], object]) -> None:
        """See `Source.watch`.

        Publications to the server that was the master before would be acknowledged for some
        time, and lost.
        """
        self._moved = moved
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
        why: Exception = ConnectionError("no sentinel says which server is the master")
        for said in await self._answers():
            if said.epoch < self._epoch:
                # It has not heard of the present one yet.
                break
            try:
                connection, run = await connect_to_server(self._target.at(said.address))
            except ReplicaError as error:
                self._is_replica(said)
                why = error
                continue
            self._arrived(said, run)
            return connection
        raise why

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
        if self._run is None or said.address in self._addresses or said.epoch < self._epoch:
            return
        if self._checking is None or self._checking.done():
            self._checking = start(self._check(said))

    async def _check(self, said: Said) -> None:
        """Leave the present server for another one, if that is the master by its own word, too."""
        try:
            async with asyncio.timeout(_SENTINEL_TIMEOUT):
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
            await connection.disconnect(nowait=True)
            self._arrived(said, run)

    def _arrived(self, said: Said, run: str) -> None:
        """Note which server is the master, and leave the one before."""
        is_same = run == self._run if run else said.address in self._addresses
        self._epoch = max(self._epoch, said.epoch)
        if is_same:
            self._addresses.add(said.address)
            return
        before, self._run, self._addresses = self._run, run, {said.address}
        if said.address == self._refused:
            self._refused = None
        if before is not None:
            logger.warning("The master of the broker of the rooms is %s now.", shown_address(said.address))
            for each in self._moved:
                each()

    def _is_replica(self, said: Said) -> None:
        if self._refused != said.address:
            self._refused = said.address
            logger.warning(
                "The sentinel %s says that %s is the master, which says that it is a replica.",
                said.by,
                shown_address(said.address),
            )


def _fields(message: object) -> list[bytes]:
    return cast("list[bytes]", message) if isinstance(message, list) else []


def _tell(asked: _Asked, said: Said | None) -> None:
    if not asked.done():
        asked.set_result(said)
