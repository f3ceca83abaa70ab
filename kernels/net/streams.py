"""One direction of a connection: bytes from a source socket to a sink socket.

Law: edge-triggered epoll speaks once, so a descriptor counts as readable or writable until a system call says
otherwise: ``EAGAIN``, or a ``recv`` or ``send`` that did less than it was asked to, which epoll(7) gives the same
meaning; ``splice`` also does less where a pipe has no place left, so there only ``EAGAIN`` counts. Nothing is read
while the sink takes nothing. A stream's turn is over after ``ROUNDS`` reads or ``TURN_BYTES``, so that no bulk transfer
starves the others. Half-close is kept: a source's FIN is passed on as FIN, after the last byte and in its direction
only.

What is read goes through one buffer that all streams share, so that it stays in the core's cache; only what a sink does
not take is put aside in the stream's own. A read that fills the buffer is the sign of bulk: from then on bytes go
through a pipe, uncopied, until one read brings little.
"""

import mmap

import numpy as np

from kernels.jit import kernel
from kernels.layout import ENDED, ENDING, FLOWING
from kernels.net import pipes, syscalls

BUFFER_BYTES = 32768
MAP_NORESERVE = 0x4000  # <asm-generic/mman.h>, which ``mmap`` does not name
BULK_BYTES = 8192  # of less, copying costs no more than a pipe
ROUNDS = 8  # each a read, and a write of what it brought
TURN_BYTES = 1 << 20  # a fraction of a millisecond

# What a turn came to.
RESTING = 0  # an event will say when there is more to do
UNFINISHED = 1  # the turn was over first
SOURCE_FAILED = 2
SINK_FAILED = 3
SINK_RESET = 4  # likewise, and no end was sent before it


def create_buffers(count: int) -> np.ndarray:
    """So many buffers, each of which takes memory once it has been used: in small pages, not 64 buffers at a time."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE  # or a fork would be refused for want of as much
    memory = mmap.mmap(-1, max(count, 1) * BUFFER_BYTES, flags=flags)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8).reshape(-1, BUFFER_BYTES)


@kernel
def begin(stream, source, sink):
    """A stream between two sockets of which nothing is known yet."""
    stream.source = source
    stream.sink = sink
    stream.moved = 0
    stream.start = 0
    stream.end = 0
    stream.pipe = 0
    stream.state = FLOWING
    stream.readable = 0
    stream.writable = 0
    stream.hangup = 0
    stream.failed = 0
    stream.bulk = 0


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
def turn(relay, index):
    """Move what stream ``index`` has, as far as one turn goes. Returns RESTING, UNFINISHED or who has failed."""
    stream = relay.streams[index]
    last = stream.moved + TURN_BYTES
    for _ in range(ROUNDS):
        if stream.moved >= last:
            break
        if stream.start == stream.end:
            if stream.state == ENDING:
                _finish(relay.streams, index)
            if stream.state != FLOWING or not stream.readable:
                return RESTING
        if not stream.writable:
            return SOURCE_FAILED if stream.failed else RESTING
        if stream.start < stream.end:
            result = _write_rest(relay, index)
        else:
            result = _pass_on(relay, index)
        if result != RESTING:
            return result
    return UNFINISHED


@kernel
def _write_rest(relay, index):
    """Write what was put aside."""
    stream = relay.streams[index]
    if stream.pipe != 0:
        return _empty_pipe(relay.pipes, stream)
    return _wrote(stream, syscalls.transmit(stream.sink, relay.buffers[index, stream.start : stream.end]))


@kernel
def _pass_on(relay, index):
    """Read once and write it, through a pipe where that is worth its while."""
    stream = relay.streams[index]
    if stream.bulk:
        stream.pipe = pipes.take(relay.pipes, relay.exchange)
        if stream.pipe != 0:
            return _splice(relay.pipes, stream)
    return _copy(relay, index)


@kernel
def _copy(relay, index):
    """Read into the relay's buffer and write from there; what the sink does not take is put aside."""
    stream = relay.streams[index]
    got = syscalls.receive(stream.source, relay.buffer)
    if got <= 0:
        return _not_read(stream, got)
    stream.bulk = got == relay.buffer.size
    if not stream.bulk and not stream.hangup:
        stream.readable = 0
    stream.start = 0
    stream.end = got
    result = _wrote(stream, syscalls.transmit(stream.sink, relay.buffer[:got]))
    for i in range(stream.start, stream.end):
        relay.buffers[index, i] = relay.buffer[i]
    return result


@kernel
def _splice(some, stream):
    """Move from the source into the stream's pipe, one of ``some``, and on from there as far as the sink takes it."""
    got = syscalls.splice(stream.source, some.ends[stream.pipe, pipes.WRITE], pipes.PIPE_BYTES)
    if got <= 0:
        _give_back(some, stream)
        if got == -syscalls.EINVAL or got == -syscalls.ENOSYS:  # a system that cannot: the next round copies
            stream.bulk = 0
            return RESTING
        return _not_read(stream, got)
    stream.bulk = got >= BULK_BYTES
    stream.start = 0
    stream.end = got
    return _empty_pipe(some, stream)


@kernel
def _empty_pipe(some, stream):
    """Move from the stream's pipe to the sink."""
    sent = syscalls.splice(some.ends[stream.pipe, pipes.READ], stream.sink, stream.end - stream.start)
    if sent < 0:
        return _wrote(stream, sent)
    stream.start += sent
    stream.moved += sent
    if stream.start == stream.end:
        _give_back(some, stream)
    return RESTING


@kernel
def _give_back(some, stream):
    pipes.give_back(some, stream.pipe)
    stream.pipe = 0


@kernel
def _not_read(stream, answer):
    """Note why a read brought nothing."""
    if answer == 0:
        stream.state = ENDING
    elif answer == -syscalls.EAGAIN:
        stream.readable = 0
    elif answer != -syscalls.EINTR:
        return SOURCE_FAILED
    return RESTING


@kernel
def _wrote(stream, answer):
    """Note how many of the bytes from start to end a write has taken, or why it took none."""
    if answer == -syscalls.EAGAIN:
        stream.writable = 0
    elif answer == -syscalls.ECONNRESET:
        return SINK_RESET
    elif answer < 0 and answer != -syscalls.EINTR:
        return SINK_FAILED
    elif answer >= 0:
        stream.start += answer
        stream.moved += answer
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


@kernel
def forget(relay, index):
    """Let go of what stream ``index`` had read and not written."""
    stream = relay.streams[index]
    if stream.pipe != 0:
        pipes.spill(relay.pipes, stream.pipe)
        stream.pipe = 0
