"""Connections to endpoints: taken from an endpoint's idle ones or opened, given back or closed.

Law: an idle connection that says anything is closed, for nobody asked; the one used last is taken first. It is looked
at once more when it is taken, so nothing that an endpoint has said before it is asked is ever an answer. What it says
unasked after that, nobody can tell from one.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout import MARKS
from kernels.net import syscalls, wheel
from kernels.reference import reference

UPSTREAM_KEY = 1 << 31
WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
IDLE_PER_ENDPOINT = 256


@part
def take(gateway, endpoint, client, now_ns):
    """A connection for a client's request, int64: its row, 0 where none can be had. A fresh one is not ``used``."""
    row = np.int64(gateway.endpoints[endpoint].last)
    while row != 0:
        _unlink(gateway, row)
        if syscalls.peek(gateway.upstreams[row].fd, gateway.out[:1]) == -syscalls.EAGAIN:
            gateway.upstreams[row].readable = 0
            break
        close(gateway, row)
        row = np.int64(gateway.endpoints[endpoint].last)
    if row == 0:
        row = _dial(gateway, endpoint)
        if row == 0:
            return row
    upstream = gateway.upstreams[row]
    upstream.client, upstream.since_ns = client, now_ns
    upstream.start, upstream.end = 0, 0
    return row


@part
def _dial(gateway, endpoint):
    loop = gateway.loop[0]
    if loop.upstreams == 0:
        return np.int64(0)
    fd = syscalls.stream_socket()
    if fd < 0:
        return np.int64(0)
    syscalls.set_option(gateway.exchange, fd, syscalls.IPPROTO_TCP, syscalls.TCP_NODELAY, 1)
    there = gateway.endpoints[endpoint]
    answer = syscalls.connect(gateway.exchange, fd, there.ip, there.port)
    row = np.int64(gateway.free_upstreams[loop.upstreams - 1])
    upstream = gateway.upstreams[row]
    serial = upstream.serial + 1
    if answer != 0 and answer != -syscalls.EINPROGRESS:
        syscalls.close(fd)
        return np.int64(0)
    if syscalls.watch(gateway.exchange, loop.epoll, fd, WATCHED, UPSTREAM_KEY | row, serial) < 0:
        syscalls.close(fd)
        return np.int64(0)
    loop.upstreams -= 1
    there.all += 1
    upstream.fd, upstream.serial, upstream.endpoint = fd, serial, endpoint
    upstream.readable = upstream.writable = upstream.hangup = upstream.failed = upstream.used = 0
    return row


@inner
def meets_nobody(gateway, row):
    """Whether a fresh connection has met a listener that stands for many, where the pod does not listen."""
    size = syscalls.segment_bytes(gateway.exchange, gateway.upstreams[row].fd)
    return size == MARKS[0] or size == MARKS[1]


@part
def release(gateway, row, reusable, now_ns):
    """The request is done: keep the connection for another, or close it."""
    upstream = gateway.upstreams[row]
    endpoint = gateway.endpoints[upstream.endpoint]
    if not reusable or upstream.hangup or endpoint.left or endpoint.idle >= IDLE_PER_ENDPOINT:
        close(gateway, row)
        return
    upstream.client, upstream.used, upstream.since_ns = 0, 1, now_ns
    upstream.before, upstream.after = endpoint.last, 0
    if endpoint.last != 0:
        gateway.upstreams[endpoint.last].after = row
    endpoint.last = row
    endpoint.idle += 1
    gateway.loop[0].idle += 1
    wheel.file(gateway.timers, _timer(gateway, row), _due_ns(gateway, row), now_ns)


@kernel
def _unlink(gateway, row):
    upstream = gateway.upstreams[row]
    endpoint = gateway.endpoints[upstream.endpoint]
    if upstream.after != 0:
        gateway.upstreams[upstream.after].before = upstream.before
    else:
        endpoint.last = upstream.before
    if upstream.before != 0:
        gateway.upstreams[upstream.before].after = upstream.after
    endpoint.idle -= 1
    gateway.loop[0].idle -= 1


@part
def close(gateway, row):
    """Close a connection that is at work."""
    syscalls.close(gateway.upstreams[row].fd)
    forget(gateway, row)


@kernel
def forget(gateway, row):
    """Free the row; its socket is closed, or somebody else's."""
    gateway = reference(gateway)
    loop = gateway.loop[0]
    upstream = gateway.upstreams[row]
    gateway.endpoints[upstream.endpoint].all -= 1
    upstream.fd, upstream.client = -1, 0
    upstream.serial += 1
    gateway.free_upstreams[loop.upstreams] = row
    loop.upstreams += 1


@part
def close_idle(gateway, row):
    _unlink(gateway, row)
    close(gateway, row)


@part
def check(gateway, row, now_ns):
    """Close a connection that has been idle for too long; one that has a request is filed again once it is idle."""
    upstream = gateway.upstreams[row]
    is_idle = upstream.fd > 0 and upstream.client == 0
    if is_idle and wheel.is_late(gateway.timers, _timer(gateway, row), _due_ns(gateway, row), now_ns):
        close_idle(gateway, row)


@kernel
def _timer(gateway, row):
    """That of a connection: they are behind those of clients."""
    return gateway.clients.size + row


@kernel
def _due_ns(gateway, row):
    """Until when an idle connection is kept."""
    return gateway.upstreams[row].since_ns + gateway.loop[0].idle_ns


@part
def on_idle(gateway, row):
    """An idle connection has had an event: close it unless there is nothing to it."""
    upstream = gateway.upstreams[row]
    if upstream.hangup or upstream.failed:
        close_idle(gateway, row)
    elif upstream.readable:
        if syscalls.receive(upstream.fd, gateway.out) == -syscalls.EAGAIN:
            upstream.readable = 0
        else:
            close_idle(gateway, row)
