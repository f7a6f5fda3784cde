"""What the JavaScript client needs in Node."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ("CLIENT", "require_node")

CLIENT = Path(__file__).parents[2] / "clients" / "javascript"

_LOCK = CLIENT / "package-lock.json"
_INSTALLED = CLIENT / "node_modules" / ".package-lock.json"
_INSTALL = ("npm", "ci", "--no-audit", "--no-fund")


def require_node() -> None:
    """Install what the lock says, unless that was done since it was written; if that cannot be, skip."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    reason = f"there is no {' and no '.join(missing)}" if missing else _install()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _install() -> str | None:
    # One process at a time: the tests run in several.
    with _LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= _LOCK.stat().st_mtime:
            return None
        done = subprocess.run(_INSTALL, cwd=CLIENT, capture_output=True, text=True, check=False)
        return f"npm ci failed: {done.stdout}{done.stderr}" if done.returncode else None
