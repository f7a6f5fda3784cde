"""The examples: as a module, served by the test, and as a process."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from support import servers
from support.process import Running, start

__all__ = ("EXAMPLES", "load", "running", "served")

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Import an example anew, so that each test has an app of its own."""
    spec = spec_from_file_location(f"example_{Path(name).stem}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Where its annotations are looked up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def running(name: str) -> AsyncIterator[Running]:
    """Run an example as its reader does, on a free port."""
    async with start(EXAMPLES / name, env={"PORT": "0"}) as process:
        yield process


@asynccontextmanager
async def served(name: str) -> AsyncIterator[str]:
    """Serve an example from the test's own process, which takes a tenth of the time; give its URL."""
    async with servers.serve_natively(load(name).app) as url:
        yield url
