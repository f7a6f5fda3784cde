"""What runs at start and stop: hooks of the app, and lifespans of the ASGI apps that answer plain HTTP."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from symphony.tasks import start

__all__ = ("UnmanagedLifespan", "called", "lifespan_of")

logger = logging.getLogger("symphony.app")

Event = MutableMapping[str, Any]

# How long an app may take to be cancelled, in seconds.
_CANCELLING: Final = 1.0


async def called(hook: Callable[[], Any]) -> None:
    """Run a plain or async hook of the app."""
    result = hook()
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def lifespan_of(what: str, app: Any, scope: Event, *, timeout: float) -> AsyncGenerator[None]:
    """Run the lifespan of an ASGI app next to the app's own; an app without one is fine.

    Args:
        what: The app, for messages.
        app: The app.
        scope: The scope of the lifespan.
        timeout: How long the app may take to stop, in seconds.

    Raises:
        RuntimeError: The app failed to start.
    """
    lifespan = _Lifespan(what, app, scope)
    try:
        await lifespan.start()
        try:
            yield
        finally:
            await lifespan.stop(timeout)
    finally:
        await lifespan.end()


class UnmanagedLifespan:
    """A lifespan that no server manages: it lasts until the event loop ends.

    A task enters it, and leaves it when the event loop cancels its tasks. It is
    not left to `shutdown_asyncgens`, which closes one generator at a time: a
    lifespan consists of several.
    """

    def __init__(self, lifespan: AbstractAsyncContextManager[None]) -> None:
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = start(self._run(lifespan))

    @property
    def ended(self) -> bool:
        """Whether it has ended, or failed to start."""
        return self._task.done()

    async def started(self) -> None:
        """Wait until it has started.

        Raises:
            Exception: It failed to start.
        """
        # A client that leaves meanwhile does not stop the start.
        await asyncio.shield(self._started)

    async def _run(self, lifespan: AbstractAsyncContextManager[None]) -> None:
        try:
            async with lifespan:
                self._started.set_result(None)
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._started.cancel()
            raise
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)


class _Lifespan:
    """One app, and the messages exchanged with it."""

    def __init__(self, what: str, app: Any, scope: Event) -> None:
        self._what = what
        self._asked: asyncio.Queue[Event] = asyncio.Queue()
        self._answered: asyncio.Queue[Event] = asyncio.Queue()
        self._has_received = False
        self._supported = False
        self._task = asyncio.ensure_future(self._run(app, dict(scope)))

    async def start(self) -> None:
        """Start the app.

        Raises:
            RuntimeError: It failed to start.
        """
        answer = await self._ask("startup")
        if answer is not None:
            if answer["type"] == "lifespan.startup.failed":
                raise RuntimeError(f"The {self._what} failed to start: {answer.get('message', '')}")
            self._supported = True
            self._task.add_done_callback(self._ended_early)
            return
        error = self._error()
        if error is None:
            return
        # As in uvicorn's mode "auto": an app that raises at once has no lifespan.
        if self._has_received:
            raise RuntimeError(f"The {self._what} failed to start: {error!r}") from error
        logger.info("The %s has no lifespan: it raised %r.", self._what, error)

    async def stop(self, timeout: float) -> None:
        """Stop the app, and log what goes wrong."""
        if not self._supported:
            return
        self._task.remove_done_callback(self._ended_early)
        if self._task.done():
            return
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask("shutdown")
                await asyncio.wait((self._task,))
        except TimeoutError:
            logger.error("The %s did not stop in %.1f s and was cancelled.", self._what, timeout)
            return
        error = self._error()
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("The %s failed to stop: %s", self._what, answer.get("message", ""))
        elif error is not None:
            logger.error("The %s failed to stop.", self._what, exc_info=error)

    async def end(self) -> None:
        """Leave no task behind, unless it ignores its cancellation."""
        self._task.remove_done_callback(self._ended_early)
        self._task.cancel()
        _, left = await asyncio.wait((self._task,), timeout=_CANCELLING)
        if left:
            logger.error("The %s ignored its cancellation and was abandoned.", self._what)
        else:
            self._error()

    async def _run(self, app: Any, scope: Event) -> None:
        await app(scope, self._receive, self._answered.put)

    async def _receive(self) -> Event:
        self._has_received = True
        return await self._asked.get()

    async def _ask(self, phase: str) -> Event | None:
        """Ask for a phase; `None` if the app ends without an answer."""
        await self._asked.put({"type": f"lifespan.{phase}"})
        getter = asyncio.ensure_future(self._answered.get())
        try:
            await asyncio.wait((self._task, getter), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer = getter.result() if getter.done() else None
            getter.cancel()
        return answer

    def _error(self) -> BaseException | None:
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    def _ended_early(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("The lifespan of the %s ended too early.", self._what, exc_info=error)
