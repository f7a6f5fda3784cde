"""The terminal, typed into through prompt_toolkit's pipe input."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console
from rich.text import Text

from symphony.cli.connect.completion import CommandCompleter
from symphony.cli.connect.terminal import Terminal

EVENTS = ["said", "say", "sum", "\x1b[2J", "two words"]
ROOMS = ["chat:lobby", "a room"]


class Screen(io.StringIO):
    """Everything that was written to a terminal, escape sequences included."""

    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def write(self, text: str) -> int:
        self._written.set()
        return super().write(text)

    def forget(self) -> None:
        self.seek(0)
        self.truncate()

    async def shows(self, text: str) -> None:
        while text not in self.getvalue():
            self._written.clear()
            await self._written.wait()


class Typist:
    """Types into a terminal, and reads its lines."""

    def __init__(self, terminal: Terminal, send: Callable[[str], None], screen: Screen) -> None:
        self.terminal = terminal
        self.type = send
        self.screen = screen
        self.interrupted = asyncio.Event()

    async def enters(self, keys: str) -> str | None:
        self.type(f"{keys}\r")
        return await self.terminal.read_line()


@asynccontextmanager
async def typing(
    *, history: History | None = None, events: bool = True, drawn: bool = False
) -> AsyncIterator[Typist]:
    """Open a terminal; one that is drawn writes to `Typist.screen`."""
    screen = Screen()
    output = (
        Vt100_Output(screen, lambda: Size(rows=24, columns=80), enable_cpr=False) if drawn else DummyOutput()
    )
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=output):
        terminal = Terminal(Console(file=screen, color_system=None), history or InMemoryHistory())
        typist = Typist(terminal, pipe.send_text, screen)
        completer = CommandCompleter(
            event_names=lambda: EVENTS, room_names=lambda: ROOMS, speaks_events=lambda: events
        )
        async with terminal.open(completer=completer, interrupt=typist.interrupted.set):
            yield typist


async def test_each_line_that_is_entered_is_read_in_order() -> None:
    async with typing() as typist:
        assert await typist.enters("first\rsecond") == "first"
        assert await typist.terminal.read_line() == "second"
        assert await typist.enters("") == ""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("one two\x17", "one "),
        ("one two\x1bb\x0b\x01\x19", "twoone "),
        ("one two\x01\x1bf!", "one! two"),
        ("on\x14", "no"),
        ("one\x1b[D\x1b[3~", "on"),
        ("one\x02\x04", "on"),
        ("hé 日本", "hé 日本"),
    ],
)
async def test_emacs_keys_edit_the_line(keys: str, line: str) -> None:
    async with typing() as typist:
        assert await typist.enters(keys) == line


async def test_ctrl_d_ends_the_input_on_an_empty_line() -> None:
    async with typing() as typist:
        typist.type("\x04")
        assert await typist.terminal.read_line() is None


async def test_ctrl_c_interrupts_and_keeps_the_line() -> None:
    async with typing() as typist:
        typist.type("half\x03")
        await typist.interrupted.wait()
        assert await typist.enters(" a line") == "half a line"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("/em\t", "/emit "),
        ("/he\t", "/help"),
        ("/emit su\t", "/emit sum "),
        ("/req\tsu\t[1]", "/request sum [1]"),
        ("/request sa\t", "/request sa"),
        ("/emit say {\t", "/emit say {"),
        ("/emit two\t", '/emit "two words" '),
        ('/emit "tw\t', '/emit "two words" '),
        ("/close s\t", "/close s"),
        ("/jo\tch\t", "/join chat:lobby "),
        ("/leave a\t", '/leave "a room" '),
        ("/pu\tchat\tsu\t[1]", "/publish chat:lobby sum [1]"),
        ("/publish no\t", "/publish no"),
        ("plain\t", "plain"),
        ("\t", ""),
        ("/request su[1]\x02\x02\x02\t", "/request sum [1]"),
    ],
)
async def test_tab_completes_commands_and_names_of_events(keys: str, line: str) -> None:
    """All keys are there at once, as after typing ahead on a slow connection."""
    async with typing() as typist:
        assert await typist.enters(keys) == line


async def test_a_raw_connection_has_no_completion_for_events() -> None:
    async with typing(events=False) as typist:
        assert await typist.enters("/em\t") == "/em"
        assert await typist.enters("/bi\t00") == "/binary 00"


async def test_pasted_text_stays_on_one_line_without_control_characters() -> None:
    async with typing() as typist:
        pasted = '{\r\n  "a": 1,\r\n\t"b": "x\x1b[2J"\r\n}'
        assert await typist.enters(f"\x1b[200~{pasted}\x1b[201~") == '{ "a": 1, "b": "x[2J" }'


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("\x1b[A", "second"),
        ("\x1b[A\x1b[A\x1b[A", "first"),
        ("\x10\x10\x0e", "second"),
        ("\x1b[A\x1b[B", "new"),
    ],
)
async def test_up_recalls_earlier_lines_and_down_the_new_one(keys: str, line: str) -> None:
    history = InMemoryHistory(["first", "second"])
    async with typing(history=history, drawn=True) as typist:
        typist.type("new")
        await typist.screen.shows("new")
        assert await typist.enters(keys) == line


async def test_a_line_is_added_to_the_history_once() -> None:
    history = InMemoryHistory(["first"])
    async with typing(history=history) as typist:
        for line in ("second", "second", "third"):
            await typist.enters(line)
    assert history.get_strings() == ["first", "second", "third"]


async def test_a_message_appears_above_the_line_that_is_typed() -> None:
    async with typing(drawn=True) as typist:
        typist.terminal.set_prompt("> ")
        await typist.screen.shows("> ")
        typist.type("half")
        await typist.screen.shows("half")
        typist.screen.forget()
        typist.terminal.show(Text("a message"))
        await typist.screen.shows("half")
        shown = typist.screen.getvalue()
        # The line is erased from its start, then the message, then the line again.
        before, _, after = shown.partition("a message\n")
        assert before.startswith("\x1b[6D")
        assert "\x1b[J" in before
        assert "> " in after
        assert await typist.enters(" a line") == "half a line"


async def test_the_prompt_is_erased_at_the_end() -> None:
    async with typing(drawn=True) as typist:
        typist.terminal.set_prompt("> ")
        await typist.screen.shows("> ")
        typist.screen.forget()
    assert "\x1b[J" in typist.screen.getvalue()
    assert ">" not in typist.screen.getvalue()


async def test_the_menu_shows_what_a_command_does() -> None:
    async with typing(drawn=True) as typist:
        typist.type("/")
        await typist.screen.shows("send a request and show its reply")
        assert "\x1b[2J" not in typist.screen.getvalue()


async def test_a_control_character_in_the_line_is_shown_as_an_escape() -> None:
    async with typing(drawn=True) as typist:
        typist.type("\x11\x1b")
        await typist.screen.shows("^[")
