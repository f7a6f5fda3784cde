"""The Python client: `symphony.connect`."""

from symphony.client.arrivals import Publication
from symphony.client.client import Client
from symphony.client.connecting import connect
from symphony.client.link import Close
from symphony.client.loss import Closed
from symphony.client.pool import Pool
from symphony.client.presence import RoomPresence
from symphony.client.room import Room
from symphony.client.streams import Stream
from symphony.protocol.positions import Position

__all__ = (
    "Client",
    "Close",
    "Closed",
    "Pool",
    "Position",
    "Publication",
    "Room",
    "RoomPresence",
    "Stream",
    "connect",
)
