"""A link over a WebSocket, after its opening handshake.

picows parses incoming frames (`parser.py`). Outgoing frames are built here, and
written in one `write` for each iteration of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from symphony.client.frames import Compressor, masked_frame, masked_message
from symphony.client.heartbeat import Heartbeat
from symphony.client.link import Close, Listener
from symphony.errors import ProtocolError
from symphony.websocket import frames
from symphony.websocket.assembler import Assembler
from symphony.websocket.deflate import max_compressed_bytes
from symphony.websocket.frames import close_reason, parse_close
from symphony.websocket.parser import Parser, assemble
from symphony.websocket.queued import Queued
from symphony.websocket.turn import BRIEF, Turn

__all__ = ("WebSocketLink",)

logger = logging.getLogger("symphony.client")

TEXT = WSMsgType.TEXT
BINARY = WSMsgType.BINARY
PING = WSMsgType.PING
PONG = WSMsgType.PONG
CLOSE = WSMsgType.CLOSE

_HIGH_WATER_BYTES: Final = 64 * 1024
# How much one read, and one turn of the loop, may delay the rest of the program.
_TURN_FRAMES: Final = 256
_TURN_SECONDS: Final = 0.005
_ABNORMAL: Final = 1006
_NO_STATUS: Final = 1005


class WebSocketLink(WSListener, asyncio.BufferedProtocol):
    """One open WebSocket: protocol of the event loop, listener of picows, `Link` of a client.

    Args:
        transport: The transport of the event loop, with reading paused.
        early: The bytes received after the handshake response.
        subprotocol: The chosen subprotocol.
        heartbeat: Seconds of silence before a ping; `None`: no pings.
        max_message_bytes: The size limit of an incoming message.
        close_timeout: How long the server may take to answer a close frame.
        compressor: Makes the frames if compression was negotiated.
    """

    __slots__ = (
        *("_assembler", "_blocked", "_close_timeout", "_compressed", "_early", "_ended", "_frame"),
        *("_gone", "_heartbeat", "_late_pong", "_listener", "_loop", "_max_message_bytes", "_ours"),
        *("_parser", "_pulse", "_receiving", "_timer", "_transport", "_turn", "_unwritten"),
        *("_unwritten_bytes", "get_buffer", "heard_at", "subprotocol"),
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        early: bytes,
        *,
        subprotocol: str | None,
        heartbeat: float | None,
        max_message_bytes: int,
        close_timeout: float,
        compressor: Compressor | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._early = early
        self.subprotocol: str | None = subprotocol
        self._pulse = heartbeat
        self._max_message_bytes = max_message_bytes
        self._close_timeout = close_timeout
        self._listener: Listener | None = None
        self._parser: Parser | None = None
        # With compression, every data frame goes to it.
        self._compressed = compressor is not None
        self._assembler = Assembler(max_message_bytes, deflate=True) if self._compressed else None
        self._frame: Callable[[str | bytes], bytes] = compressor or masked_message
        self._heartbeat: Heartbeat | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ours: Close | None = None
        self._late_pong: bytes | None = None
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._blocked = self._receiving = self._ended = False
        self._turn = Turn(transport, self)
        self._turn.configure(max_frames=_TURN_FRAMES, max_seconds=_TURN_SECONDS, queued=Queued(0))
        self._gone: asyncio.Future[None] | None = None
        self.heard_at = self._loop.time()

    def start(self, listener: Listener) -> None:
        """Begin to receive frames."""
        self._listener = listener
        self._receiving = True
        transport = self._transport
        # If it was lost after the handshake, no other call reports it.
        if transport.is_closing():
            self._loop.call_soon(self.connection_lost, None)
            return
        # Set the limits first: a full buffer is reported only to the protocol that is set
        # when it fills.
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        limit = self._max_message_bytes
        if self._compressed:
            # A message that cannot be compressed becomes slightly larger.
            limit = max_compressed_bytes(limit)
        self._parser = parser = Parser(self, max_frame_bytes=limit, broken=self._broken, is_client=True)
        self.get_buffer = cast("Any", parser.get_buffer)
        transport.set_protocol(self)
        if self._pulse is not None:
            self._heartbeat = Heartbeat(self, self._pulse)
        if not self.held:
            transport.resume_reading()
        early, self._early = self._early, b""
        if early:
            parser.feed(early)

    # Incoming

    def buffer_updated(self, nbytes: int) -> None:
        """Parse received bytes. Any byte is a sign of life, because large frames take long."""
        self.heard_at = self._loop.time()
        if self._parser is not None:
            self._parser.buffer_updated(nbytes)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one frame from picows; its payload must be copied before this returns."""
        turn = self._turn
        turn.count = count = turn.count + 1
        if count == 1:
            turn.began = monotonic()
        if count > turn.look_at and turn.keeps(frame):
            return
        kind = frame.msg_type
        try:
            if (
                (kind is TEXT or kind is BINARY)
                and frame.fin
                and self._receiving
                and self._assembler is None
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                if kind is BINARY:
                    self._deliver(frame.get_payload_as_bytes())
                else:
                    self._deliver(frame.get_payload_as_utf8_text())
            else:
                self._unusual_frame(kind, frame)
        except UnicodeDecodeError:
            self._fail(1007, "a text message that is not UTF-8")
        except ProtocolError as error:
            self._fail(error.code, error.reason)
        except Exception:
            # picows would swallow the exception.
            logger.exception("A message could not be processed; closing the connection.")
            self._fail(1011, "the client failed")
        if frame.last_in_buffer:
            turn.count = 0
            seconds = monotonic() - turn.began
            if seconds > BRIEF:
                turn.rest(seconds, count)
            elif turn.look_at > turn.stride:
                turn.look_at = turn.stride

    def turn_over(self, seconds: float, frames: int) -> None:
        """Do nothing: what is sent leaves at the end of the turn of the loop."""

    def _deliver(self, message: str | bytes) -> None:
        if self._listener is not None:
            self._listener.received(message)

    def _unusual_frame(self, kind: WSMsgType, frame: WSFrame) -> None:
        # After our close frame, only the server's close frame matters.
        if self._ended or not (self._receiving or kind is CLOSE):
            return
        if kind is TEXT or kind is BINARY or kind is WSMsgType.CONTINUATION:
            self._fragment(frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise ProtocolError(1002, "a control frame with RSV bits")
        elif kind is PING:
            # If the peer does not read, answer only its latest ping (RFC 6455 §5.5.3), or
            # pongs would pile up here.
            pong = masked_frame(frames.PONG, frame.get_payload_as_bytes())
            if self._blocked:
                self._late_pong = pong
            else:
                self._put(pong)
        elif kind is CLOSE:
            self._take_close(*parse_close(frame.get_payload_as_bytes()))

    def _fragment(self, frame: WSFrame) -> None:
        assembler = self._assembler
        if assembler is None:
            self._assembler = assembler = Assembler(self._max_message_bytes, deflate=False)
        message = assemble(assembler, frame)
        if not assembler.active and not self._compressed:
            self._assembler = None
        if message is not None:
            self._deliver(message)

    def _broken(self, code: int, reason: str) -> None:
        # picows parses one frame ahead: the frame before the malformed one is not
        # delivered yet, so fail after it.
        self._turn.end(partial(self._fail, code, reason))

    def pause_reading(self) -> None:
        """Stop reading, so that TCP slows the server down."""
        if self._parser is None or self._receiving:
            self._turn.pause()

    def resume_reading(self) -> None:
        """Resume reading."""
        # Nothing could arrive while reading was paused.
        self.heard_at = self._loop.time()
        if self._parser is not None:
            self._turn.resume()
        else:
            self._turn.held = False

    @property
    def held(self) -> bool:
        """Whether reading is paused."""
        return self._turn.held

    # Outgoing

    @property
    def congested(self) -> bool:
        """Whether the transport's buffer is above its limit."""
        return self._blocked

    @property
    def unsent(self) -> int:
        """The bytes that are not sent yet."""
        return self._transport.get_write_buffer_size() + self._unwritten_bytes

    def send(self, message: str | bytes) -> None:
        """Send a message after all others."""
        self._put(self._frame(message))

    def ping(self) -> None:
        """Send a ping; any received byte counts as its answer."""
        self._put(masked_frame(frames.PING, b""))
        # Flush now, so that `unsent` counts only bytes that the network has not accepted.
        self._flush()

    def _put(self, frame: bytes) -> None:
        if self._ended or self._ours is not None:
            return
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(frame)
        self._unwritten_bytes += len(frame)
        if self._unwritten_bytes >= _HIGH_WATER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._unwritten:
            return
        block = self._unwritten[0] if len(self._unwritten) == 1 else b"".join(self._unwritten)
        self._unwritten.clear()
        self._unwritten_bytes = 0
        if not self._transport.is_closing():
            self._transport.write(block)

    def pause_writing(self) -> None:
        """Note that the transport is congested."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Let the client continue to send."""
        # Not in this call: if a write failed here, asyncio would report the connection as
        # lost twice.
        self._loop.call_soon(self._send_again)

    def _send_again(self) -> None:
        if self._ended:
            return
        self._blocked = False
        if self._late_pong is not None:
            self._put(self._late_pong)
            self._late_pong = None
        if self._listener is not None:
            self._listener.relieved()

    # Closing

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the server's."""
        if self._ours is not None or self._ended:
            return
        self._say_goodbye(code, reason)
        self._receiving = False
        self._stop_heartbeat()
        if self.held:
            self.resume_reading()
        self._abort_later()

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        if self._listener is None and not self._ended:
            # It never started: the current protocol does not know this link.
            self._loop.call_soon(self.connection_lost, None)
        self._transport.abort()

    def silent(self) -> None:
        """Close the connection to a server that does not answer."""
        self._tell(Close(_ABNORMAL, "the server does not answer", clean=False))
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport is closed."""
        if self._gone is None:
            self._gone = self._loop.create_future()
        await asyncio.wait((self._gone,))

    def _say_goodbye(self, code: int, reason: str) -> None:
        payload = b"" if code == _NO_STATUS else code.to_bytes(2, "big") + close_reason(reason).encode()
        self._put(masked_frame(frames.CLOSE, payload))
        self._flush()
        self._ours = Close(code, reason, clean=False)

    def _take_close(self, code: int, reason: str) -> None:
        if self._ours is None:
            self._say_goodbye(code, "")
            close = Close(code, reason, clean=True)
        else:
            close = self._ours._replace(clean=True)
        self._finish(close)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 §7.1.7): the server broke the protocol."""
        if self._ended:
            return
        if self._ours is None:
            self._say_goodbye(code, reason)
        self._finish(Close(code, reason, clean=False))

    def _finish(self, close: Close) -> None:
        self._tell(close)
        self._transport.close()
        # The transport still writes its buffer, if the peer reads it in time.
        self._abort_later()

    def _tell(self, close: Close) -> None:
        self._ended = True
        self._receiving = False
        self._stop_heartbeat()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.closed(close)

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def _abort_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._close_timeout, self._transport.abort)

    def eof_received(self) -> bool:
        """Let the transport write its buffer and then close itself."""
        self._abort_later()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener, unless it was already told."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ours is not None:
            close = self._ours
        else:
            reason = str(exc) if exc is not None else "the server ended the connection without a close frame"
            close = Close(_ABNORMAL, reason, clean=False)
        self._tell(close)
        if self._gone is None:
            self._gone = self._loop.create_future()
        if not self._gone.done():
            self._gone.set_result(None)
        # Break the reference cycles with these objects, so that this one is freed at once,
        # without the garbage collector.
        self._parser = self._assembler = None
        self._turn.release()
        self.get_buffer = cast("Any", None)
