"""The JavaScript client: its types hold, and its own tests pass, in Node."""

import os
import shutil
import subprocess

import pytest

from support.pages import ROOT

CLIENT = ROOT / "clients" / "javascript"
LOCK = CLIENT / "package-lock.json"
INSTALLED = CLIENT / "node_modules" / ".package-lock.json"

# What npm fetches, and what the tests start, takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)


def npm(*arguments: str) -> None:
    """Run npm in the client's folder; fail with all that it said."""
    done = subprocess.run(
        ["npm", *arguments],
        cwd=CLIENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"npm {' '.join(arguments)} failed:\n{done.stdout}", pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Install what the lock says, unless that was done since it was written."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        reason = f"there is no {' and no '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        npm("ci", "--no-audit", "--no-fund")


def test_its_types_hold() -> None:
    npm("run", "--silent", "check")


def test_its_own_tests_pass() -> None:
    npm("test", "--silent")


def test_what_is_published_comes_with_its_types() -> None:
    listed = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"], cwd=CLIENT, capture_output=True, text=True, check=True
    ).stdout
    assert '"symphony.js"' in listed
    assert '"msgpack.js"' in listed
    assert '"types/symphony.d.ts"' in listed
    assert '"types/msgpack.d.ts"' in listed
