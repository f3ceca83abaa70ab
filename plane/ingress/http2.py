"""The client's side in HTTP/2 (RFC 9113): one connection, many requests at a time, each a ``Stream``.

Law: the library h2 knows frames, states and windows; here are tasks, waiting, and what a client may cost. A request's
body is held up to its window, which grows as its endpoint takes it, and an answer is sent as far as the windows of the
client go, so that a stream that is slow holds up itself and nobody else. A client that sends more noise than requests,
or takes back more requests than it waits for, is told so by GOAWAY and left.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from h2 import events
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from plane.ingress import forwarding
from plane.ingress.downstream import Field, origin_of
from plane.ingress.forwarding import Origin, RequestHead
from plane.ingress.http2head import Http2Head
from plane.ingress.patience import Patience

if TYPE_CHECKING:
    from plane.ingress.announced import Peer
    from plane.ingress.front import Front

log = logging.getLogger("trafficplane.ingress")
STREAMS = 128  # at a time, as in NGINX
WINDOW = 65_535  # bytes of a request's body that wait for its endpoint, HTTP/2's own default
FRAME = 16_384  # longest that every client must take
BURST = 4 * FRAME  # bytes of an answer that are framed at once
SLICE = 16_384  # bytes of a client that are read at once: whoever sends thousands of frames holds nobody up
TABLE = 4096  # bytes of names and values that are remembered to compress answers, whatever a client allows
# A connection is closed where it has sent more than NOISE_FACTOR bytes for each of a head or a body, its own or its
# answers', and NOISE_BYTES more (NGINX's rule against floods of PING, SETTINGS, PRIORITY or empty frames).
NOISE_FACTOR = 8
NOISE_BYTES = 256 * 1024
# Or where so many more requests were taken back, or broken off by errors of its own, than answered (CVE-2023-44487,
# CVE-2025-8671); one that has had the head of its answer does not count.
RESETS = 256
ANY_STREAM = 2**31 - 1
CLIENT_LEFT = 499
# Fields that say something of a connection, which an answer in HTTP/2 has none of (RFC 9113, 8.2.2).
CONNECTION_SPECIFIC = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
# Requests that are under way go on after a GOAWAY (6.8), which h2 takes for the end.
_TRANSITIONS = H2ConnectionStateMachine._transitions | {
    (ConnectionState.SERVER_OPEN, said): (None, ConnectionState.SERVER_OPEN)
    for said in (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY)
}


class Inflow:
    """A request's body. ``ended``: all of it has come; ``broken``: but it is not as long as was said."""

    __slots__ = ("_length", "_owed", "_pieces", "_received", "_session", "_stream_id", "_waiter", "broken", "ended")

    def __init__(self, session: "Session", stream_id: int):
        self._session = session
        self._stream_id = stream_id
        self._pieces: list[bytes] = []
        self._owed = 0  # bytes of the window that the client gets back for them
        self._received = 0
        self._length: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.broken = self.ended = False

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return self.ended and not self._received

    def expect(self, length: int | None) -> None:
        """This is how long it must be."""
        self._length = length
        self._check()

    def feed(self, data: bytes, owed: int) -> None:
        self._pieces.append(data)
        self._received += len(data)
        self._owed += owed
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._check()
        self._wake()

    def is_eof(self) -> bool:
        return self.ended and not self.broken

    def read_nowait(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.settle()
        return data

    async def readany(self) -> bytes:
        while not any(self._pieces) and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.broken:
            raise web.RequestPayloadError("the body is not as long as Content-Length says")
        return self.read_nowait()

    def settle(self) -> None:
        """Let the client send as much again as was taken."""
        owed, self._owed = self._owed, 0
        if owed:
            self._session.acknowledge(owed, self._stream_id)

    def _check(self) -> None:
        self.broken = self.ended and self._length is not None and self._length != self._received

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Stream:
    """One request. See ``Downstream``.

    begun     it is being served
    answered  its client has the head of an answer; ``ended``: and all of it
    gone      nothing more can be said to its client
    """

    __slots__ = (
        "_head",
        "_session",
        "_waiter",
        "answered",
        "begun",
        "content",
        "ended",
        "gone",
        "keep_alive",
        "number",
        "sent",
        "task",
    )

    protocol = "HTTP/2.0"
    task: asyncio.Task[None]

    def __init__(self, session: "Session", number: int, block: Sequence[Field]):
        self._session = session
        self._head = Http2Head(block)
        self._waiter: asyncio.Future[None] | None = None
        self.number = number
        self.content = Inflow(session, number)
        self.sent = 0
        self.keep_alive = True
        self.answered = self.begun = self.ended = self.gone = False

    @property
    def origin(self) -> Origin:
        return self._session.origin

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def target(self) -> str:
        return self._head.target

    def fields(self) -> Sequence[Field]:
        self._head.check()
        return self._head.fields

    def values(self, name: str) -> Sequence[str]:
        key = name.lower().encode()
        return [value.decode("utf-8", "surrogateescape") for row, value in self._head.fields if row == key]

    def asked(self, head: RequestHead) -> str:
        self._head.find_host(head)
        self.content.expect(self._head.length())
        if self.content.broken:
            raise forwarding.RefusedError(400, "the body is not as long as Content-Length says")
        head.chunked = not head.length and not self.content.empty
        return self.target

    def taken_on(self) -> None:
        """Nothing: the gateway speaks no HTTP/2."""

    async def go_on(self) -> None:
        if not self.answered and not self.gone:
            self._session.h2.send_headers(self.number, [(b":status", b"100")])
            self._session.flush()

    async def answer(
        self, status: int, reason: bytes, lines: Sequence[bytes], body: bytes, *, length: int | None, whole: bool
    ) -> None:
        fields = [(b":status", b"%d" % status)]
        for line in lines:
            name, _, value = line.partition(b":")
            if (name := name.lower()) not in CONNECTION_SPECIFIC:
                fields.append((name, value.strip(b" \t")))
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        await self._turn()
        self.answered = True
        self.ended = whole and not body
        self._session.h2.send_headers(self.number, fields, end_stream=self.ended)
        self._sent(sum(len(name) + len(value) for name, value in fields))
        if body:
            await self._write(body, last=whole)
        else:
            self._session.flush()

    async def write(self, piece: bytes) -> None:
        await self._write(piece, last=False)

    async def end(self) -> None:
        await self._turn()
        self.ended = True
        self._session.h2.end_stream(self.number)
        self._session.flush()

    def break_off(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        if not self.gone:
            self.gone = True
            self._session.h2.reset_stream(self.number, code)
            self._session.flush()

    def finish(self) -> None:
        """Whoever answered it is done."""
        if not self.ended:
            self.break_off()
        elif not self.content.ended:
            self.break_off(ErrorCodes.NO_ERROR)  # the client need not send the rest (RFC 9113, 8.1)

    def leave(self) -> None:
        """The client has left it, or must."""
        self.gone = True
        self.task.cancel()

    def wake(self) -> None:
        """The client may take more."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _write(self, piece: bytes, *, last: bool) -> None:
        h2, start, size = self._session.h2, 0, len(piece)
        while start < size:
            end = min(size, start + await self._room())
            for first in range(start, end, FRAME):
                data = piece[first : min(first + FRAME, end)]
                self.ended = last and first + len(data) == size
                h2.send_data(self.number, data, end_stream=self.ended)
            self._sent(end - start)
            self._session.flush()
            start = end

    async def _room(self) -> int:
        """How many bytes the client takes now, of which there is at least one. Raises ConnectionError."""
        await self._turn()
        while (room := self._session.h2.local_flow_control_window(self.number)) <= 0:
            try:
                async with asyncio.timeout(self._session.send_s):
                    await self._wait()
            except TimeoutError:
                self.break_off(ErrorCodes.CANCEL)
            await self._turn()
        return min(room, BURST)

    async def _turn(self) -> None:
        """Returns once its connection takes something. Raises ConnectionError."""
        while self._session.paused and not self.gone:
            await self._wait()
        if self.gone:
            raise ConnectionResetError("the client has left the stream")

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _sent(self, count: int) -> None:
        self.sent += count
        self._session.worth += count


class Session(asyncio.Protocol):
    """A client's connection.

    origin   who is at its other end
    streams  its requests under way, by their numbers
    paused   it takes nothing now
    worth    bytes of heads and bodies, both ways
    """

    origin: Origin
    _transport: asyncio.Transport

    def __init__(self, front: "Front", announced: "Peer | None"):
        self._front = front
        self._announced = announced
        self._loop = asyncio.get_running_loop()
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                validate_inbound_headers=False,  # it would end the connection; Http2Head refuses the one request
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: forwarding.HEAD_BYTES,
            },
        )
        self.h2.state_machine._transitions = _TRANSITIONS
        self.streams: dict[int, Stream] = {}
        self.paused = False
        self.worth = 0
        self._heard = 0  # bytes
        self._resets = 0  # requests taken back, less those answered
        self._unread = bytearray()
        self._reading_later = False
        self._last = False  # no further request is wanted: it closes after those that there are
        self._closed = False
        self._idle_until = self._loop.time() + front.head_s
        self._patience = Patience(front.send_s)

    # What the front calls.

    @property
    def send_s(self) -> float:
        """How long the client may take nothing."""
        return self._front.send_s

    def tick(self, now_s: float) -> None:
        """Close if no request has come for too long, or nothing was taken."""
        if self._patience.is_over(self.paused, self._transport, now_s):
            self._transport.abort()
        elif not self.streams and now_s > self._idle_until:
            self.close()

    def drain(self) -> None:
        """Take leave: the client is told to go elsewhere with further requests; those that there are go on."""
        if not self.streams:
            self.close()
        elif not self._last:
            self._last = True
            self.h2.close_connection(last_stream_id=ANY_STREAM)  # a request that comes meanwhile is answered
            self.flush()

    async def shutdown(self, timeout: float | None) -> None:
        """Close, whatever is under way."""
        tasks = [stream.task for stream in self.streams.values()]
        self.close()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def close(self, code: ErrorCodes | None = ErrorCodes.NO_ERROR) -> None:
        """Say why, unless that has been said, and close."""
        if self._closed:
            return
        if code is not None:
            self.h2.close_connection(code)
        self.flush()
        self._leave_all()
        self._transport.close()

    # What streams call.

    def acknowledge(self, count: int, number: int) -> None:
        """The client may send so much more."""
        if not self._closed:
            self.h2.acknowledge_received_data(count, number)
            self.flush()

    def flush(self) -> None:
        """Send what h2 has made."""
        if not self._closed and (data := self.h2.data_to_send()):
            self._transport.write(data)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        end = self._transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.origin = origin_of(transport, self._announced, self._front.edge)
        self._front.sessions.add(self)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window((STREAMS - 1) * WINDOW)  # so that no stream takes that of another
        self.flush()
        if self._front.draining:
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self._unread += data
        if not self._reading_later:
            self._read()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._wake_all()

    def connection_lost(self, error: Exception | None) -> None:
        self._front.sessions.discard(self)
        self._leave_all()

    def _read(self) -> None:
        """Read a slice of what is here; the rest is for later."""
        if self._closed:
            return
        data = bytes(self._unread[:SLICE])
        del self._unread[:SLICE]
        self._heard += len(data)
        try:
            for event in self.h2.receive_data(data):
                if meaning := _MEANINGS.get(type(event)):
                    meaning(self, event)
        except ProtocolError as error:
            log.debug("a client speaks no HTTP/2: %s", error)
            self._refuse(None)  # h2 has made a GOAWAY that says which error it is
            return
        if self._heard > NOISE_FACTOR * self.worth + NOISE_BYTES or self._resets > RESETS:
            self._refuse(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        self.flush()
        if self._unread and not self._reading_later:
            self._transport.pause_reading()
        elif not self._unread and self._reading_later:
            self._transport.resume_reading()
        self._reading_later = bool(self._unread)
        if self._reading_later:
            self._loop.call_soon(self._read)

    def _refuse(self, code: ErrorCodes | None) -> None:
        """This client is not to be served."""
        self._front.refused(self.origin, 400, 0)
        self.close(code)

    def _leave_all(self) -> None:
        self._closed = True
        for stream in self.streams.values():
            stream.leave()

    def _wake_all(self) -> None:
        for stream in self.streams.values():
            stream.wake()

    # What a client's frames mean.

    def _request(self, event: events.RequestReceived) -> None:
        block = cast(Sequence[Field], event.headers)
        self.worth += sum(len(name) + len(value) for name, value in block)
        stream = self.streams[event.stream_id] = Stream(self, event.stream_id, block)
        stream.task = self._loop.create_task(self._serve(stream))
        stream.task.add_done_callback(lambda _: self._done(stream))

    async def _serve(self, stream: Stream) -> None:
        stream.begun = True
        try:
            await self._front.handler(stream)
        except Exception:
            log.exception("a request failed in the ingress")
        stream.finish()

    def _done(self, stream: Stream) -> None:
        del self.streams[stream.number]
        stream.content.settle()
        if not stream.begun:  # taken back in the very read that it came with
            self._front.refused(self.origin, CLIENT_LEFT, 0)
        if stream.ended and self._resets > 0:
            self._resets -= 1
        if not self.streams:
            self._idle_until = self._loop.time() + self._front.keep_alive_s
            if self._last:
                self.close()

    def _data(self, event: events.DataReceived) -> None:
        self.worth += len(event.data)
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.content.feed(event.data, event.flow_controlled_length)
        else:
            self.acknowledge(event.flow_controlled_length, event.stream_id)

    def _request_ended(self, event: events.StreamEnded) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.content.end()

    def _reset(self, event: events.StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._resets += not stream.answered
            stream.leave()

    def _window(self, event: events.WindowUpdated) -> None:
        if not event.stream_id:
            self._wake_all()
        elif stream := self.streams.get(event.stream_id):
            stream.wake()

    def _settings(self, event: events.RemoteSettingsChanged) -> None:
        if SettingCodes.HEADER_TABLE_SIZE in event.changed_settings:
            self.h2.encoder.header_table_size = min(TABLE, self.h2.encoder.header_table_size)
        self._wake_all()

    def _goodbye(self, event: events.ConnectionTerminated) -> None:
        """A client that will send no more requests still waits for the answers it has asked for."""
        self._last = True
        if event.error_code != ErrorCodes.NO_ERROR or not self.streams:
            self.close()


_MEANINGS: dict[type[events.Event], Callable[[Session, Any], None]] = {
    events.RequestReceived: Session._request,
    events.DataReceived: Session._data,
    events.StreamEnded: Session._request_ended,
    events.StreamReset: Session._reset,
    events.WindowUpdated: Session._window,
    events.RemoteSettingsChanged: Session._settings,
    events.ConnectionTerminated: Session._goodbye,
}
