"""Clients of each language, used by a test in one way."""

import asyncio
import json
import re
import sys
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from support.clients import until
from symphony.client import Client, connect
from symphony.errors import DisconnectedError, RemoteError

__all__ = ("Host", "NodeHost", "Outcome", "PythonHost", "Subject")

_SCRIPT = Path(__file__).with_name("client.mjs")


class Outcome(NamedTuple):
    """What came of something that a client was asked for."""

    how: str
    """`"done"`, or the name of the exception."""
    value: Any
    """The reply, a stream's items, or the code of the error."""
    at: float


class Moment(NamedTuple):
    """A state that a client went into."""

    state: str
    at: float


class Subject(ABC):
    """A client under test.

    Attributes:
        moments: Its states since the test last looked, each as it was told.
        heard: The data of the events `greeted` that its handler was called with.
        items: Of all its streams, as they came.
        asked: The tokens that it was given.
        ended: Code and reason of its end for good.
        opened: How its first opening went.
    """

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.heard: list[Any] = []
        self.items: list[Any] = []
        self.asked: list[str] = []
        self.ended: tuple[int, str] | None = None
        self.opened: asyncio.Future[Outcome]

    @abstractmethod
    def emit(self, event: str, data: Any) -> Awaitable[Outcome]: ...

    @abstractmethod
    def request(self, event: str, data: Any, **options: Any) -> asyncio.Future[Outcome]:
        """Begin to ask."""

    @abstractmethod
    def stream(self, event: str, data: Any) -> asyncio.Future[Outcome]:
        """Begin to iterate."""

    @property
    def states(self) -> str:
        """The states, one after the other."""
        return " ".join(moment.state for moment in self.moments)

    async def reach(self, state: str, timeout: float = 10) -> Moment:
        """Wait until it is in a state, that it has gone into since the test last looked."""
        await until(lambda: self.moments and self.moments[-1].state == state, timeout=timeout)
        return self.moments[-1]

    async def meet(self, state: str, timeout: float = 10) -> Moment:
        """Wait until it has been in a state since the test last looked."""
        await until(lambda: self.when(state), timeout=timeout)
        return self.when(state)[0]

    def when(self, state: str) -> list[Moment]:
        return [moment for moment in self.moments if moment.state == state]

    def forget(self) -> None:
        """Look anew."""
        self.moments.clear()

    async def emits(self, event: str, numbers: Sequence[int]) -> None:
        """Emit one after the other; all are taken."""
        for outcome in await asyncio.gather(*(self.emit(event, number) for number in numbers)):
            assert outcome.how == "done"


class Host(ABC):
    """Where clients live."""

    @abstractmethod
    def connect(self, url: str, *, tokens: Sequence[str] = (), **options: Any) -> Subject:
        """Begin to connect a client.

        Args:
            url: Where to.
            tokens: What its token function returns, the last one for ever.
            **options: Of `symphony.connect`.
        """

    async def open(self, url: str, **options: Any) -> Subject:
        """Connect a client."""
        subject = self.connect(url, **options)
        opened = await subject.opened
        assert opened.how == "done", opened
        await subject.reach("open")
        subject.forget()
        return subject

    @abstractmethod
    async def idle(self) -> None:
        """Close nothing, and wait until no client has anything left to do."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all."""


class PythonSubject(Subject):
    def __init__(self, number: int, url: str, tokens: Sequence[str], options: dict[str, Any]) -> None:
        super().__init__()
        self.client: Client
        self._left = list(tokens)
        if tokens:
            options["token"] = self._token
        self.client = connect(url, **options)
        self.client.on_state(self._changed)
        self.client.on("greeted", self.heard.append)
        self.client.on("name", lambda: f"client {number}")
        self.opened = asyncio.ensure_future(_outcome(self._open()))

    async def emit(self, event: str, data: Any) -> Outcome:
        async def emit() -> None:
            # Behind what was begun before.
            await asyncio.sleep(0)
            # Not awaited, as in JavaScript.
            self.client.emit(event, data)

        return await _outcome(emit())

    def request(self, event: str, data: Any, **options: Any) -> asyncio.Future[Outcome]:
        return asyncio.ensure_future(_outcome(self.client.request(event, data, **options)))

    def stream(self, event: str, data: Any) -> asyncio.Future[Outcome]:
        return asyncio.ensure_future(self._stream(event, data))

    def _changed(self, state: str) -> None:
        self.moments.append(Moment(state, time.time()))
        if (closed := self.client.closed) is not None:
            self.ended = closed.code, closed.reason

    def _token(self) -> str:
        token = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        self.asked.append(token)
        return token

    async def _open(self) -> None:
        await self.client

    async def _stream(self, event: str, data: Any) -> Outcome:
        items: list[Any] = []

        async def iterate() -> list[Any]:
            async for item in self.client.stream(event, data):
                items.append(item)
                self.items.append(item)
            return items

        return (await _outcome(iterate()))._replace(value=items)


async def _outcome(doing: Awaitable[Any]) -> Outcome:
    try:
        value = await doing
    except (RemoteError, DisconnectedError) as error:
        return Outcome(type(error).__name__, error.code, time.time())
    except Exception as error:
        return Outcome(type(error).__name__, None, time.time())
    return Outcome("done", value, time.time())


class PythonHost(Host):
    """Clients in the process and the loop of the test."""

    def __init__(self) -> None:
        self._subjects: list[PythonSubject] = []

    def connect(self, url: str, *, tokens: Sequence[str] = (), **options: Any) -> Subject:
        subject = PythonSubject(len(self._subjects), url, tokens, options)
        self._subjects.append(subject)
        return subject

    async def idle(self) -> None:
        folder = str(Path(cast("str", sys.modules[Client.__module__].__file__)).parent)

        def busy() -> list[Any]:
            tasks = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
            return [code for code in tasks if code is not None and code.co_filename.startswith(folder)]

        await until(lambda: not busy())

    async def aclose(self) -> None:
        await asyncio.gather(*(subject.client.close() for subject in self._subjects))
        await asyncio.gather(*(subject.opened for subject in self._subjects))
        await self.idle()


class NodeSubject(Subject):
    def __init__(self, host: "NodeHost", number: int, url: str, options: dict[str, Any]) -> None:
        super().__init__()
        self._host = host
        self._number = number
        self.opened = self.do("connect", url, options)

    def emit(self, event: str, data: Any) -> Awaitable[Outcome]:
        return self.do("emit", event, data)

    def request(self, event: str, data: Any, **options: Any) -> asyncio.Future[Outcome]:
        return self.do("request", event, data, options)

    def stream(self, event: str, data: Any) -> asyncio.Future[Outcome]:
        return self.do("stream", event, data)

    def do(self, verb: str, *args: Any) -> asyncio.Future[Outcome]:
        return self._host.do(self._number, verb, args)

    def take(self, line: dict[str, Any]) -> None:
        """Hear what happened to it."""
        if "state" in line:
            self.moments.append(Moment(line["state"], line["at"]))
            if line["closed"] is not None:
                self.ended = line["closed"]["code"], line["closed"]["reason"]
        for name, log in (("heard", self.heard), ("item", self.items), ("asked", self.asked)):
            if name in line:
                log.append(line[name])


class NodeHost(Host):
    """Clients in a process of Node."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._subjects: list[NodeSubject] = []
        self._doing: list[asyncio.Future[Outcome]] = []
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls) -> "NodeHost":
        limit = 16 * 1024 * 1024
        return cls(
            await asyncio.create_subprocess_exec("node", str(_SCRIPT), stdin=PIPE, stdout=PIPE, limit=limit)
        )

    def connect(self, url: str, *, tokens: Sequence[str] = (), **options: Any) -> Subject:
        given: dict[str, Any] = {_camel(name): value for name, value in options.items()}
        if tokens:
            given["tokens"] = list(tokens)
        subject = NodeSubject(self, len(self._subjects), url, given)
        self._subjects.append(subject)
        return subject

    def do(self, client: int, verb: str, args: Sequence[Any]) -> asyncio.Future[Outcome]:
        """Send a command."""
        assert self._process.stdin is not None
        command = {"do": len(self._doing), "client": client, "verb": verb, "args": args}
        self._doing.append(asyncio.get_running_loop().create_future())
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return self._doing[-1]

    async def idle(self) -> None:
        # Timers and sockets keep it alive, and nothing else does.
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(5):
            await self._reader

    async def aclose(self) -> None:
        try:
            if not self._reader.done():
                await asyncio.wait([subject.do("close") for subject in self._subjects], timeout=5)
                await self.idle()
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        # Also raises what the reader did not like.
        self._reader.result()
        assert self._process.returncode == 0

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            line = json.loads(text)
            if "did" in line:
                # Fails if it was done already: everything ends once.
                self._doing[line["did"]].set_result(Outcome(line["how"], line["value"], line["at"]))
            else:
                self._subjects[line["client"]].take(line)
        await self._process.wait()


def _camel(name: str) -> str:
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)
