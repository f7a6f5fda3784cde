"""A terminal: the user types at the bottom, and everything else appears above."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, get_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_completions, has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.bindings.completion import display_completions_like_readline
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console
from rich.text import Text

__all__ = ("Terminal",)

_LINE_ENDINGS: Final = re.compile(r"[ \t]*[\r\n]+[ \t]*|\t")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Terminal:
    """Lines from a prompt of prompt_toolkit; a `LineSource` while it is open.

    Args:
        console: Writes to the same terminal as the prompt.
        history: The lines of earlier sessions.
    """

    def __init__(self, console: Console, history: History) -> None:
        self._console = console
        self._history = history
        self._prompt = ""
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()

    @asynccontextmanager
    async def open(self, *, completer: Completer, interrupt: Callable[[], None]) -> AsyncGenerator[None]:
        """Show the prompt.

        Args:
            completer: Completes the line.
            interrupt: Called when the user presses Ctrl+C, which is a key
                here and not a signal.
        """
        output = get_app_session().output
        if isinstance(output, Vt100_Output):
            # Do not ask where the cursor is: some terminals never answer, and
            # the prompt does not need to know.
            output.enable_cpr = False
        session: PromptSession[str] = PromptSession(
            self._message,
            completer=completer,
            # A menu needs several rows below the line: reserve them for commands only.
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            history=self._history,
            key_bindings=_key_bindings(interrupt),
            enable_suspend=True,
            erase_when_done=True,
        )
        # Use one prompt for all lines. Between two prompts, a message would have no
        # prompt to appear above, and the terminal would echo keys.
        session.default_buffer.accept_handler = self._accept
        reading = asyncio.create_task(self._read(session))
        try:
            with _on_continue(session):
                yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def read_line(self) -> str | None:
        """Return the next line, or `None` after Ctrl+D."""
        return await self._lines.get()

    def show(self, text: Text) -> None:
        """Print text above the prompt."""
        # Not `run_in_terminal` or `patch_stdout`: they let the terminal echo
        # keys while they print, and these would stay in the prompt.
        app = get_app()
        with suppress(OSError):  # the terminal is gone; SIGHUP follows
            app.renderer.erase()
            # The terminal wraps the text, so that a copy of it has no added line breaks.
            self._console.print(text, soft_wrap=True)
        app.invalidate()

    def set_prompt(self, prompt: str) -> None:
        """Change the text before the line."""
        self._prompt = prompt
        get_app().invalidate()

    def _message(self) -> StyleAndTextTuples:
        return [("ansigreen", self._prompt)]

    def _accept(self, buffer: Buffer) -> bool:
        self._lines.put_nowait(buffer.text)
        return False  # Empty the line.

    async def _read(self, session: PromptSession[str]) -> None:
        try:
            await session.prompt_async(set_exception_handler=False, handle_sigint=False)
        except (EOFError, OSError):
            pass  # Ctrl+D, or the terminal is gone
        finally:
            self._lines.put_nowait(None)


def _key_bindings(interrupt: Callable[[], None]) -> KeyBindings:
    """Return the keys that differ from prompt_toolkit's defaults."""

    def on_interrupt(event: KeyPressEvent) -> None:
        interrupt()

    def on_paste(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(_one_line(event.data))

    bindings = KeyBindings()
    at_line = has_focus(DEFAULT_BUFFER)
    bindings.add("c-c", filter=at_line)(on_interrupt)
    # Without a menu, complete at once: prompt_toolkit's own Tab completes in a
    # task, too late if more keys have already arrived.
    bindings.add("tab", filter=at_line & ~has_completions)(display_completions_like_readline)
    bindings.add(Keys.BracketedPaste, filter=at_line)(on_paste)
    return bindings


def _one_line(pasted: str) -> str:
    return _CONTROL.sub("", _LINE_ENDINGS.sub(" ", pasted))


@contextmanager
def _on_continue(session: PromptSession[Any]) -> Generator[None]:
    """Take the terminal over again when the process continues after a stop."""

    def take_over() -> None:
        # A shell sets its own mode when a job stops. Enter raw mode again, and
        # never leave it here: the prompt restores the first mode at its end.
        session.input.raw_mode().__enter__()
        session.app.renderer.erase()
        session.app.invalidate()

    loop = asyncio.get_running_loop()
    # Windows does not stop processes.
    with suppress(AttributeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGCONT, take_over)
    try:
        yield
    finally:
        with suppress(AttributeError, NotImplementedError):
            loop.remove_signal_handler(signal.SIGCONT)
