"""A client's side of the gateway: a request is read, routed, and sent to an endpoint.

Law: until the first byte of its answer has gone to the client, a request can be handed over to the slow path as it
came: all its bytes are kept. A client that ends its sending while it waits has left.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout_gateway import (
    ANSWERING,
    ASIDE,
    ASKING,
    CONNECTING,
    DRAINING,
    EARLY_ANSWER,
    HANDED,
    NO_CONNECTION,
    NO_ROOM,
    NOBODY,
    READING,
    RULED_ANEW,
    SENDING,
    STREAMING,
    TRUSTED,
    UNREAD_BODY,
    VACANT,
    WAITING,
)
from kernels.layout_http import CHUNK_END, CHUNKED, DONE, IN_CHUNK, OVER, PLAIN, SIZED, TOO_LONG, Hop
from kernels.layout_routes import ANSWER, Heard
from kernels.net import (
    bodies,
    forwarded,
    http1,
    notes,
    openssl,
    pipes,
    requesthead,
    ring,
    rulings,
    syscalls,
    text,
    upstreams,
    writing,
)
from kernels.reference import reference

LAST_CHUNK = np.frombuffer(b"0\r\n\r\n", np.uint8)
SHORT_BYTES = 8192  # half of what OpenSSL reads of a socket at once
HEARD = syscalls.EPOLLIN | syscalls.EPOLLRDHUP | syscalls.EPOLLET  # a client says more, or has left
CLIENT_LEFT, LATE_ANSWER = np.int64(499), np.int64(504)  # as records have them


@part
def read(way, gateway, row, now_ns):
    """READING: begin the request that is here, or read more. Returns whether there may be more to do."""
    client = gateway.clients[row]
    if client.end > client.start:
        if gateway.loop[0].asking == gateway.asking.size - 1:  # this batch is decided on: it may come into the next one
            queue(gateway, row)
            return False
        if _begin(way, gateway, row, now_ns):
            return True
    else:
        client.start = client.end = 0
    if not client.readable:
        return _wait(gateway, row)
    buffer = gateway.requests[row]
    if client.end == buffer.size:
        if client.start == 0:
            hand_over(gateway, row, np.int64(TOO_LONG))
            return False
        text.put(buffer, np.int64(0), buffer, client.start, client.end)
        client.end -= client.start
        client.start = 0
    got = _receive(gateway, client, buffer[client.end :])
    if got == -syscalls.EAGAIN:
        return _wait(gateway, row)
    if got <= 0 and got != -syscalls.EINTR:
        end(gateway, row)
        return False
    if got > 0:
        if client.end == client.start:
            client.since_ns = now_ns
        client.end += got
    return True


@part
def _receive(gateway, client, buffer):
    """Read what a client says, as ``syscalls.receive`` does, and note where no more of it is here."""
    if client.ssl != 0:
        ssl = np.int64(client.ssl)
        held = openssl.holds_bytes(gateway.library, ssl)
        got = openssl.receive(gateway.library, ssl, buffer)
        # A read of the socket that brought one short record, and nothing besides, has brought all there was.
        drained = got < SHORT_BYTES and not held and not openssl.holds_bytes(gateway.library, ssl)
    else:
        got = syscalls.receive(client.fd, buffer)
        drained = got < buffer.size
    if got == -syscalls.EAGAIN or (got > 0 and drained and not client.hangup):
        client.readable = 0
    return got


@part
def transmit(gateway, client, data):
    """Send to a client, as ``syscalls.transmit`` does: where it did less than all, the client takes no more now.

    The end of its last answer waits for that of the connection, in ``end``, and both go in one packet.
    """
    last = client.over and not client.keep_alive
    if client.ssl != 0:
        if last and not client.corked:
            syscalls.set_option(gateway.exchange, client.fd, syscalls.IPPROTO_TCP, syscalls.TCP_CORK, 1)
        sent = openssl.transmit(gateway.library, np.int64(client.ssl), data)
    elif last:
        sent = syscalls.transmit_last(client.fd, data)
    else:
        sent = syscalls.transmit(client.fd, data)
    client.corked = last
    client.answered += max(sent, 0)
    return sent


@part
def await_room(gateway, row):
    """A client takes no more now: that it does again is to be an event. One that is never told of is timed out."""
    client = gateway.clients[row]
    client.writable = 0
    if not client.told_of_room:
        client.told_of_room = 1
        syscalls.rewatch(
            gateway.exchange, gateway.loop[0].epoll, client.fd, HEARD | syscalls.EPOLLOUT, row, client.serial
        )


@part
def _wait(gateway, row):
    """Nothing is here to be read; an ingress that stops waits for no request to begin. Returns False."""
    if gateway.loop[0].draining and gateway.clients[row].end == gateway.clients[row].start:
        hand_over(gateway, row, DRAINING)
    return False


@part
def _begin(way, gateway, row, now_ns):
    """Put a request that is whole into the batch. Returns False where it is not whole yet."""
    client, head, data, loop = gateway.clients[row], gateway.heads[row], gateway.requests[row], gateway.loop[0]
    place = np.int64(loop.asking) + 1
    size = http1.scan_request(data, np.int64(client.start), np.int64(client.end), head, gateway.lines[place])
    if size == 0:
        return False
    if size < 0:
        hand_over(gateway, row, -size)
        return True
    streams = head.framing == CHUNKED or head.length > data.size - size
    whole = _whole(gateway, row, size)
    if whole < 0:
        hand_over(gateway, row, -whole)
        return True
    if whole == 0 and not streams:
        return False
    if whole == 0 and client.start > 0:  # it has the buffer to itself
        client.end = text.put(data, np.int64(0), data, client.start, client.end)
        client.start = 0
        return True
    client.streams = whole == 0
    if client.upstream == 0:  # else it was decided on before its endpoint had taken the connection
        if client.trusted:
            heard = Heard(data, head, gateway.lines[place])
            if not forwarded.hear(client, loop, gateway.trusted, heard, gateway.hops[row]):
                hand_over(gateway, row, TRUSTED)
                return True
        client.size, client.method, client.keep_alive = max(whole, size), head.method, head.keep_alive
        client.received_ns, client.connected_ns, client.first_byte_ns = clock(gateway, now_ns), 0, 0
    client.state, gateway.asking[place], loop.asking = ASKING, row, place
    return True


@part
def write(way, gateway, place, now_ns):
    """ASKING: do as was decided on a request of the batch: answer it, send it to an endpoint, or hand it over."""
    row, said = np.int64(gateway.asking[place]), np.int64(gateway.asked[place].said)
    if gateway.clients[row].upstream != 0:
        _send(way, gateway, row, gateway.lines[place], now_ns)
        return
    if gateway.clients[row].logged != 0:
        notes.begin(gateway, row, gateway.lines[place])
    if said < 0:
        hand_over(gateway, row, -said)
    elif said == ANSWER:
        _answer(way, gateway, place, now_ns)
    else:
        _ask(way, gateway, place, now_ns)


@part
def _whole(gateway, row, size):
    """Bytes of a request whose head has this size, with its body; 0: not all is here; minus a reason: it is broken.

    A body in chunks that is here is framed by its length, as if it had come so: it is in ``unsent`` then.
    """
    client, head, upload = gateway.clients[row], gateway.heads[row], gateway.uploads[row]
    here = np.int64(client.end) - client.start - size
    client.unchunked = 0
    if head.framing == SIZED:
        return size + head.length if head.length <= here else np.int64(0)
    if head.framing != CHUNKED:
        return size
    text.put(gateway.unsent[row], np.int64(0), gateway.requests[row], client.start + size, np.int64(client.end))
    bodies.begin(upload, head, PLAIN)
    said = bodies.reframe(upload, gateway.unsent[row], np.int64(0), here)
    if said != DONE:
        return min(said, np.int64(0))
    client.unchunked, head.framing, head.length = 1, SIZED, upload.content
    return size + upload.consumed


@part
def _answer(way, gateway, place, now_ns):
    """Answer a request that goes nowhere."""
    row = np.int64(gateway.asking[place])
    client, head = gateway.clients[row], gateway.heads[row]
    if client.streams:  # its body is for somebody else to read, who knows for how long
        hand_over(gateway, row, UNREAD_BODY)
        return
    size = rulings.write_answer(way, gateway, place)
    if size < 0:
        hand_over(gateway, row, NO_ROOM)
        return
    client.request_id = requesthead.request_number(gateway.requests[row], head)
    if head.request_id_size == 0 and rulings.was_let_in(gateway, place):
        client.request_id = rulings.draw(gateway.loop[0])
    client.backend, client.routed_ns, client.since_ns = 0, clock(gateway, now_ns), now_ns
    client.state, client.over = ANSWERING, 1
    gateway.loop[0].at_work += 1
    keep_unsent(gateway, row, np.int64(0), size)


@part
def _ask(way, gateway, place, now_ns):
    """Choose an endpoint and take a connection to it; where that is there, send the request."""
    row, backend = np.int64(gateway.asking[place]), rulings.pick(way, gateway, place, now_ns)
    client = gateway.clients[row]
    if backend < 0:
        hand_over(gateway, row, -backend)
        return
    if backend == 0 or backend >= way.endpoint_of.size or way.memory.out_ns[backend] > now_ns:
        hand_over(gateway, row, NOBODY)
        return
    client.backend, client.routed_ns, client.since_ns = backend, clock(gateway, now_ns), now_ns
    client.upstream = upstreams.take(gateway, np.int64(way.endpoint_of[backend]), row, now_ns)
    if client.upstream == 0:
        hand_over(gateway, row, NO_ROOM)
        return
    gateway.loop[0].at_work += 1
    if gateway.upstreams[client.upstream].used:
        _send(way, gateway, row, gateway.lines[place], now_ns)
    else:
        client.state = CONNECTING


@part
def connect(gateway, row):
    """CONNECTING: send, once the endpoint has taken the connection."""
    client = gateway.clients[row]
    upstream = gateway.upstreams[client.upstream]
    if upstream.failed:
        redial(gateway, row, NO_CONNECTION)
        return False
    if not upstream.writable:
        return False
    if upstreams.meets_nobody(gateway, client.upstream):
        redial(gateway, row, NO_CONNECTION)
        return False
    http1.begin(gateway.heads[row])
    client.state = READING
    return True


@part
def redial(gateway, row, reason):
    """Hand a request over of which nothing was sent; its connection is given up."""
    upstreams.close(gateway, np.int64(gateway.clients[row].upstream))
    gateway.clients[row].upstream = 0
    gateway.loop[0].at_work -= 1
    hand_over(gateway, row, reason)


@part
def _send(way, gateway, row, lines, now_ns):
    """Write the request, whose head has these lines, for its endpoint, and send it, or its beginning."""
    client, head = gateway.clients[row], gateway.heads[row]
    client.connected_ns = clock(gateway, now_ns)
    if not rulings.holds(gateway, row):
        redial(gateway, row, RULED_ANEW)
        return
    data, none, spare = gateway.requests[row], gateway.more[:0], rulings.draw(gateway.loop[0])
    number = requesthead.request_number(data, head) if head.request_id_size else spare
    host = rulings.write_host(way, gateway, row) if client.rule else np.int64(0)
    target = rulings.write_target(way, gateway, row) if client.rule else np.int64(0)
    if host < 0 or target < 0:
        redial(gateway, row, NO_ROOM)
        return
    hop = Hop(gateway.hops[row, : client.hop], gateway.host[:host], gateway.target[:target], none)
    size = np.int64(writing.write_request(gateway.out, data, head, lines, hop, spare))
    if client.unchunked:
        size = text.put(gateway.out, size, gateway.unsent[row], np.int64(0), np.int64(head.length))
    elif not client.streams:
        size = text.put(gateway.out, size, data, client.start + head.size, client.start + client.size)
    if size < 0:
        redial(gateway, row, NO_ROOM)
        return
    client.request_id = number
    if client.streams:
        bodies.begin(gateway.uploads[row], head, PLAIN)
        client.streamed, client.state = 1, STREAMING
        _send_piece(gateway, row, size, now_ns)
        return
    client.state = SENDING
    sent = syscalls.transmit(gateway.upstreams[client.upstream].fd, gateway.out[:size])
    keep_unsent(gateway, row, max(sent, 0), size)
    if client.unsent == client.sent:
        client.state = WAITING
    else:
        gateway.upstreams[client.upstream].writable = 0


@part
def stream(gateway, row, now_ns):
    """STREAMING: one piece more of the request's body, or its end. Returns whether there may be more to do."""
    client, data = gateway.clients[row], gateway.requests[row]
    upstream = gateway.upstreams[client.upstream]
    if upstream.readable or upstream.failed:
        hand_over(gateway, row, EARLY_ANSWER)
        return False
    if client.sent < client.unsent:
        return _send_on(gateway, row, now_ns)
    if gateway.uploads[row].state == OVER:
        client.state = WAITING
        return True
    if not client.readable:
        return False
    got = _receive(gateway, client, data[client.end :])
    if got == -syscalls.EAGAIN:
        return False
    if got <= 0 and got != -syscalls.EINTR:
        give_up(gateway, row, CLIENT_LEFT, now_ns)
        return False
    if got > 0:
        client.end += got
        client.since_ns = now_ns
        _send_piece(gateway, row, np.int64(0), now_ns)
    return True


@part
def _send_piece(gateway, row, to, now_ns):
    """Send ``out[:to]``, and behind it what is here of the request's body, of which the rest stays behind its head."""
    client, head, data = gateway.clients[row], gateway.heads[row], gateway.requests[row]
    upload, out, upstream = gateway.uploads[row], gateway.out, gateway.upstreams[client.upstream]
    first = np.int64(client.start + head.size)
    said = bodies.reframe(upload, data, first, np.int64(client.end))
    if upload.state == CHUNK_END and upload.produced > 0:  # who goes on with it needs a byte of the chunk
        upload.state, upload.left = IN_CHUNK, 1
        upload.content, upload.consumed, upload.produced = upload.content - 1, upload.consumed - 1, upload.produced - 1
    count, in_chunks = np.int64(upload.produced), head.framing == CHUNKED
    if in_chunks and count > 0:
        to = text.end_line(out, text.put_hex(out, to, np.uint64(count), text.hex_digits(count)))
    to = text.put(out, to, data, first, first + count)
    if in_chunks and count > 0:
        to = text.end_line(out, to)
    if in_chunks and said == DONE:
        to = text.put_all(out, to, LAST_CHUNK)
    client.end = text.put(data, first, data, first + upload.consumed, np.int64(client.end))
    client.size = head.size  # what follows is right behind it, in the end
    sent = syscalls.transmit(upstream.fd, out[:to]) if to > 0 else np.int64(0)
    keep_unsent(gateway, row, max(sent, 0), max(to, 0))
    upstream.writable = client.sent == client.unsent
    upstream.since_ns = client.since_ns = now_ns
    if said < 0:
        hand_over(gateway, row, -said)


@part
def _send_on(gateway, row, now_ns):
    """Send more of what was put aside for the endpoint. Returns whether it has taken any."""
    client = gateway.clients[row]
    upstream = gateway.upstreams[client.upstream]
    if not upstream.writable:
        return False
    sent = syscalls.transmit(upstream.fd, gateway.unsent[row, client.sent : client.unsent])
    if sent < 0 and sent != -syscalls.EINTR:
        upstream.writable = 0  # if for good, an event says so
        return False
    client.sent += max(sent, 0)
    upstream.since_ns = now_ns
    upstream.writable = client.sent == client.unsent
    return True


@part
def keep_unsent(gateway, row, first, last):
    """Put ``out[first:last]`` aside, until it is taken."""
    client = gateway.clients[row]
    client.sent, client.where = 0, ASIDE
    client.unsent = text.put(gateway.unsent[row], np.int64(0), gateway.out, first, last)


@part
def send_rest(gateway, row):
    """SENDING: the rest of a request. One whose endpoint answers first, or ends, waits no more to send."""
    client = gateway.clients[row]
    upstream = gateway.upstreams[client.upstream]
    if upstream.readable or upstream.failed:
        client.state = WAITING
        return True
    if not upstream.writable:
        return False
    sent = syscalls.transmit(upstream.fd, gateway.unsent[row, client.sent : client.unsent])
    if sent == -syscalls.EAGAIN:
        upstream.writable = 0
        return False
    if sent < 0 and sent != -syscalls.EINTR:
        client.state = WAITING  # what it has said says why
        return True
    client.sent += max(sent, 0)
    if client.sent == client.unsent:
        client.state = WAITING
    return True


@part
def hand_over(gateway, row, reason):
    """Leave a connection to the slow path, with what is here and was not answered."""
    client, loop = gateway.clients[row], gateway.loop[0]
    if client.state == HANDED:
        return
    client.state, client.reason = HANDED, reason
    rulings.undo_limit(gateway, row)
    gateway.handed[loop.handed] = row
    loop.handed += 1
    if 0 <= reason < gateway.punts.size:
        gateway.punts[reason] += 1


@inner
def clock(gateway, now_ns):
    """What time it is for the row of a request: that of the pass, but where somebody keeps the row, by the clock."""
    return syscalls.monotonic_ns(gateway.exchange) if gateway.loop[0].timed else now_ns


@part
def record(gateway, row, status, now_ns):
    """A request is done."""
    client, loop = gateway.clients[row], gateway.loop[0]
    done = gateway.done[loop.done]  # a breath ends before it is full, see there
    if loop.logs:
        notes.take(gateway, row, np.int64(loop.done))
    loop.done += 1
    loop.at_work -= 1
    if loop.timed or now_ns == client.received_ns:  # within one pass, whose time that is
        now_ns = syscalls.monotonic_ns(gateway.exchange)
    done.request_id, done.received_ns, done.done_ns = client.request_id, client.received_ns, now_ns
    done.install, done.origin, done.goal, done.backend = client.install, client.origin, client.goal, client.backend
    done.routed_ns, done.connected_ns, done.first_byte_ns = client.routed_ns, client.connected_ns, client.first_byte_ns
    upstream = gateway.upstreams[client.upstream]
    endpoint = gateway.endpoints[upstream.endpoint]
    done.ip, done.port, done.status, done.reused = endpoint.ip, endpoint.port, status, upstream.used
    rulings.leave_limit(gateway, row)


@part
def give_up(gateway, row, status, now_ns):
    """The request in hand cannot be answered, or not to its end, and both connections close; status: for the record."""
    record(gateway, row, status, now_ns)
    if gateway.clients[row].upstream:
        upstreams.close(gateway, np.int64(gateway.clients[row].upstream))
    end(gateway, row)


@part
def end(gateway, row):
    """Close a client's connection that has no request in hand."""
    client = gateway.clients[row]
    if client.ssl != 0:
        openssl.announce_end(gateway.library, np.int64(client.ssl))
        openssl.free(gateway.library, np.int64(client.ssl))
    if client.corked:  # what waits, close alone would throw away, should something that it says be unread
        syscalls.end_sending(client.fd)
    syscalls.close(client.fd)
    forget(gateway, row)


@kernel
def forget(gateway, row):
    """Free a client's row; its socket is closed, or somebody else's, and so is its TLS."""
    gateway = reference(gateway)
    client, loop = gateway.clients[row], gateway.loop[0]
    client.state, client.fd, client.ssl, client.upstream, client.streamed = VACANT, -1, 0, 0, 0
    client.serial += 1
    if client.pipe != 0:
        pipes.spill(gateway.pipes, client.pipe)
        client.pipe = 0
    http1.begin(gateway.heads[row])
    gateway.free_clients[loop.clients] = row
    loop.clients += 1
    loop.paused_until_ns = 0


@inner
def queue(gateway, row):
    """Give it another turn in the next pass."""
    if not gateway.clients[row].queued:
        gateway.clients[row].queued = 1
        ring.put(gateway.ready, row)


@inner
def next_request(gateway, row, now_ns):
    """The answer is out: go on with what follows the request."""
    client = gateway.clients[row]
    client.start += client.size
    client.size, client.upstream, client.used, client.streamed = 0, 0, 1, 0
    client.answers += 1
    client.state, client.since_ns = READING, now_ns
