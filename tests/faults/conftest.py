"""Each test here has a server process to be hard on, and a client of each language."""

import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from faults.hosts import Host, NodeHost, PythonHost
from faults.network import Forwarder
from faults.revenant import Hatchery, Revenant

_CLIENT = Path(__file__).parents[2] / "clients" / "javascript"


@pytest.fixture(scope="session", autouse=True)
def enough_files() -> Iterator[None]:
    """Raise the soft limit of open files: there are up to 500 clients, at both ends of a network."""
    wanted = 4000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def node() -> None:
    """Have what the JavaScript client needs in Node."""
    missing = "there is no node" if shutil.which("node") is None else None
    if missing is None and not (_CLIENT / "node_modules" / "ws").exists():
        missing = "clients/javascript/node_modules is not there, and no npm"
        if shutil.which("npm") is not None:
            command = ["npm", "ci", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=_CLIENT, capture_output=True, text=True, check=False)
            missing = f"npm ci failed: {done.stdout}{done.stderr}" if done.returncode else None
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.fixture(params=["python", "node"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """Where the clients of the test live."""
    if request.param == "node":
        request.getfixturevalue("node")
    host: Host = PythonHost() if request.param == "python" else await NodeHost.start()
    yield host
    await host.aclose()


@pytest.fixture(scope="session")
def hatchery() -> Iterator[Hatchery]:
    """Where servers come from."""
    hatchery = Hatchery()
    yield hatchery
    hatchery.close()


@pytest.fixture
async def server(hatchery: Hatchery, tmp_path: Path) -> AsyncIterator[Revenant]:
    """A server that lives for the first time."""
    server = Revenant(hatchery, tmp_path)
    await server.start()
    yield server
    await server.aclose()


@pytest.fixture
async def network(server: Revenant) -> AsyncIterator[Forwarder]:
    """A network before the server."""
    async with Forwarder(server.port).run() as network:
        yield network
