"""A client that speaks HTTP/2 over TLS on a real socket, by the library h2, and says exactly what it is told."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes

from tests.ingress.wire import PATIENCE_S, Address
from tests.ingress.wire import client as connected

Field = tuple[str, str]


def careless() -> ssl.SSLContext:
    """A client's context that believes any certificate and speaks HTTP/2 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def head(path: str = "/", host: str = "example.com", *fields: Field, method: str = "GET") -> list[Field]:
    return [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *fields]


@dataclass
class Answer:
    """What came on a stream. ``reset`` is the code of a RST_STREAM."""

    fields: list[Field] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.get(":status") or 0)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name), None)


class Http2Client:
    """One connection. ``taking``: what comes is acknowledged, so that more may come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.writer = writer
        self.taking = True
        self.answers: dict[int, Answer] = {}
        self.goaway: list[tuple[int, int]] = []  # (code, last stream)
        self.settings: dict[int, int] = {}
        self.closed = False
        self._reader = reader
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._news = asyncio.Event()
        self.h2.initiate_connection()
        self.flush()
        self._reading = asyncio.create_task(self._read())

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(self, fields: Sequence[Field], body: bytes | None = None) -> int:
        """Send a request, with all of its body or, if that is None, none; returns its stream's number."""
        number = self.open(fields, end=body is None)
        if body is not None:
            self.send(number, body, end=True)
        return number

    def open(self, fields: Sequence[Field], *, end: bool = False) -> int:
        number = self.h2.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.h2.send_headers(number, fields, end_stream=end)
        self.flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(number, data, end_stream=end)
        self.flush()

    async def pour(self, number: int, data: bytes) -> None:
        """Send a body as fast as it is taken, and its end."""
        first = 0
        while first < len(data):
            await self.until(lambda: self.h2.local_flow_control_window(number) > 0)
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            self.send(number, data[first : first + room])
            first += room
            await self.writer.drain()
        self.send(number, b"", end=True)

    def reset(self, number: int) -> None:
        self.h2.reset_stream(number, ErrorCodes.CANCEL)
        self.flush()

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not what() and not (self.closed and not what()):
                self._news.clear()
                await self._news.wait()
        assert what(), "the ingress closed the connection"

    async def answer(self, number: int) -> Answer:
        """The answer on a stream, once it has ended."""
        answer = self.answers[number]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def get(self, path: str = "/", host: str = "example.com", *fields: Field, method: str = "GET") -> Answer:
        return await self.answer(self.request(head(path, host, *fields, method=method)))

    async def at_end(self) -> None:
        """Returns once the ingress has closed the connection."""
        await self.until(lambda: self.closed)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._note(event)
                self.flush()
                self._news.set()
        self.closed = True
        self._news.set()

    def _note(self, event: events.Event) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            self.settings |= {int(code): row.new_value for code, row in event.changed_settings.items()}
        if isinstance(event, events.ConnectionTerminated):
            self.goaway.append((int(event.error_code or 0), event.last_stream_id or 0))
            self.h2.state_machine.state = ConnectionState.CLIENT_OPEN  # what is under way goes on
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, events.InformationalResponseReceived):
            answer.interim += [int(value) for name, value in event.headers if name == ":status"]
        elif isinstance(event, events.ResponseReceived):
            answer.fields = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, events.DataReceived):
            answer.body += event.data
            if self.taking:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamEnded):
            answer.ended = True
        elif isinstance(event, events.StreamReset):
            answer.reset = int(event.error_code or 0)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def http2(address: Address) -> AsyncIterator[Http2Client]:
    """A connection that both sides have agreed to speak HTTP/2 on."""
    async with connected(address, careless(), "example.com") as raw:
        assert raw.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        one = Http2Client(raw.reader, raw.writer)
        try:
            yield one
        finally:
            await one.close()
