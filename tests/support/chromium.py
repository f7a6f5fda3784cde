"""Where Chromium is, and the marks of the tests that need it."""

import os
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")

IN_CHROMIUM = [
    pytest.mark.asyncio(loop_scope="session"),
    # A browser takes its time on a busy machine.
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        not CHROMIUM.exists() and os.environ.get("CI") != "true", reason=f"there is no {CHROMIUM}"
    ),
]
