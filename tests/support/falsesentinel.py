"""A sentinel that says what a test wants, also what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis

__all__ = ("FalseSentinel",)


class FalseSentinel:
    """Answers as a sentinel does.

    Attributes:
        port: Where it listens.
        says: Returns the port and the epoch of the master; `None`: it does not know its name.
        answers: Whether it answers at all.
        flags: The flags of the master.
        asked: How often it was asked.
    """

    def __init__(self, says: Callable[[], tuple[int, int] | None]) -> None:
        self.port = 0
        self.says = says
        self.answers = True
        self.flags = "master"
        self.asked = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FalseSentinel:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *of_exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, event: str, text: str) -> None:
        """Tell an event."""
        for writer in self._writers:
            writer.write(packed(["message", event, text]))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.append(task)
        # Also if it is accepted so late that nobody waits for it, and is cancelled with its loop.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while part := await reader.read(65_536):
            commands.feed(part)
            while (command := commands.gets()) is not False:
                if self.answers:
                    writer.write(self._answer([each.decode() for each in command]))
        self._writers.discard(writer)

    def _answer(self, command: list[str]) -> bytes:
        if command[0] in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return b"".join(packed([command[0].lower(), channel, "1"]) for channel in command[1:])
        said = self.says()
        self.asked += command[:2] == ["SENTINEL", "MASTER"]
        if command[:2] == ["SENTINEL", "GET-MASTER-ADDR-BY-NAME"]:
            return b"*-1\r\n" if said is None else packed(["127.0.0.1", str(said[0])])
        if command[:2] == ["SENTINEL", "MASTER"]:
            if said is None:
                return b"-ERR No such master with that name\r\n"
            address = ["ip", "127.0.0.1", "port", str(said[0])]
            return packed(["name", command[2], *address, "flags", self.flags, "config-epoch", str(said[1])])
        return b"+OK\r\n"


def packed(parts: list[str]) -> bytes:
    bulk = [f"${len(part)}\r\n{part}\r\n" for part in parts]
    return f"*{len(bulk)}\r\n{''.join(bulk)}".encode()
