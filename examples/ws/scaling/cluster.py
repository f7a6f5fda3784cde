"""The demo on two servers that share its rooms through Redis, behind HAProxy.

Start it with `make demo-cluster`, and open the page in two tabs. Then kill a server or Redis.
Whatever has ended is started again, as systemd or Kubernetes would do it. Ctrl+C ends all.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

HERE = Path(__file__).parent
APP = HERE.parents[1] / "demo" / "app.py"

# What is needed besides Symphony, and the packages that have it in Debian and Homebrew.
PROGRAMS = {"redis-server": "redis-server, redis", "haproxy": "haproxy, haproxy"}

PAUSE = 0.5  # seconds before a program that has ended is started again
PATIENCE = 10.0  # seconds that programs have to stop in order


class Cluster:
    """Programs that are started again when they end."""

    def __init__(self) -> None:
        self.running: dict[str, Process] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        """Start a program, and say its process id, which you need to kill it."""
        # In a session of its own: Ctrl+C in the terminal is for this program only.
        self.running[name] = process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **(env or {})},
            stdin=DEVNULL,
            stdout=DEVNULL,
            start_new_session=True,
        )
        print(f"{name}: process {process.pid}", flush=True)

    async def keep(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        """Start a program, and start it again whenever it has ended."""
        await self.start(name, *command, env=env)

        async def again() -> None:
            while True:
                code = await self.running[name].wait()
                print(f"{name} has ended ({code}), and is started again", flush=True)
                await asyncio.sleep(PAUSE)
                await self.start(name, *command, env=env)

        self.tasks.append(asyncio.create_task(again()))

    async def stop(self, names: Sequence[str]) -> None:
        """Stop programs in order, those that need others first."""
        for task in self.tasks:
            task.cancel()
        for name in names:
            process = self.running.get(name)
            if process is not None and process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(PATIENCE):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()


def found(program: str) -> str | None:
    """Return the path of a program; on Debian, HAProxy is where only root looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def answers(url: str) -> None:
    """Wait until a server is ready."""

    def ask() -> bool:
        try:
            with urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    # Nothing tells when another process is ready.
    while not await asyncio.to_thread(ask):  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def serve(port: int, programs: dict[str, str], folder: str) -> None:
    """Run the cluster until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    redis, one, two = free_ports(3)
    cluster = Cluster()
    starting = asyncio.create_task(answers(f"http://127.0.0.1:{port}/_symphony/ready"))
    stopping = asyncio.create_task(stop.wait())
    ports = {"PORT": str(port), "PORT_ONE": str(one), "PORT_TWO": str(two)}
    try:
        # With its file, what was published survives a kill of Redis.
        keeps = ("--appendonly", "yes", "--dir", folder, "--loglevel", "warning")
        options = ("--bind", "127.0.0.1", "--port", str(redis), "--maxmemory-policy", "noeviction", *keeps)
        await cluster.keep("Redis", programs["redis-server"], *options)
        for name, number in (("server one", one), ("server two", two)):
            command = (sys.executable, "-m", "symphony", "run", str(APP), "--proxy-headers")
            options = ("--port", str(number), "--broker", f"redis://127.0.0.1:{redis}")
            await cluster.keep(name, *command, *options)
        await cluster.keep("HAProxy", programs["haproxy"], "-db", "-f", str(HERE / "haproxy.cfg"), env=ports)
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            print(f"The demo is on http://127.0.0.1:{port} (stop it with Ctrl+C)", flush=True)
            print("Open it in two tabs, and kill a process with `kill -9` and its number.", flush=True)
        await stopping
    finally:
        starting.cancel()
        await cluster.stop(("server one", "server two", "HAProxy", "Redis"))


def main() -> int:
    """Look for the programs, and run the cluster."""
    programs = {name: path for name in PROGRAMS if (path := found(name))}
    for name, packages in PROGRAMS.items():
        if name not in programs:
            debian, brew = packages.split(", ")
            print(f"{name} is missing. Install it: apt-get install {debian}, or brew install {brew}.")
    if len(programs) < len(PROGRAMS):
        return 1
    port = int(os.environ.get("PORT", "8080"))
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        print(f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}. Try: make demo-cluster PORT=9000")
        return 1
    with TemporaryDirectory(prefix="symphony-") as folder:
        asyncio.run(serve(port, programs, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
