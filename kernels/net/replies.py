"""An endpoint's answer on its way to the client.

Law: nothing more is read of an answer before the client has taken what was read. What cannot be understood of it is
handed over as long as the client has got nothing; afterwards both connections close, so that the client notices.

A body that goes on as it came is sent from where it was read, and what the client does not take stays there; the head
is written anew in front of it, so that both are one ``send``. One that goes in chunks is composed in ``out``.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_gateway import (
    ANSWERING,
    ASIDE,
    IN_PIPE,
    IN_PLACE,
    MAY_TRY_AGAIN,
    NO_ANSWER,
    ODD_ANSWER,
    RULED_ANEW,
)
from kernels.layout_http import CHUNKED, COUNTED, DONE, ENDLESS, PLAIN, SIZED, UNTIL_CLOSE
from kernels.net import balancing, bodies, http1, pipes, requests, rulings, syscalls, text, upstreams, writing

SWITCHING, BROKEN = 101, np.int64(502)
CHUNK_ROOM = 32  # bytes around a chunk, and after the last
BULK_BYTES = 65536  # of less that is to come, copying costs no more than a pipe
HEAD_ROOM = 2048  # bytes before an answer: its head may get longer by so many


@part
def read_head(way, gateway, row, now_ns):
    """WAITING: read and pass on the head, with what came along of the body. Returns whether there may be more to do."""
    client = gateway.clients[row]
    number = np.int64(client.upstream)
    upstream, data = gateway.upstreams[number], gateway.answers[number]
    if not upstream.readable and not upstream.failed:
        return False
    if upstream.start == upstream.end:
        upstream.start = upstream.end = HEAD_ROOM
    got = _receive(gateway, upstream, data, now_ns)
    if got == -syscalls.EAGAIN:
        return False
    if got <= 0:
        requests.hand_over(gateway, row, NO_ANSWER)
        return False
    if client.first_byte_ns == 0:
        client.first_byte_ns = requests.clock(gateway, now_ns)
    head = gateway.answer_heads[number]
    size = _scan(upstream, data, head, gateway.lines[0], np.int64(client.method))
    if size < 0 or (size == 0 and upstream.end == data.size):
        requests.hand_over(gateway, row, ODD_ANSWER)
        return False
    if size == 0:
        return True
    if rulings.wants_another(client, np.int64(head.status)):
        requests.hand_over(gateway, row, MAY_TRY_AGAIN)
        return False
    if not rulings.holds(gateway, row):
        requests.hand_over(gateway, row, RULED_ANEW)
        return False
    _pass_head(way, gateway, row, number, size, now_ns)
    return True


@kernel
def _scan(upstream, data, head, lines, method):
    """Scan the head of an answer, behind interim ones, which go no further. Its size, 0: not all is here, < 0: odd."""
    while True:
        size = http1.scan_response(data, np.int64(upstream.start), np.int64(upstream.end), head, lines, method)
        if size <= 0 or head.status >= 200:
            return size
        if head.status == SWITCHING:
            return -size  # to what nobody has asked for
        upstream.start += size


@kernel
def _receive(gateway, upstream, data, now_ns):
    got = syscalls.receive(upstream.fd, data[upstream.end :])
    if got == -syscalls.EAGAIN:
        upstream.readable = 0
    elif got > 0:
        if got < data.size - upstream.end and not upstream.hangup:
            upstream.readable = 0
        upstream.end += got
        upstream.since_ns = now_ns
    return got


@part
def _pass_head(way, gateway, row, number, size, now_ns):
    """Write the head for the client, and what is here of the body."""
    client, upstream, head = gateway.clients[row], gateway.upstreams[number], gateway.answer_heads[number]
    body, data = gateway.bodies[number], gateway.answers[number]
    bodies.begin(body, head, PLAIN)
    upstream.keep_alive = head.keep_alive and client.unsent == client.sent
    first = np.int64(upstream.start + size)
    here = np.int64(upstream.end) - first
    if head.framing == CHUNKED:  # what it compacts is handed over as it came, where that is no body
        text.put(gateway.out, 0, data, first, first + here)
    said = bodies.reframe(body, data, first, np.int64(upstream.end))
    if said < 0:
        if head.framing == CHUNKED:
            text.put(data, first, gateway.out, 0, here)
        requests.hand_over(gateway, row, ODD_ANSWER)
        return
    client.status, client.over, client.chunked = head.status, said == DONE, 0
    if head.framing == CHUNKED and client.over:
        head.framing, head.length = SIZED, body.content
    elif head.framing == CHUNKED or head.framing == UNTIL_CLOSE:
        client.chunked = 1
    keep_alive = client.keep_alive != 0
    ours = rulings.adorn(way, gateway, row, head)
    to = np.int64(writing.write_response(gateway.out, data, head, gateway.lines[0], ours, keep_alive))
    if to < 0 or to + body.produced + CHUNK_ROOM > gateway.out.size:
        requests.give_up(gateway, row, BROKEN, now_ns)
        return
    client.state = ANSWERING
    _pass_piece(gateway, row, number, to, first, now_ns)


@part
def _pass_piece(gateway, row, number, to, first, now_ns):
    """Pass on ``out[:to]``, and behind it what ``reframe`` left at ``first``; and keep what was not consumed."""
    client, upstream, body = gateway.clients[row], gateway.upstreams[number], gateway.bodies[number]
    data, count = gateway.answers[number], np.int64(body.produced)
    rest = first + np.int64(body.consumed)
    left = np.int64(upstream.end) - rest
    if client.over and left > 0:
        upstream.keep_alive = 0  # nobody asked
    if client.chunked or to > first:
        to = _compose(gateway.out, to, data, first, count, client)
        text.put(data, 0, data, rest, rest + left)
        upstream.start, upstream.end = 0, left
        send(gateway, row, to, now_ns)
    else:  # nothing is left, but what nobody asked for
        text.put(data, first - to, gateway.out, 0, to)
        upstream.start = upstream.end = 0
        client.sent, client.unsent, client.where, client.since_ns = first - to, first + count, IN_PLACE, now_ns


@kernel
def _compose(out, to, data, first, count, client):
    """Write so many bytes of a body at ``out[to:]``, as a chunk where the client gets chunks. Returns their end."""
    if client.chunked and count > 0:
        to = text.end_line(out, text.put_hex(out, to, np.uint64(count), text.hex_digits(count)))
    to = text.put(out, to, data, first, first + count)
    if client.chunked and count > 0:
        to = text.end_line(out, to)
    if client.chunked and client.over:
        to = text.put_all(out, to, requests.LAST_CHUNK)
    return to


@part
def send(gateway, row, size, now_ns):
    """Send ``out[:size]`` to the client; what it does not take is put aside."""
    client = gateway.clients[row]
    client.sent = client.unsent = 0
    if size == 0:
        return
    sent = requests.transmit(gateway, client, gateway.out[:size])
    if sent < 0 and sent != -syscalls.EAGAIN and sent != -syscalls.EINTR:
        requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
        return
    if sent < size:
        requests.keep_unsent(gateway, row, max(sent, 0), size)
        client.since_ns = now_ns
        requests.await_room(gateway, row)


@part
def pass_on(gateway, row, now_ns):
    """ANSWERING: one piece more of the body, or its end. Returns whether there may be more to do."""
    client = gateway.clients[row]
    number = np.int64(client.upstream)
    upstream, body, data = gateway.upstreams[number], gateway.bodies[number], gateway.answers[number]
    if client.sent < client.unsent:
        return _send_rest(gateway, row, now_ns)
    if client.over:
        _finish(gateway, row, number, now_ns)
        return True
    if not upstream.readable and not upstream.failed:
        return False
    got = _splice(gateway, row, number, now_ns)
    if got > 0:
        return True
    if got == 0:
        got = _receive(gateway, upstream, data, now_ns)
    if got == -syscalls.EAGAIN:
        return False
    if got == 0 and body.state == ENDLESS:
        client.over, upstream.keep_alive = 1, 0
        send(gateway, row, text.put_all(gateway.out, 0, requests.LAST_CHUNK), now_ns)
        return True
    if got <= 0:
        requests.give_up(gateway, row, BROKEN, now_ns)
        return False
    said = bodies.reframe(body, data, np.int64(0), np.int64(upstream.end))
    if said < 0:
        requests.give_up(gateway, row, BROKEN, now_ns)
        return False
    client.over = said == DONE
    _pass_piece(gateway, row, number, np.int64(0), np.int64(0), now_ns)
    return True


@part
def _splice(gateway, row, number, now_ns):
    """Move a piece of a large body into a pipe, uncopied. Returns its size, ``-EAGAIN``, or 0: it is to be read."""
    client, upstream, body = gateway.clients[row], gateway.upstreams[number], gateway.bodies[number]
    if body.state != COUNTED or body.left < BULK_BYTES or client.chunked or client.ssl != 0:
        return np.int64(0)
    client.pipe = pipes.take(gateway.pipes, gateway.exchange)
    if client.pipe == 0:
        return np.int64(0)
    most = min(np.int64(body.left), np.int64(pipes.PIPE_BYTES))
    got = syscalls.splice(upstream.fd, gateway.pipes.ends[client.pipe, pipes.WRITE], most)
    client.sent, client.unsent, client.where = 0, max(got, np.int64(0)), IN_PIPE
    _give_back(gateway, client)
    if got == -syscalls.EAGAIN:
        upstream.readable = 0
        return got
    if got <= 0:
        return np.int64(0)
    client.since_ns = upstream.since_ns = now_ns
    client.over = bodies.pass_over(body, got) == DONE
    return got


@kernel
def _give_back(gateway, client):
    """Let others have the client's pipe, if it is empty."""
    if client.sent == client.unsent:
        pipes.give_back(gateway.pipes, client.pipe)
        client.pipe = 0


@part
def _send_rest(gateway, row, now_ns):
    client = gateway.clients[row]
    if not client.writable:
        return False
    if client.where == IN_PIPE:
        end = gateway.pipes.ends[client.pipe, pipes.READ]
        sent = syscalls.splice(end, client.fd, client.unsent - client.sent)
        client.answered += max(sent, 0)
    else:
        waiting = gateway.unsent[row] if client.where == ASIDE else gateway.answers[client.upstream]
        sent = requests.transmit(gateway, client, waiting[client.sent : client.unsent])
    if sent == -syscalls.EAGAIN:
        requests.await_room(gateway, row)
        return False
    if sent < 0 and sent != -syscalls.EINTR:
        requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
        return False
    if sent > 0:
        client.sent += sent
        if client.where == IN_PIPE:
            _give_back(gateway, client)
        elif client.sent < client.unsent:
            requests.await_room(gateway, row)
        client.since_ns = gateway.upstreams[client.upstream].since_ns = now_ns
    return True


@part
def _finish(gateway, row, number, now_ns):
    """The last byte of the answer has gone to the kernel."""
    client = gateway.clients[row]
    requests.record(gateway, row, np.int64(client.status), now_ns)
    if number:
        if client.asked_ns != 0:
            heard_ns = syscalls.monotonic_ns(gateway.exchange)
            balancing.hear(gateway.endpoints[gateway.upstreams[number].endpoint], heard_ns - client.asked_ns, heard_ns)
        upstreams.release(gateway, number, gateway.upstreams[number].keep_alive != 0, now_ns)
    if client.keep_alive:
        requests.next_request(gateway, row, now_ns)
    else:
        requests.end(gateway, row)
