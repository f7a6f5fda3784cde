"""Keeps one client connected: attempts, delays, states and the final close."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias, cast

from symphony.client.backoff import UNAUTHORIZED, Backoff, comes_back
from symphony.client.link import Close, Dial, DialError, Link, Listener, Offer
from symphony.client.loss import Closed, Loss, how
from symphony.client.offering import offered_headers, offered_names
from symphony.client.options import Options
from symphony.client.refusals import UNREACHED, verb
from symphony.errors import DisconnectedError, RefusedError, RemoteError

__all__ = ("ConnectionOwner", "Reconnector", "State")

logger = logging.getLogger("symphony.client")

State: TypeAlias = Literal["new", "connecting", "open", "waiting", "closed"]

_LOST: Final = 1006
_NORMAL: Final = 1000


class ConnectionOwner(Protocol):
    """The client of a reconnector."""

    def received(self, message: str | bytes) -> None:
        """Handle a received message."""
        ...

    def relieved(self) -> None:
        """Continue to send: the link is no longer congested."""
        ...

    def opening(self, link: Link) -> None:
        """Switch to a new link, before anything arrives on it."""
        ...

    def opened(self) -> None:
        """Handle the open connection, before the state changes."""
        ...

    def lost(self, loss: Loss) -> None:
        """Handle the loss of the link, before the state changes; no other follows a final one."""
        ...

    def refusal(self, close: Close) -> RemoteError | None:
        """Return the error with which the server has explained the end of the link."""
        ...

    def changed(self, state: State) -> None:
        """Handle a new state."""
        ...


class Reconnector:
    """Keeps one client connected; `Listener` of its current link.

    Args:
        dial: Opens links.
        options: The options of the client.
        owner: The client.

    Attributes:
        state: New, connecting, open, waiting or closed.
        ended: Why the client closed for good; `None` before.
    """

    __slots__ = (
        "_attempts",
        "_backoff",
        "_dial",
        "_failure",
        "_first",
        "_gone",
        "_link",
        "_loss",
        "_opened_at",
        "_options",
        "_owner",
        "_renewed",
        "_stage",
        "_task",
        "_verdict",
        "ended",
        "received",
        "relieved",
        "state",
    )

    def __init__(self, dial: Dial, options: Options, owner: ConnectionOwner) -> None:
        self.state: State = "new"
        self.ended: Closed | None = None
        # The link calls the client directly.
        self.received: Callable[[str | bytes], None] = owner.received
        self.relieved: Callable[[], None] = owner.relieved
        self._dial = dial
        self._options = options
        self._owner = owner
        self._backoff = Backoff(options.backoff, options.max_backoff, options.uniform)
        self._attempts = 0
        self._failure: DialError | None = None
        self._renewed = False
        self._stage = ""
        self._link: Link | None = None
        self._opened_at: float | None = None
        self._verdict: Close | None = None
        self._loss: Loss | None = None
        self._task: asyncio.Task[None] | None = None
        # Done when the first connection opens, or when the client closes before that.
        self._first: asyncio.Future[None] | None = None
        # Set while a link is in use; done when it is closed.
        self._gone: asyncio.Future[None] | None = None

    # Called by the client

    async def open(self) -> None:
        """Wait for the first open connection.

        Raises:
            RefusedError: The server refused the connection.
            DisconnectedError: No connection opened in time, or the client is
                closed.
        """
        if self.state == "new":
            loop = asyncio.get_running_loop()
            self._first = loop.create_future()
            self._task = loop.create_task(self._keep())
        first = self._first
        if first is not None and not first.done():
            try:
                await asyncio.wait((first,), timeout=self._options.connect_timeout)
            except asyncio.CancelledError:
                what = f"connecting to {self._dial.where} was cancelled"
                self._stop(Close(_NORMAL, "", clean=False), what)
                raise
            if not first.done():
                self._too_late()
        if self.ended is not None and self._opened_at is None:
            await self._finished()
            raise self.error()

    async def close(self, code: int, reason: str) -> None:
        """Close for good, and wait until everything has ended."""
        link = self._link
        self._stop(Close(code, reason, clean=True), f"the client of {self._dial.where} is closed")
        if link is not None:
            link.close(code, reason)
        try:
            await self._finished()
        except asyncio.CancelledError:
            if link is not None:
                link.abort()
            raise

    def give_up(self, close: Close) -> None:
        """Abort the connection, and treat it as closed with *close*."""
        if self._link is not None and self._verdict is None:
            self._verdict = close
            self._link.abort()

    def retry_after(self, seconds: float) -> None:
        """Wait at least *seconds* before the next attempt."""
        self._backoff.hint(seconds)

    def error(self) -> DisconnectedError:
        """Return the exception for any use of a client that is closed for good."""
        assert self._loss is not None
        error = self._loss.error()
        failure = self._failure
        if self._opened_at is None and failure is not None:
            if error.code not in (_LOST, _NORMAL):
                error = RefusedError(
                    str(error),
                    error.code,
                    error.reason,
                    refusal=error.refusal,
                    status=failure.status,
                    retry_after=failure.retry_after,
                )
            error.__cause__ = failure.__cause__
        return error

    # Called by the link

    def closed(self, close: Close) -> None:
        """Handle the end of a connection: reconnect or close for good."""
        close, self._verdict = self._verdict or close, None
        self._link = None
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        if self.ended is not None:
            return
        where = self._dial.where
        what = f"the connection to {where} was lost ({how(close)})"
        if self.state == "connecting":
            # The connection was open for a moment, and its close code counts: the dial
            # reports a refusal differently. Nothing was sent.
            self._owner.lost(Loss(what, close, final=False))
            self._set_open()
        opened_at = self._opened_at
        if opened_at is not None and self._backoff.lasted(asyncio.get_running_loop().time() - opened_at):
            self._renewed = False
        refusal = self._owner.refusal(close)
        if self._stays_away(close.code, comes_back(close.code)):
            self._end(close, f"the connection to {where} has ended ({how(close)})", refusal)
        else:
            logger.info("%s", what)
            self._owner.lost(Loss(what, close, final=False, refusal=refusal))
            self._set("waiting")

    # Attempts and connections

    async def _keep(self) -> None:
        try:
            while self.ended is None:
                self._set("connecting")
                try:
                    link = await self._attempt()
                except DialError as failure:
                    self._failed(failure)
                else:
                    await self._use(link)
                if self.ended is None:
                    delay = self._backoff.next()
                    # `symphony connect` reads `retry_in`.
                    logger.info(
                        "trying %s again in %.1f s", self._dial.where, delay, extra={"retry_in": delay}
                    )
                    await asyncio.sleep(delay)
        except Exception as error:
            logger.exception("The client of %s has failed.", self._dial.where)
            self._end(Close(1011, "", clean=False), f"the client of {self._dial.where} has failed: {error!r}")

    async def _attempt(self) -> Link:
        self._attempts += 1
        self._stage = "the token function did not return in time"
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                return await self._dial(await self._offer())
        except TimeoutError:
            raise DialError(_LOST, self._stage, reason="no answer", again=True) from None

    async def _offer(self) -> Offer:
        options = self._options
        try:
            token = options.token() if callable(options.token) else options.token
            if inspect.isawaitable(token):
                token = await token
            if token is not None and not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a token must be a string, not {type(token).__name__}")
            return Offer(offered_names(options, token), offered_headers(options, token), self._take_stage)
        except Exception as error:
            # The token service may be down, too, so try again.
            logger.warning("The token for %s could not be fetched: %r", self._dial.where, error)
            raise DialError(_LOST, f"token() raised {error!r}", reason="no token", again=True) from error

    def _take_stage(self, words: str) -> None:
        self._stage = words

    async def _use(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        self._link = link
        self._gone = loop.create_future()
        try:
            self._owner.opening(link)
            link.start(cast("Listener", self))
            # A frame that arrived with the response may already have closed it.
            if not self._gone.done():
                self._owner.opened()
                self._set_open()
            await asyncio.wait((self._gone,))
            await link.wait_closed()
        except BaseException:
            link.abort()
            raise
        finally:
            self._gone = None

    def _set_open(self) -> None:
        self._opened_at = asyncio.get_running_loop().time()
        self._set("open")
        self._settle_first()

    def _failed(self, failure: DialError) -> None:
        self._failure = failure
        if failure.retry_after is not None:
            self._backoff.hint(failure.retry_after)
        what = f"{self._dial.where} {verb(failure.code)}: {failure.message}"
        if self._stays_away(failure.code, failure.again):
            self._end(Close(failure.code, failure.reason, clean=False), what, failure.refusal)
        else:
            logger.info("%s", what)
            self._set("waiting")

    def _stays_away(self, code: int, again: bool) -> bool:
        if not self._options.reconnect:
            return True
        if code == UNAUTHORIZED and callable(self._options.token):
            again, self._renewed = not self._renewed, True
        return not again

    # Closing

    def _stop(self, close: Close, what: str, refusal: RemoteError | None = None) -> None:
        """End from outside: whatever the task waits for, it waits no longer."""
        self._end(close, what, refusal)
        # If a link is in use, its end continues the task.
        if self._gone is None and self._task is not None:
            self._task.cancel()

    def _end(self, close: Close, what: str, refusal: RemoteError | None = None) -> None:
        if self.ended is not None:
            return
        self.ended = Closed(*close)
        self.ended.refusal = refusal
        self._loss = Loss(what, close, final=True, refusal=refusal)
        self._owner.lost(self._loss)
        self._set("closed")
        self._settle_first()

    def _settle_first(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    async def _finished(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait((self._task,))

    def _set(self, state: State) -> None:
        self.state = state
        self._owner.changed(state)

    def _too_late(self) -> None:
        """Close because the first connection did not open in time."""
        often = f", in {self._attempts} attempts" if self._attempts > 1 else ""
        failure = self._failure
        # A failed attempt explains more than one that is still in progress.
        words, reason = (failure.message, failure.reason) if failure else (self._stage, "no answer")
        seconds = f"{self._options.connect_timeout:g} s"
        opened = verb(failure.code if failure else _LOST)
        how_long = f"within {seconds}" if opened == UNREACHED else f"for {seconds}"
        what = f"{self._dial.where} {opened} {how_long}{often}: {words}"
        self._stop(Close(_LOST, reason, clean=False), what, failure and failure.refusal)
