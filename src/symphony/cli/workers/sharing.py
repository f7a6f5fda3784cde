"""The broker of the rooms that workers share: the supervisor serves it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from symphony.broker.engines import MEMORY, check, is_elsewhere, note_of, serve
from symphony.broker.ipc import ServedBroker
from symphony.errors import ConfigurationError
from symphony.limits import Limits
from symphony.node.brokers import BROKER_VARIABLE

__all__ = ("broker_in", "shared_broker", "tell_broker")


def broker_in(folder: Path) -> str:
    """Return the URL of the broker that keeps the rooms in a folder, and make the folder.

    Raises:
        ConfigurationError: It cannot be made, or has a name that no URL can have.
    """
    path = str(folder.resolve() / "rooms.db")
    if "?" in path or "#" in path:
        raise ConfigurationError(f"--data {folder}: the name of the folder must not have ? or #.")
    if folder.is_file():
        raise ConfigurationError(
            f"--data {folder}: this is a file. Name a folder, which will have the rooms."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--data {folder}: {error.strerror}.") from None
    return f"sqlite:///{path}"


def tell_broker(url: str | None) -> None:
    """Tell this process, and those that it starts, which broker to use.

    Raises:
        ConfigurationError: The URL is wrong.
    """
    if url is not None:
        check(url)
        os.environ[BROKER_VARIABLE] = url


@contextmanager
def shared_broker(url: str | None) -> Generator[ServedBroker | None]:
    """Serve a broker to the workers, unless it is in another process anyway.

    It is served in a thread with its own event loop, so nothing that the supervisor
    does delays it.

    Args:
        url: The URL of the broker; `None`: memory.

    Returns:
        The broker, `None`: it is in another process.

    Raises:
        ConfigurationError: The URL is wrong.
    """
    url = url or MEMORY
    check(url)
    if is_elsewhere(url):
        tell_broker(url)
        yield None
        return
    served = serve(url, Limits())
    note = note_of(url)
    try:
        tell_broker(served.url)
        if note is not None:
            # For publishers, which know the file only.
            _write(note, served.url)
        yield served
    finally:
        if note is not None:
            note.unlink(missing_ok=True)
        served.close()


def _write(note: Path, url: str) -> None:
    # The URL may contain a secret.
    note.unlink(missing_ok=True)
    with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(url)
