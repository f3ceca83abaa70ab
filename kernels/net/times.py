"""How long the gateway waits for whom, and what becomes of who is late.

Law: a client is filed at the end of each of its turns, in which all that says so is written; a connection to an
endpoint when it becomes idle. Nobody is looked at before a slot of a ``wheel`` comes up, and no more in one pass than
LOOKS, so a crowd that came together does not hold up others when its time is over.
"""

import numpy as np

from kernels.jit import kernel, part
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
LOOKS = 256  # at clients, and at idle connections


@kernel
def file(gateway, row, now_ns):
    """Have a client looked at when it is late, should it not show a sign of life before."""
    wheel.file(gateway.timers, row, _due_ns(gateway, row), now_ns)


@kernel
def _due_ns(gateway, row):
    """Until when a sign of life of a client, or of its endpoint, is waited for; NEVER: not at all."""
    client, loop = gateway.clients[row], gateway.loop[0]
    state, is_sent, asked_ns = client.state, client.sent == client.unsent, gateway.upstreams[client.upstream].since_ns
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
        return asked_ns + client.send_ns
    if state == WAITING or (state == ANSWERING and is_sent and client.upstream != 0):
        return asked_ns + client.read_ns
    if state == ANSWERING:
        return client.since_ns + loop.send_ns
    return np.int64(NEVER)


@kernel
def next_ns(gateway):
    """Nobody is late before."""
    return min(gateway.timers.clock[0].next_ns, gateway.idle_timers.clock[0].next_ns)


@kernel
def check(gateway, now_ns):
    """Whoever has waited too long is left, or handed over to whom can say so."""
    if now_ns >= next_ns(gateway):  # each pass asks, and a call with all tables takes longer than that
        _check_clients(gateway, now_ns)
        _check_idle(gateway, now_ns)


@part
def _check_clients(gateway, now_ns):
    for _ in range(LOOKS):
        row = wheel.take(gateway.timers, now_ns)
        if row == 0:
            break
        if _due_ns(gateway, row) < now_ns:
            _leave(gateway, row, now_ns)
        else:
            file(gateway, row, now_ns)


@part
def _check_idle(gateway, now_ns):
    idle_ns = np.int64(gateway.loop[0].idle_ns)
    for _ in range(LOOKS):
        row = wheel.take(gateway.idle_timers, now_ns)
        if row == 0:
            break
        upstream = gateway.upstreams[row]
        if upstream.fd <= 0 or upstream.client != 0:
            continue  # it is filed anew when it is idle
        if upstream.since_ns + idle_ns < now_ns:
            upstreams.close_idle(gateway, row)
        else:
            wheel.file(gateway.idle_timers, row, upstream.since_ns + idle_ns, now_ns)


@part
def _leave(gateway, row, now_ns):
    """A client, or its endpoint, is late."""
    client = gateway.clients[row]
    state, is_sent = client.state, client.sent == client.unsent
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
