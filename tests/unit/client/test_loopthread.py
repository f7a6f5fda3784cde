"""The thread of a blocking client."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from symphony.client import loopthread
from symphony.client.loopthread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("ws://here/")
    yield thread
    thread.stop()
    thread._thread.join()


class Busy:
    """A call that takes a while to be cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.may_end = threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await asyncio.to_thread(self.may_end.wait)

    def begin(self, thread: LoopThread) -> threading.Thread:
        caller = threading.Thread(target=self._wait, args=(thread,))
        caller.start()
        self.begun.wait()
        return caller

    def _wait(self, thread: LoopThread) -> None:
        with pytest.raises(RuntimeError, match="closed by another thread"):
            thread.wait(self)


async def answer() -> int:
    return 42


def test_a_call_waits_for_its_result(thread: LoopThread) -> None:
    assert thread.wait(answer) == 42


@pytest.mark.parametrize("callers", [1, 3, 20])
def test_a_call_ends_with_the_loop(callers: int, thread: LoopThread) -> None:
    calls = [Busy() for _ in range(callers)]
    waiting = [call.begin(thread) for call in calls]
    for call in calls:
        call.may_end.set()
    thread.stop()
    for each in waiting:
        each.join()


@pytest.mark.parametrize("when", ["while it ends", "afterwards"])
def test_a_late_call_is_refused(when: str, thread: LoopThread) -> None:
    """The loop takes calls until it is closed, but runs none of them any more: such a call never returned."""
    busy = Busy()
    waiting = busy.begin(thread)
    thread.stop(wait=False)
    busy.cancelled.wait()
    if when == "afterwards":
        busy.may_end.set()
        thread._thread.join()
    with pytest.raises(RuntimeError, match="closed by another thread"):
        thread.wait(answer)
    busy.may_end.set()
    waiting.join()


@pytest.mark.within("client.loopthread._STOP_TIMEOUT")
def test_stopping_waits_for_the_thread(thread: LoopThread, caplog: pytest.LogCaptureFixture) -> None:
    busy = Busy()
    waiting = busy.begin(thread)
    busy.may_end.set()
    thread.stop()
    assert not thread._thread.is_alive()
    assert caplog.records == []
    waiting.join()


@pytest.mark.beyond("client.loopthread._STOP_TIMEOUT")
@pytest.mark.parametrize("what", ["a task", "the executor"])
def test_stopping_waits_a_bounded_time(
    what: str, thread: LoopThread, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopthread, "_STOP_TIMEOUT", 0.1)
    busy = Busy()
    if what == "the executor":
        # As a DNS lookup.
        lookup = busy.may_end.wait
        waiting = threading.Thread()
        waiting.start()

        async def begin() -> None:
            asyncio.get_running_loop().run_in_executor(None, lookup)

        thread.wait(begin)
    else:
        waiting = busy.begin(thread)
    thread.stop()
    assert thread._thread.is_alive()
    assert caplog.record_tuples == [
        (
            "symphony.client",
            logging.WARNING,
            "The thread of the client of ws://here/ did not end in 0.1 s and is left running. "
            "It waits for a DNS lookup, or for a callback of the program, such as token=.",
        )
    ]
    busy.may_end.set()
    waiting.join()


def test_stopping_twice_does_nothing(thread: LoopThread) -> None:
    thread.stop()
    thread.stop()
