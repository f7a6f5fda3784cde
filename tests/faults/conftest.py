"""Each test here has a server process to be hard on, and a client of each language."""

import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from faults.hosts import Host, NodeHost, PythonHost
from faults.network import Forwarder
from faults.revenant import Hatchery, Revenant
from support.node import require_node


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
    require_node()


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
