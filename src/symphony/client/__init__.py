"""The Python client: `symphony.connect`."""

from symphony.client.client import Client
from symphony.client.connecting import connect
from symphony.client.link import Close
from symphony.client.loss import Closed
from symphony.client.pool import Pool
from symphony.client.streams import Stream

__all__ = ("Client", "Close", "Closed", "Pool", "Stream", "connect")
