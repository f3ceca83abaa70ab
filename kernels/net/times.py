"""How long the gateway waits for whom, and what becomes of who is late.

Law: a client is filed at the end of each of its turns, in which all that says so is written, a connection to an
endpoint when it becomes idle. Nobody is looked at before his slot of the ``wheel`` comes up.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout_gateway import (
    ANNOUNCING,
    ANSWERING,
    CONNECTING,
    LATE,
    NO_CONNECTION,
    READING,
    SENDING,
    SLOW_BODY,
    SLOW_REQUEST,
    STREAMING,
    WAITING,
)
from kernels.layout_wheel import NEVER
from kernels.net import requests, upstreams, wheel

BEAT_NS = 50_000_000  # what does not come within it is handed over: the rest of a request, a connection


@inner
def file(gateway, row, now_ns):
    """Have a client looked at when it is late, should it not show a sign of life before."""
    client = gateway.clients[row]
    due_ns = _due_ns(client, gateway.upstreams[client.upstream], gateway.loop[0])
    wheel.file(gateway.timers, row, due_ns, now_ns)


@kernel
def _due_ns(client, upstream, loop):
    """Until when a sign of life of a client, or of its endpoint, is waited for; NEVER: not at all."""
    state, is_sent = client.state, client.sent == client.unsent
    if state == READING and client.end > client.start:
        return client.since_ns + BEAT_NS
    if state == READING:
        return client.since_ns + (loop.keep_alive_ns if client.used else loop.head_ns)
    if state == ANNOUNCING:
        return client.since_ns + loop.head_ns
    if state == CONNECTING:
        return client.since_ns + BEAT_NS
    if state == STREAMING and is_sent:
        return client.since_ns + loop.body_ns
    if state in (SENDING, STREAMING):
        return upstream.since_ns + client.send_ns
    if state == WAITING or (state == ANSWERING and is_sent and client.upstream != 0):
        return upstream.since_ns + client.read_ns
    if state == ANSWERING:
        return client.since_ns + loop.send_ns
    return np.int64(NEVER)


@part
def check(gateway, now_ns):
    """Whoever has waited too long is left, or handed over to whom can say so."""
    for _ in range(wheel.LOOKS):
        row = wheel.take(gateway.timers, now_ns)
        if row == 0:
            return
        if row >= gateway.clients.size:
            upstreams.check(gateway, row - gateway.clients.size, now_ns)
            continue
        client = gateway.clients[row]
        state, is_sent = client.state, client.sent == client.unsent
        due_ns = _due_ns(client, gateway.upstreams[client.upstream], gateway.loop[0])
        if not wheel.is_late(gateway.timers, row, due_ns, now_ns):
            continue
        if state == CONNECTING or (state == READING and client.upstream != 0):
            requests.redial(gateway, row, NO_CONNECTION)
        elif state == READING and client.end > client.start:
            requests.hand_over(gateway, row, SLOW_REQUEST)
        elif state in (READING, ANNOUNCING):
            requests.end(gateway, row)
        elif state == STREAMING and is_sent:
            requests.hand_over(gateway, row, SLOW_BODY)
        elif state == ANSWERING:
            requests.give_up(gateway, row, requests.LATE_ANSWER if is_sent else requests.CLIENT_LEFT, now_ns)
        elif state in (SENDING, STREAMING, WAITING):
            requests.hand_over(gateway, row, LATE)
