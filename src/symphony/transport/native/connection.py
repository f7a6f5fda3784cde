"""Hot path, step 1 of 5: a frame from the network becomes a message.

An unfragmented, uncompressed message is handled in `on_ws_frame` itself. All
other frames take a slower path. `opening.py` and `ending.py` contain the code
for opening and closing a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from symphony.errors import ProtocolError
from symphony.outgoing.encoding import Encoding
from symphony.outgoing.outbox import Outbox
from symphony.transport.base import Acceptor, Profile, Receiver, Scope
from symphony.transport.heartbeat import Heartbeat
from symphony.transport.native.encoding import PLAIN, deflated
from symphony.transport.native.ending import Ending
from symphony.transport.native.reading import Reading
from symphony.transport.native.timing import held_loop
from symphony.websocket import frames
from symphony.websocket.assembler import Assembler
from symphony.websocket.deflate import max_compressed_bytes, negotiate
from symphony.websocket.handshake import http_response, switching_protocols
from symphony.websocket.turn import BRIEF, Turn

if TYPE_CHECKING:
    from symphony.stats import Stats
    from symphony.transport.native.crowd import Place
    from symphony.transport.native.opening import Opening
    from symphony.websocket.deflate import Deflate

__all__ = ("NativeConnection",)

TEXT = WSMsgType.TEXT
BINARY = WSMsgType.BINARY
PING = WSMsgType.PING
PONG = WSMsgType.PONG
CLOSE = WSMsgType.CLOSE

_HIGH_WATER_BYTES = 64 * 1024


class NativeConnection(WSListener, asyncio.BufferedProtocol):
    """One WebSocket connection: an asyncio protocol and a picows listener.

    Args:
        transport: The transport of the event loop.
        key: The handshake's `Sec-WebSocket-Key`.
        extensions: The handshake's `Sec-WebSocket-Extensions` lines.
        opening: The protocol that is used until `accept`.
        stats: The counters of the node.
    """

    __slots__ = (
        *(
            "_assembler",
            "_blocked_at",
            "_deflate",
            "_ending",
            "_extensions",
            "_heartbeat",
            "_key",
            "_late_pong",
        ),
        *("_limits", "_opening", "_queued", "_reading", "_received", "_receiving", "_slow_after", "_stats"),
        *("_transport", "_turn"),
        *("buffer_updated", "encoding", "get_buffer", "message_at", "outbox", "place", "session"),
    )

    def __init__(
        self, transport: asyncio.Transport, key: str, extensions: list[str], opening: Opening, stats: Stats
    ) -> None:
        self._transport = transport
        self._key = key
        self._extensions = extensions
        self._opening: Opening | None = opening
        self._stats = stats
        self._reading: Reading = cast("Any", None)
        self._assembler: Assembler | None = None
        self._deflate: Deflate | None = None
        self._heartbeat: Heartbeat | None = None
        self._late_pong: bytes | None = None
        self._turn = Turn(transport, self)
        self._receiving = False
        self.message_at = self._blocked_at = 0.0
        self.encoding: Encoding = PLAIN
        self.outbox = Outbox(asyncio.get_running_loop(), transport.write, PLAIN.join)
        self.session: Receiver | None = None
        self.place: Place | None = None
        self._ending = Ending(transport, self.outbox)

    # Incoming frames

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one frame from picows, which is only valid until this returns."""
        turn = self._turn
        turn.count = count = turn.count + 1
        if count == 1:
            self.outbox.corked = True
            turn.began = monotonic()
        if count > turn.look_at and turn.keeps(frame):
            return
        kind = frame.msg_type
        if (
            (kind is TEXT or kind is BINARY)
            and frame.fin
            and self._receiving
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            and self._assembler is None
        ):
            self.message_at = turn.began
            received = self._received
            if kind is TEXT:
                try:
                    message = frame.get_payload_as_utf8_text()
                except UnicodeDecodeError:
                    self.fail(1007, "a text message that is not UTF-8")
                else:
                    received(message)
            else:
                received(frame.get_payload_as_bytes())
        else:
            self._unusual_frame(kind, frame)
        if frame.last_in_buffer:
            turn.count = 0
            self.outbox.flush()
            seconds = monotonic() - turn.began
            if seconds > BRIEF:
                turn.rest(seconds, count)
                if seconds > self._slow_after:
                    self._held_loop(seconds, count, frame)
            elif turn.look_at > turn.stride:
                turn.look_at = turn.stride

    def turn_over(self, seconds: float, frames: int) -> None:
        """Flush what was sent while *frames* frames were handled, in *seconds*."""
        self.outbox.flush()
        if seconds > self._slow_after:
            self._held_loop(seconds, frames, None)

    def _held_loop(self, seconds: float, frames: int, frame: WSFrame | None) -> None:
        if self.session is not None:
            self._received = held_loop(self.session, self._received, self._turn, seconds, frames, frame)

    def _unusual_frame(self, kind: WSMsgType, frame: WSFrame) -> None:
        if self._ending.theirs is not None or not (self._receiving or kind is CLOSE):
            return
        if kind is PING or kind is PONG:
            self._reading.settle(frame)
        try:
            if kind is TEXT or kind is BINARY or kind is WSMsgType.CONTINUATION:
                self._fragment(frame)
            elif frame.rsv1 or frame.rsv2 or frame.rsv3:
                raise ProtocolError(1002, "a control frame with RSV bits")
            elif kind is PING:
                self._answer_ping(frames.frame(frames.PONG, frame.get_payload_as_bytes()))
            elif kind is PONG:
                if self._heartbeat is not None:
                    self._heartbeat.pong(frame.get_payload_as_bytes())
            else:
                code, reason = frames.parse_close(frame.get_payload_as_bytes())
                self._receiving = False
                self._ending.answer(code, reason)
        except ProtocolError as error:
            self.fail(error.code, error.reason)

    def _answer_ping(self, pong: bytes) -> None:
        if self.outbox.size <= self.outbox.high:
            self.outbox.send(pong)
        else:
            # RFC 6455 §5.5.3: only the latest. 2 bytes of pong take 43 in the outbox.
            self._late_pong = pong

    def _fragment(self, frame: WSFrame) -> None:
        assembler = self.assemble_next()
        self.message_at = self._turn.began
        message = self._reading.assemble(assembler, frame)
        # With compression every frame comes here. picows then accepts frames that are
        # slightly above the limit, and only the assembler is exact.
        if not assembler.active and self._deflate is None and not self._reading.is_due:
            self._assembler = None
        if self._heartbeat is not None:
            self._heartbeat.fragment(more=assembler.active)
        if message is not None:
            self._received(message)

    def assemble_next(self) -> Assembler:
        """Let the next frame pass an assembler."""
        if self._assembler is None:
            self._assembler = Assembler(self._limits.max_message_bytes, deflate=False)
        return self._assembler

    # Opening

    def configure(self, profile: Profile) -> None:
        """Apply the profile of the route."""
        self._limits = limits = profile.limits
        self._slow_after = limits.blocking_warning
        self._queued = profile.queued
        self._turn.configure(
            max_frames=limits.max_turn_messages, max_seconds=limits.max_turn_time, queued=profile.queued
        )
        if profile.compression is not None:
            self._deflate = negotiate(self._extensions)
            if self._deflate is not None:
                self.encoding = deflated(self._deflate.server_window_bits, profile.compression)
        self._ending.close_timeout = limits.close_timeout
        profile.apply(self.outbox, self._overflow)

    def hand_over(self, acceptor: Acceptor, scope: Scope) -> Receiver | None:
        """Give a handshake that is not answered yet to *acceptor*."""
        # As for any other handshake, there is no session until it is admitted.
        self.session = None
        self._stats = acceptor.stats
        self.session = acceptor.connect(scope, self)
        return self.session

    def accept(self, subprotocol: str | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer 101 and go over to frames."""
        opening, self._opening = self._opening, None
        transport = self._transport
        if opening is None or transport.is_closing():
            return
        extension = self._deflate.extension if self._deflate is not None else None
        transport.write(
            switching_protocols(self._key, subprotocol=subprotocol, extension=extension, headers=headers)
        )
        # Set the limits before the protocol: uvloop and asyncio report a full buffer
        # only to the protocol that is set when it fills.
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        limit = self._limits.max_message_bytes
        if self._deflate is not None:
            # A message that cannot be compressed becomes slightly larger.
            self._assembler = Assembler(limit, deflate=True)
            limit = max_compressed_bytes(limit)
        self._reading = Reading(
            self, transport, self._queued, limit, self._limits.max_read_bytes, self._broken
        )
        # Without a session the handshake is refused with a close code, and no message
        # is received.
        self._received = cast("Any", self.session and self.session.received)
        # It may be closed already, because a room has filled its outbox meanwhile.
        self._receiving = not self._ending.begun
        self.message_at = self._blocked_at = monotonic()
        parser = self._reading.begin()
        if transport.get_write_buffer_size() <= _HIGH_WATER_BYTES:
            self.outbox.unblock()
        self._heartbeat = Heartbeat(self, self._limits)
        if opening.paused:
            transport.resume_reading()
        if opening.early:
            parser.feed(bytes(opening.early))
        self._ending.end_when_flushed()

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer with an HTTP error and close."""
        if self._opening is not None and not self._transport.is_closing():
            self._transport.write(http_response(status, headers.items(), body))
            self._opening.linger()
        self._opening = None

    # Closing, see `ending.py`

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after everything else, and wait for the peer's."""
        if not self._ending.close(code, reason):
            return
        self._stop_receiving()
        if self._heartbeat is not None:
            # From here on, `close_timeout` limits the time.
            self._heartbeat.stop()
        if self.held:
            self.resume_reading()

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection, because the peer violated the protocol."""
        self._stop_receiving()
        self._ending.fail(code, reason)

    def abort(self) -> None:
        """Abort the connection without a close frame."""
        self._transport.abort()

    def _broken(self, code: int, reason: str) -> None:
        # picows looks one frame ahead: it still has to deliver the frame before this one.
        self._turn.end(lambda: self.fail(code, reason))

    def _overflow(self) -> None:
        self._stats.slow_consumers += 1
        self._stop_receiving()
        self._ending.overflow(1013, "slow consumer")

    def _stop_receiving(self) -> None:
        self._receiving = False
        if self.session is not None:
            self.session.closing()

    # The event loop's calls

    def eof_received(self) -> bool:
        """Close after what is queued; return whether the transport must stay open for that."""
        return self._ending.end_of_file()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session once that the connection has ended."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._reading.end()
        close = self._ending.result()
        if self.session is not None:
            self.session.closed(close)
        if self.place is not None:
            self.place.leave()
        # Break the reference cycles, so that this object is freed at once.
        self.session = self._opening = self._heartbeat = None
        self._turn.release()
        self.get_buffer = self.buffer_updated = self._received = cast("Any", None)

    def pause_writing(self) -> None:
        """Keep frames in the outbox, because the transport's buffer is full."""
        self._blocked_at = monotonic()
        self.outbox.block()

    def resume_writing(self) -> None:
        """Write the frames in the outbox again."""
        # Not in this call: asyncio checks right after it whether the transport is closing. If
        # a write failed here, asyncio would report the connection as lost twice.
        asyncio.get_running_loop().call_soon(self._write_again)

    def _write_again(self) -> None:
        if self._transport.is_closing():
            return
        self.outbox.unblock()
        if self._late_pong is not None and not self.outbox.blocked:
            self.outbox.send(self._late_pong)
            self._late_pong = None
        self._ending.end_when_flushed()

    def pause_reading(self) -> None:
        """Stop reading, so that the kernel's buffers fill and slow down the peer."""
        if self._ending.begun:
            # Keep reading, to receive the peer's close frame or end of file.
            return
        self._turn.pause()

    def resume_reading(self) -> None:
        """Resume reading, after the frames that were read already."""
        self._turn.resume()

    # The heartbeat's calls

    @property
    def held(self) -> bool:
        """Whether reading is paused, so that no message can arrive."""
        return self._turn.held

    @property
    def latency(self) -> float | None:
        """The last round trip, in seconds."""
        return self._heartbeat.latency if self._heartbeat is not None else None

    @property
    def excused(self) -> bool:
        """Whether a pong cannot arrive, because we have paused reading.

        False if the peer does not read: it may be dead, and only a late pong shows it.
        """
        stuck = self.outbox.blocked and monotonic() - self._blocked_at >= self._limits.pong_timeout
        return self.held and not stuck

    def send_control(self, frame: bytes) -> None:
        """Send a frame after all others."""
        self.outbox.send(frame)

    def pong_too_late(self) -> None:
        """Abort the connection, because the peer does not answer."""
        self._stats.late_pongs += 1
        self._ending.give_up("no pong in time")

    def message_too_late(self) -> None:
        """Close the connection, because the peer does not finish a fragmented message."""
        self._stats.late_messages += 1
        self.close(4408, "a message took too long")

    def idle_too_long(self) -> None:
        """Close the connection, because the peer sends no messages."""
        self._stats.idle += 1
        self.close(4408, "idle for too long")
