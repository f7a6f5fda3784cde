"""Symphony: the real-time framework for Python."""

from symphony.app import Symphony
from symphony.broker.base import History
from symphony.client import Client, connect
from symphony.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    DisconnectedError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    RefusedError,
    Reject,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
    WrongRouteError,
    WrongThreadError,
)
from symphony.handshake import Handshake
from symphony.identity import Identity
from symphony.limits import Limits
from symphony.plugin import Plugin
from symphony.protocol.envelopes import Event, Protocol
from symphony.protocol.positions import Position
from symphony.rooms.leave import Leave
from symphony.rooms.listener import Publications
from symphony.rooms.members import Member, Presence
from symphony.rooms.policy import Rooms
from symphony.rooms.publishing import Publication
from symphony.rooms.room import Room
from symphony.rooms.target import Target
from symphony.router import Router
from symphony.routing.markers import Depends, Query
from symphony.routing.middleware import CallNext
from symphony.routing.route import Route
from symphony.socket import Socket
from symphony.stats import Stats
from symphony.targets import SocketTarget
from symphony.transport.base import Close
from symphony.users import User, Users

__all__ = (
    "BrokerUnavailableError",
    "CallNext",
    "Client",
    "Close",
    "ConfigurationError",
    "Depends",
    "DisconnectedError",
    "Event",
    "Handshake",
    "History",
    "Identity",
    "Leave",
    "Limits",
    "Member",
    "MessageTooLargeError",
    "OutcomeUnknownError",
    "Plugin",
    "Position",
    "Presence",
    "Protocol",
    "Publication",
    "Publications",
    "Query",
    "QueueFullError",
    "RefusedError",
    "Reject",
    "RemoteError",
    "RequestTimeoutError",
    "Room",
    "Rooms",
    "Route",
    "Router",
    "Socket",
    "SocketTarget",
    "Stats",
    "Symphony",
    "SymphonyError",
    "Target",
    "User",
    "Users",
    "WrongRouteError",
    "WrongThreadError",
    "connect",
)
