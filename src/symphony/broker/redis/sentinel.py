"""One sentinel of a Redis: it knows which server is the master, and tells when it is another one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, cast

from redis.exceptions import ResponseError

from symphony.broker.redis.commands import packed
from symphony.broker.redis.dialing import Dialer, connect
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.target import Address, Target, shown_address
from symphony.tasks import start

__all__ = ("ASK", "Said", "Sentinel")

logger = logging.getLogger("symphony.app")

ASK: Final = 5.0
"""How often each sentinel is asked."""

# How long it may take to answer.
_SENTINEL_TIMEOUT: Final = 2.0
# Told by the sentinel that replaces the master, before and after it, and by one that has heard of it.
_EVENTS: Final = ("+failover-state-select-slave", "+promoted-slave", "+switch-master")
_NOTHING: Final = object()
_UNASKED: Final = "it has not answered yet"


class Said(NamedTuple):
    """What a sentinel says about the master.

    Attributes:
        address: Where it is.
        epoch: The higher, the later it became the master.
        by: Which sentinel says so.
        ends: Whether it is being replaced, and the new one is not the master yet.
    """

    address: Address
    epoch: int
    by: str
    ends: bool = False


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
        # Who waits for the answer to the question that was sent (`None`: none was), to the next
        # one, and for the connection (`None`: the last attempt has failed).
        self._asked: list[_Asked] | None = None
        self._next: list[_Asked] = []
        self._is_next_wanted = False
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
        self._end()

    async def _connect(self) -> None:
        connection = await self._dialer.connected(again=True)
        self._link = link = RedisLink(connection, self._received, self._lost)
        asked, self._waiting = self._waiting or [], None
        self._ask(link, asked)

    def _failed(self, error: Exception) -> None:
        self._says_nothing(f"it cannot be reached: {str(error).rstrip('.') or 'it does not answer'}")
        for asked in self._waiting or ():
            _tell(asked, None)
        # Until there is a connection, nobody waits for this one.
        self._waiting = None

    def _ask(self, link: RedisLink, asked: list[_Asked]) -> None:
        # One at a time. An answer that is on its way may be older than what is asked for now.
        self._next += asked
        self._is_next_wanted = True
        if self._asked is None:
            self._send(link)

    def _send(self, link: RedisLink) -> None:
        self._asked, self._next, self._is_next_wanted = self._next, [], False
        link.send(self._question)
        self._set_timer(_SENTINEL_TIMEOUT, self._late, link)

    def _set_timer(self, seconds: float, then: Callable[[RedisLink], object], link: RedisLink) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then, link)

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
        answered, self._asked = self._asked or [], None
        for asked in answered:
            _tell(asked, said)
        if self._is_next_wanted:
            self._send(link)
        else:
            self._set_timer(ASK, self._again, link)
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
        # Until all replicas follow the new master, only the address is the new one.
        is_before = (of_master[b"ip"], of_master[b"port"]) == (host, port)
        ends = is_before and b"failover_in_progress" in of_master[b"flags"].split(b",")
        return Said((host.decode(), int(port)), int(of_master[b"config-epoch"]), self.name, ends)

    def _says_nothing(self, why: str) -> None:
        if why != self.why:
            self.why = why
            logger.warning("The sentinel %s does not say which server is the master: %s.", self.name, why)

    def _lost(self, link: RedisLink) -> None:
        if link is not self._link:
            return
        self._link = None
        self._waiting = []
        self._end()
        self._task = start(self._connect())

    def _end(self) -> None:
        """Answer what was asked over a connection that has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._address = _NOTHING
        for asked in (*(self._asked or ()), *self._next):
            _tell(asked, None)
        self._asked, self._next, self._is_next_wanted = None, [], False


def _fields(message: object) -> list[bytes]:
    return cast("list[bytes]", message) if isinstance(message, list) else []


def _tell(asked: _Asked, said: Said | None) -> None:
    if not asked.done():
        asked.set_result(said)
