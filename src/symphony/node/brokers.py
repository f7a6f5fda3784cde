"""The broker of a running app: which one it is, and what happens when it has gone."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

from symphony.broker.base import Broker
from symphony.broker.engines import MEMORY, is_elsewhere, is_in_memory, open_broker
from symphony.broker.links import Dial
from symphony.broker.remote import RemoteBroker
from symphony.limits import Limits

__all__ = ("BROKER_VARIABLE", "DIAL", "broker_url", "opened_broker")

logger = logging.getLogger("symphony.app")

BROKER_VARIABLE: Final = "SYMPHONY_BROKER"
"""The environment variable with the URL of the broker, for apps that name none."""

DIAL: Final[ContextVar[Dial | None]] = ContextVar("DIAL", default=None)
"""Connects a node of a simulated cluster to its broker, whatever the URL of the app's."""


def broker_url(named: str | None) -> str:
    """Return the URL of the broker of an app that names this one, or none."""
    return named or os.environ.get(BROKER_VARIABLE) or MEMORY


@asynccontextmanager
async def opened_broker(
    url: str | None, limits: Limits, *, keeps_history: bool
) -> AsyncGenerator[Broker | None]:
    """Connect to the broker of an app, and close it at the end of the block.

    Args:
        url: Its URL; `None`: that of the environment.
        limits: The limits of the app.
        keeps_history: Whether the app has rooms with a history.

    Returns:
        The broker; `None` if there is nothing to keep, and no other process.

    Raises:
        ConfigurationError: The URL is wrong.
        BrokerUnavailableError: The broker cannot be reached.
    """
    if (dial := DIAL.get()) is not None:
        broker = await _connected(dial, limits)
        try:
            yield broker
        finally:
            broker.close()
        return
    if url is not None and is_in_memory(url) and is_elsewhere(os.environ.get(BROKER_VARIABLE, "")):
        logger.warning(
            "The app names broker='memory://', so each worker has its own rooms, and their members do not "
            "hear those at other workers. Leave broker= out: the workers then share the broker of the server."
        )
    url = broker_url(url)
    if is_in_memory(url) and not keeps_history:
        yield None
        return
    broker = await open_broker(url, limits, ended=_stop)
    try:
        yield broker
    finally:
        broker.close()


async def _connected(dial: Dial, limits: Limits) -> Broker:
    broker = RemoteBroker(
        dial,
        timeout=limits.publish_timeout,
        max_calls=limits.max_broker_calls,
        max_bytes=limits.max_broker_bytes,
    )
    await broker.connect()
    return broker


def _stop() -> None:
    """Stop the server: a worker does not outlive its supervisor, in which the broker is."""
    logger.critical("The broker of the rooms has gone with its process: the server stops.")
    signal.raise_signal(signal.SIGTERM)
