"""One run of `symphony connect`: open, take lines, close."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol

from rich.console import Console
from rich.text import Text

from symphony.cli.connect.completion import completion
from symphony.cli.connect.conversation import Conversation
from symphony.cli.connect.history import History, state_directory
from symphony.cli.connect.lines import Leave, LineError
from symphony.cli.connect.pipes import Pipes
from symphony.cli.connect.screen import Screen
from symphony.cli.connect.settings import Settings, UsageError
from symphony.cli.connect.source import Source, StandardInput
from symphony.cli.connect.view import View
from symphony.cli.connect.watch import Log, Watch
from symphony.cli.connect.words import ended, for_command_line
from symphony.cli.failing import FAILED, USAGE, complain
from symphony.client import Client, connect
from symphony.errors import Disconnected

__all__ = ("run",)
