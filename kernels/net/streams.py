"""One direction of a connection: bytes from a source socket through a buffer to a sink socket.

Law: edge-triggered epoll speaks once, so a descriptor counts as readable or writable until a system call says
otherwise: ``EAGAIN``, or a read or write that did less than it was asked to, which epoll(7) gives the same meaning.
A stream moves at most ``STEPS`` system calls' worth in one turn, so that no bulk transfer starves the others.
Half-close is kept: a source's FIN is passed on as FIN, after the last byte and in its direction only.
"""

from kernels.jit import kernel
from kernels.layout import ENDED, ENDING, FLOWING
from kernels.net import syscalls

BUFFER_BYTES = 32768
STEPS = 16  # of which half read a buffer and half write it

# What a turn came to.
RESTING = 0  # an event will say when there is more to do
UNFINISHED = 1  # the turn was over first
SOURCE_FAILED = 2
SINK_FAILED = 3


@kernel
def begin(stream, source, sink):
    """A stream between two sockets of which nothing is known yet."""
    stream.source = source
    stream.sink = sink
    stream.moved = 0
    stream.start = 0
    stream.end = 0
    stream.state = FLOWING
    stream.readable = 0
    stream.writable = 0
    stream.hangup = 0
    stream.failed = 0


@kernel
def redirect(streams, row, upstream):
    """Put another upstream, of which nothing is known yet, in the place of a connection's first one."""
    outward, inward = streams[2 * row], streams[2 * row + 1]
    outward.sink = upstream
    outward.writable = 0
    inward.source = upstream
    inward.readable = 0
    inward.hangup = 0
    inward.failed = 0


@kernel
def turn(streams, buffers, index):
    """Move what stream ``index`` has, as far as one turn goes. Returns RESTING, UNFINISHED or who has failed."""
    stream = streams[index]
    buffer = buffers[index]
    for _ in range(STEPS):
        result = RESTING
        if stream.start < stream.end:
            if not stream.writable:
                return SOURCE_FAILED if stream.failed else RESTING
            result = _drain(stream, buffer)
        elif stream.state == ENDING:
            _finish(streams, index)
        elif stream.readable and stream.state == FLOWING:
            result = _fill(stream, buffer)
        else:
            return RESTING
        if result != RESTING:
            return result
    return UNFINISHED


@kernel
def _fill(stream, buffer):
    """Read from the source into the empty buffer."""
    got = syscalls.receive(stream.source, buffer)
    stream.start = 0
    stream.end = max(got, 0)
    if got == 0:
        stream.state = ENDING
    elif got == -syscalls.EAGAIN:
        stream.readable = 0
    elif got < 0 and got != -syscalls.EINTR:
        return SOURCE_FAILED
    elif got < buffer.size and not stream.hangup:
        stream.readable = 0
    return RESTING


@kernel
def _drain(stream, buffer):
    """Write what the buffer holds to the sink."""
    sent = syscalls.transmit(stream.sink, buffer[stream.start : stream.end])
    if sent == -syscalls.EAGAIN:
        stream.writable = 0
    elif sent < 0 and sent != -syscalls.EINTR:
        return SINK_FAILED
    elif sent >= 0:
        stream.start += sent
        stream.moved += sent
        if stream.start < stream.end:
            stream.writable = 0
    return RESTING


@kernel
def _finish(streams, index):
    """Pass the FIN on. The later of a connection's two is left to ``close``, which sends it too."""
    stream = streams[index]
    stream.state = ENDED
    if streams[index ^ 1].state != ENDED:
        syscalls.end_sending(stream.sink)
