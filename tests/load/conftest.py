"""Many connections and hard faults: each test under a minute, the server in its own process."""

import resource

import pytest


@pytest.fixture(autouse=True, scope="session")
def many_files() -> None:
    """Raise the soft limit of open files; the server process inherits it."""
    wanted = 12_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"a process may open {hard} files here, and this needs {wanted}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
