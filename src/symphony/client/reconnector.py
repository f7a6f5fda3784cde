"""Keeps one client connected: attempts, delays, states and the final close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final, cast

from symphony.client.backoff import ELSEWHERE, Backoff
from symphony.client.greeting import TOO_SLOW, greet
from symphony.client.link import Close, Dial, DialError, Link, Listener
from symphony.client.loss import Closed, Loss, how, sentence
from symphony.client.offering import make_offer
from symphony.client.options import Options
from symphony.client.owner import ConnectionOwner, State
from symphony.client.refusals import UNREACHED, verb
from symphony.client.returning import Returning, advice, is_too_large
from symphony.errors import DisconnectedError, RefusedError, RemoteError
from symphony.tasks import start

__all__ = ("Reconnector",)

logger = logging.getLogger("symphony.client")

_LOST: Final = 1006
_NORMAL: Final = 1000


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
        "_greeting_error",
        "_link",
        "_loss",
        "_opened_at",
        "_openers",
        "_options",
        "_over",
        "_owner",
        "_returning",
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
        self._returning = Returning(options, dial.where, monotonic)
        self._openers = 0
        self._over: list[asyncio.Future[None]] = []
        self._greeting_error: BaseException | None = None
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
        if self._first is None:
            if self.ended is not None:
                raise self.error()
            self._first = asyncio.get_running_loop().create_future()
            self._task = start(self._keep())
        first = self._first
        if not first.done():
            self._openers += 1
            try:
                await asyncio.wait((first,), timeout=self._options.connect_timeout)
            except asyncio.CancelledError:
                # Other tasks may wait for the same connection.
                if self._openers == 1 and not first.done():
                    what = f"connecting to {self._dial.where} was cancelled"
                    self._stop(Close(_NORMAL, "", clean=False), what)
                    self._abort()
                raise
            finally:
                self._openers -= 1
            if not first.done():
                self._too_late()
        if self.ended is not None and self._opened_at is None:
            await self._finished()
            if self._greeting_error is not None:
                raise self._greeting_error
            raise self.error()

    async def wait_closed(self) -> Closed:
        """Wait until the client has closed for good, and return how."""
        while self.ended is None:
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._over.append(over)
            await over
        await self._finished()
        return self.ended

    def drop(self) -> None:
        """Close for good, because the program no longer refers to the client."""
        link = self._link
        what = f"the client of {self._dial.where} was dropped"
        self._stop(Close(_NORMAL, "", clean=False), what, loud=False)
        if link is not None:
            link.close(_NORMAL, "")

    async def close(self, code: int, reason: str) -> None:
        """Close for good, and wait until everything has ended."""
        link = self._link
        what = f"the client of {self._dial.where} is closed"
        self._stop(Close(code, reason, clean=True), what, loud=False)
        if link is not None:
            link.close(code, reason)
        try:
            await self._finished()
        except asyncio.CancelledError:
            if link is not None:
                link.abort()
            raise

    def give_up(self, close: Close) -> bool:
        """Abort the connection, and treat it as closed with *close*; return whether that was needed."""
        if self._link is None or self._verdict is not None:
            return False
        self._verdict = close
        self._link.abort()
        return True

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
        if self.state == "connecting" and not self._owner.greets:
            # The connection was open for a moment, and its close code counts: the dial
            # reports a refusal differently. Nothing was sent.
            self._owner.lost(Loss(what, close, final=False))
            self._set_open()
        opened_at = self._opened_at
        if opened_at is not None and self._backoff.lasted(asyncio.get_running_loop().time() - opened_at):
            self._returning.lasted()
        refusal = self._owner.refusal(close)
        if refusal is not None and refusal.retry_after is not None:
            self._backoff.hint(refusal.retry_after)
        elif refusal.code == "elsewhere" if refusal is not None else close.code == ELSEWHERE:
            self._backoff.elsewhere()
        if not self._returning.after_close(close, refusal):
            why = "a message was above max_message_bytes of symphony.connect(), which you can raise: "
            why = why if is_too_large(close) else ""
            self._end(close, f"{why}the connection to {where} has ended ({how(close)})", refusal)
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
        except asyncio.CancelledError:
            # Not by `_stop`, which ends the client first.
            self._end(
                Close(_LOST, "cancelled", clean=False),
                f"the client of {self._dial.where} was not closed before its event loop ended, or something "
                "has cancelled its task",
            )
            raise
        except BaseException as error:
            logger.exception("The client of %s has failed.", self._dial.where)
            self._end(Close(1011, "", clean=False), f"the client of {self._dial.where} has failed: {error!r}")
            if not isinstance(error, Exception):
                raise

    async def _attempt(self) -> Link:
        self._attempts += 1
        self._stage = "the token function did not return in time"
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                return await self._dial(await make_offer(self._options, self._dial.where, self._take_stage))
        except TimeoutError:
            raise DialError(_LOST, self._stage, reason="no answer", again=True) from None

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
            greeted = not self._owner.greets or await self._greet(self._gone)
            if greeted and not self._gone.done():
                self._owner.opened()
                self._set_open()
            await asyncio.wait((self._gone,))
            await link.wait_closed()
        except BaseException:
            link.abort()
            raise
        finally:
            self._gone = None

    async def _greet(self, gone: asyncio.Future[None]) -> bool:
        """Run `on_open`; return whether the connection may now be used."""
        self._stage = TOO_SLOW
        error = await greet(self._owner, gone, self._options.connect_timeout)
        if gone.done() or self.ended is not None:
            return False
        if error is not None:
            self._ungreeted(error)
        return error is None

    def _ungreeted(self, error: BaseException) -> None:
        """Drop a connection whose `on_open` has failed: the queue must not be sent on it."""
        what = f"on_open of the client of {self._dial.where} has failed: {error!r}"
        refusal = error if isinstance(error, RemoteError) else None
        if self._opened_at is None or (refusal is not None and not refusal.retryable):
            self._greeting_error = error if isinstance(error, Exception) else None
            self._stop(Close(_NORMAL, "on_open has failed", clean=False), what, refusal)
        else:
            logger.error("%s. The client tries again.", what, exc_info=error)
            if refusal is not None and refusal.retry_after is not None:
                self._backoff.hint(refusal.retry_after)
            self._verdict = Close(_LOST, "on_open has failed", clean=False)
        if self._link is not None:
            self._link.close(_NORMAL, "")

    def _set_open(self) -> None:
        self._returning.opened()
        self._opened_at = asyncio.get_running_loop().time()
        self._set("open")
        self._settle_first()

    def _failed(self, failure: DialError) -> None:
        self._failure = failure
        if failure.retry_after is not None:
            self._backoff.hint(failure.retry_after)
        elif failure.refusal is not None and failure.refusal.code == "elsewhere":
            # Not any 421: that of a proxy says nothing about the next attempt.
            self._backoff.elsewhere()
        else:
            self._backoff.unanswered()
        what = f"{self._dial.where} {verb(failure.code)}: {failure.message}"
        if not self._returning.after_failure(failure):
            self._end(Close(failure.code, failure.reason, clean=False), what, failure.refusal)
        else:
            logger.info("%s", what)
            self._set("waiting")

    # Closing

    def _stop(
        self, close: Close, what: str, refusal: RemoteError | None = None, *, loud: bool = True
    ) -> None:
        """End from outside: the task stops waiting at once."""
        self._end(close, what, refusal, loud=loud)
        # If a link is in use, its end continues the task.
        if self._gone is None and self._task is not None:
            self._task.cancel()

    def _abort(self) -> None:
        if self._link is not None:
            self._link.abort()

    def _end(self, close: Close, what: str, refusal: RemoteError | None = None, *, loud: bool = True) -> None:
        if self.ended is not None:
            return
        self.ended = Closed(*close)
        self.ended.refusal = refusal
        self._loss = Loss(what, close, final=True, refusal=refusal)
        self._owner.lost(self._loss)
        self._set("closed")
        self._settle_first()
        for over in self._over:
            if not over.done():
                over.set_result(None)
        # Before the first connection, the caller gets an error instead.
        if loud and self._opened_at is not None:
            level = logging.WARNING if self._options.reconnect else logging.INFO
            said = "%s The client does not reconnect (code %d, reason %r).%s"
            # `symphony connect` reads `final`.
            final = {"final": True}
            logger.log(level, said, sentence(what), close.code, close.reason, advice(close), extra=final)

    def _settle_first(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    async def _finished(self) -> None:
        task = self._task
        # One that is done may be of a loop that has ended.
        if task is not None and not task.done() and task is not asyncio.current_task():
            await asyncio.wait((task,))

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
        self._abort()
