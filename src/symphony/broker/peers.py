"""The nodes of an app ask one another, over topics of their broker: bounded, and answered in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import Any, Final, cast

import msgspec

from symphony.broker.base import Broker
from symphony.broker.peererrors import is_told, pack_error, unpack_error
from symphony.errors import (
    BrokerUnavailableError,
    DisconnectedError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
    RequestTimeoutError,
    SymphonyError,
)
from symphony.tasks import start

__all__ = ("MAX_ASKED", "Peers")

MAX_ASKED: Final = 10_000
"""How many questions of one node may wait for their answers, and on how many of others it works."""

_ALL: Final = "nodes"
# How often it is looked at whether those that work on a question are still there.
_LOOK: Final = 1.0
# A node that has lost the broker for a moment is not gone.
_MISSES: Final = 2

# What a message is. Each begins with this, the name of its sender, and the number of the question.
_TELL: Final = 0
_ASK: Final = 1
_ANSWER: Final = 2
_ERROR: Final = 3
_WORKING: Final = 4
_CANCEL: Final = 5

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode

Heard = Callable[[str, Any], object]


class _Question:
    """A question that waits for its answers.

    Attributes:
        expected: From how many nodes; `None`: the broker has not said it yet.
        answers: The answers by node.
        errors: The exceptions by node.
        working: The nodes that work on it, and how often each was not found.
        gone: How many nodes have ended while they worked on it.
        done: Set when it needs not to wait any more.
        heard: Called with each answer.
    """

    __slots__ = ("answers", "done", "errors", "expected", "gone", "heard", "working")

    def __init__(self, heard: Heard | None) -> None:
        self.expected: int | None = None
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {}
        self.working: dict[str, int] = {}
        self.gone = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = heard

    @property
    def missing(self) -> int:
        """How many nodes have not answered."""
        return (self.expected or 0) - len(self.answers) - len(self.errors) - self.gone

    def look(self) -> None:
        """Notice if nothing is missing."""
        if self.expected is not None and self.missing <= 0 and not self.done.done():
            self.done.set_result(None)


class Peers:
    """Asks other nodes, and answers them.

    A question goes to one node, or to all others. The broker says how many have got it, so
    that many answers are waited for. A node that has died while it worked on a question is
    not waited for. Questions and answers are passed on at most once: if one is lost, the
    question ends with its timeout.

    Args:
        broker: The broker that the nodes share.
        node: The name of this node.
        report: Called with the exception of a method that failed here, and what it was.

    Attributes:
        node: The name of this node.
        missed: Called if questions that are for all may have been missed, also those that the
            broker keeps for nodes without a connection.
    """

    def __init__(self, broker: Broker, node: str, report: Callable[[BaseException, str], object]) -> None:
        self.missed: Callable[[], object] = list
        self.node = node
        self._broker = broker
        self._report = report
        self._methods: dict[str, Callable[..., Any]] = {}
        self._lasting: set[str] = set()
        self._number = 0
        self._questions: dict[int, _Question] = {}
        # By the node that asks and its number; below 0: what is not cancelled.
        self._work: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._lasts = count(-1, -1)
        self._watching: asyncio.Task[None] | None = None

    async def start(self, *, is_asked: bool = True) -> None:
        """Begin to hear the other nodes.

        Args:
            is_asked: Whether they may ask this one; otherwise it hears their answers only.

        Raises:
            BrokerUnavailableError: The broker cannot be reached.
        """
        await self._broker.listen(_topic(self.node), self._heard)
        if is_asked:
            await self._broker.listen(_ALL, self._heard, lambda: self.missed())

    async def finish(self, *, timeout: float) -> None:
        """Wait for the answers of other nodes, at most for *timeout* seconds, because the app stops."""
        waiting = [question.done for question in self._questions.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)

    def close(self) -> None:
        """Stop, because the app has stopped. What waits is cancelled."""
        for task in tuple(self._work.values()):
            task.cancel()
        if self._watching is not None:
            self._watching.cancel()
        for question in self._questions.values():
            if not question.done.done():
                question.done.set_exception(BrokerUnavailableError("The app has stopped."))
                # It may still wait for the broker instead.
                question.done.exception()

    def offer(self, method: str, function: Callable[..., Any], *, goes_on: bool = False) -> None:
        """Let other nodes call a method.

        Args:
            method: Its name.
            function: Takes plain values, and returns some, or is async. It begins in the
                order in which its node hears the calls.
            goes_on: Whether it goes on when its result is not waited for any more. Otherwise
                it is cancelled.
        """
        self._methods[method] = function
        if goes_on:
            self._lasting.add(method)

    def tell(self, node: str, method: str, *arguments: Any) -> Awaitable[int]:
        """Call a method of one node, at most once, without an answer.

        Returns:
            The result of `Broker.deliver`: 1, or 0 if the node is not there.
        """
        return self._deliver(node, _TELL, 0, method, arguments)

    async def ask(self, node: str, method: str, *arguments: Any, timeout: float) -> Any:
        """Call a method of one node, and return its result.

        Args:
            node: The name of the node.
            method: The method.
            arguments: Its arguments, plain values.
            timeout: How many seconds it may take. Then it is cancelled there.

        Raises:
            Reject: `not_found`: the node is not there.
            DisconnectedError: The node has ended meanwhile.
            RequestTimeoutError: It has not answered in time.
            QueueFullError: Too many questions wait for their answers.
            SymphonyError: What the method has raised, or what the broker does.
        """
        question = _Question(None)
        question.working[node] = 0
        self._watch()
        await self._run(question, node, method, arguments, timeout)
        if not question.expected:
            raise Reject("not_found", "the node is not there")
        if node in question.errors:
            raise question.errors[node]
        if node not in question.answers:
            raise DisconnectedError(f"The node of {method!r} has ended before it answered.")
        return question.answers[node]

    async def ask_all(
        self,
        method: str,
        *arguments: Any,
        timeout: float,
        heard: Heard | None = None,
        keeps: bool = False,
    ) -> list[Any]:
        """Call a method of all other nodes, and return their results.

        A node that ends meanwhile gives none.

        Args:
            method: The method.
            arguments: Its arguments, plain values.
            timeout: How many seconds it may take. Then it is cancelled.
            heard: Called with each node and its result, as soon as it is there.
            keeps: Whether nodes that have lost the broker at this moment are asked, too, as soon as
                they have it again, and waited for.

        Raises:
            RequestTimeoutError: A node has not answered in time. If it *keeps*, it is asked later.
            QueueFullError: Too many questions wait for their answers.
            SymphonyError: What a method has raised, or what the broker does.
        """
        question = _Question(heard)
        await self._run(question, _ALL, method, arguments, timeout, keeps=keeps)
        for error in question.errors.values():
            raise error
        return list(question.answers.values())

    async def _run(
        self,
        question: _Question,
        node: str,
        method: str,
        arguments: Sequence[Any],
        timeout: float,
        *,
        keeps: bool = False,
    ) -> None:
        if len(self._questions) >= MAX_ASKED:
            raise QueueFullError(f"{MAX_ASKED} questions to other nodes wait for their answers.")
        self._number = number = self._number + 1
        self._questions[number] = question
        passed_on = False
        try:
            async with asyncio.timeout(timeout):
                delivered = self._deliver(node, _ASK, number, method, arguments, keeps=keeps)
                passed_on = True
                question.expected = await delivered
                question.look()
                await question.done
        except OutcomeUnknownError:
            raise
        except TimeoutError:
            raise RequestTimeoutError(_silent(question, method, timeout, keeps=keeps)) from None
        finally:
            del self._questions[number]
            # A task that is cancelled cancels what it waits for.
            if passed_on and (not question.done.done() or question.done.cancelled()):
                self._deliver(node, _CANCEL, number)

    def _deliver(self, node: str, *message: Any, keeps: bool = False) -> Awaitable[int]:
        topic = _ALL if node == _ALL else _topic(node)
        return self._broker.deliver(topic, _encode((message[0], self.node, *message[1:])), keeps=keeps)

    def _heard(self, message: bytes) -> None:
        try:
            self._take(*_decode(message))
        except Exception as error:
            self._report(error, "message of another node")

    def _take(self, kind: int, node: str, number: int, *rest: Any) -> None:
        if kind in (_TELL, _ASK):
            method, arguments = rest
            self._called(node, number, method, arguments, is_asked=kind == _ASK)
        elif kind == _CANCEL:
            work = self._work.get((node, number))
            if work is not None:
                work.cancel()
        elif (question := self._questions.get(number)) is not None:
            self._answered(question, kind, node, *rest)

    # The node that asks

    def _answered(self, question: _Question, kind: int, node: str, value: Any = None) -> None:
        if kind == _WORKING:
            question.working[node] = 0
            self._watch()
            return
        question.working.pop(node, None)
        if kind == _ERROR:
            question.errors[node] = unpack_error(value)
        else:
            question.answers[node] = value
            if question.heard is not None:
                question.heard(node, value)
        question.look()

    def _watch(self) -> None:
        """See to it that the end of a node that works on a question is noticed."""
        if self._watching is None or self._watching.done():
            self._watching = start(self._look())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            nodes = {node for question in self._questions.values() for node in question.working}
            if not nodes:
                return
            for node in nodes:
                try:
                    is_there = await self._broker.listeners(_topic(node))
                except SymphonyError:
                    # Without the broker, it is not known.
                    continue
                for question in tuple(self._questions.values()):
                    if node in question.working:
                        self._seen(question, node, is_there=bool(is_there))

    def _seen(self, question: _Question, node: str, *, is_there: bool) -> None:
        misses = question.working[node] = 0 if is_there else question.working[node] + 1
        if misses >= _MISSES:
            del question.working[node]
            question.gone += 1
            question.look()

    # The node that is asked

    def _called(
        self, node: str, number: int, method: str, arguments: Sequence[Any], *, is_asked: bool
    ) -> None:
        try:
            function = self._methods.get(method)
            if function is None:
                # During a restart, nodes with older code may be there.
                raise Reject("not_found", f"the node does not know {method!r}")
            result = function(*arguments)
            if isinstance(result, Coroutine) and len(self._work) >= MAX_ASKED:
                cast("Coroutine[Any, Any, Any]", result).close()
                raise QueueFullError(f"A node works on {MAX_ASKED} questions of others already.")
        except Exception as error:
            self._fail(node, number, method, error, is_asked=is_asked)
            return
        if isinstance(result, Coroutine):
            work = cast("Coroutine[Any, Any, Any]", result)
            key = node, number if is_asked and method not in self._lasting else next(self._lasts)
            task = self._work[key] = start(self._finish(node, number, method, work, is_asked=is_asked))
            task.add_done_callback(lambda _: self._work.pop(key, None))
            # Cancelled before its first step, it would complain that it was never awaited.
            task.add_done_callback(lambda _: work.close())
            if is_asked:
                self._deliver(node, _WORKING, number)
        elif is_asked:
            self._answer(node, number, method, result)

    async def _finish(
        self, node: str, number: int, method: str, result: Coroutine[Any, Any, Any], *, is_asked: bool
    ) -> None:
        try:
            value = await result
        except Exception as error:
            self._fail(node, number, method, error, is_asked=is_asked)
        else:
            if is_asked:
                self._answer(node, number, method, value)

    def _answer(self, node: str, number: int, method: str, value: Any) -> None:
        try:
            delivered = self._deliver(node, _ANSWER, number, value)
        except Exception as error:
            # It cannot be encoded.
            self._fail(node, number, method, error, is_asked=True)
            return

        def sent(delivered: asyncio.Future[int]) -> None:
            error = None if delivered.cancelled() else delivered.exception()
            if isinstance(error, MessageTooLargeError):
                self._fail(node, number, method, error, is_asked=True)

        if isinstance(delivered, asyncio.Future):
            delivered.add_done_callback(sent)

    def _fail(self, node: str, number: int, method: str, error: Exception, *, is_asked: bool) -> None:
        if not is_asked or not is_told(error):
            self._report(error, f"{method} for another node")
        if is_asked:
            self._deliver(node, _ERROR, number, pack_error(error))


def _topic(node: str) -> str:
    return f"node:{node}"


def _silent(question: _Question, method: str, timeout: float, *, keeps: bool) -> str:
    if question.expected is None:
        return f"The broker did not pass on {method!r} within {timeout:g} s."
    text = f"{question.missing} of {question.expected} nodes did not answer {method!r} within {timeout:g} s."
    return f"{text} They do it as soon as they respond, or have the broker again." if keeps else text
