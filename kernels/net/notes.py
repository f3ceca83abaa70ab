"""What the access log is told of a request: noted beside its row once it is done, for others to make a line of.

Law: bytes are copied here and nothing is composed. Where there is no room for them the line is lost, which its row
says; a request never waits for its line.
"""

import numpy as np

from kernels.jit import part
from kernels.layout_log import LOST, SAID_ALL, UNSAID
from kernels.net import fields, text

_AGENT = np.frombuffer(b"user-agent", np.uint8)
_REFERER = np.frombuffer(b"referer", np.uint8)


@part
def begin(gateway, row, lines):
    """A request that is to be logged begins, whose head has these lines: keep where the fields are that are told."""
    client, head, data = gateway.clients[row], gateway.heads[row], gateway.requests[row]
    start = np.int64(head.start)
    client.answered = client.agent_size = client.referer_size = 0
    for i in range(np.int64(head.lines) - 1, -1, -1):  # of several the first counts
        line = lines[i]
        first, last = start + line.start, start + line.name_end
        if fields.is_folded(data, first, last, _AGENT, 0, _AGENT.size):
            client.agent, client.agent_size = line.value, line.end - line.value
        elif fields.is_folded(data, first, last, _REFERER, 0, _REFERER.size):
            client.referer, client.referer_size = line.value, line.end - line.value


@part
def take(gateway, row, number):
    """Note what is told of a client's request that is done, beside row ``number`` of ``done``."""
    client, said = gateway.clients[row], gateway.said[number]
    said.fate = UNSAID
    if client.logged == 0:
        return
    head, data, loop, texts = gateway.heads[row], gateway.requests[row], gateway.loop[0], gateway.texts
    start, at = np.int64(client.start), np.int64(loop.texts)
    to = text.put(texts, at, data, start + head.host, start + head.host + head.host_size)
    to = text.put(texts, to, data, start + head.target, start + head.target + head.target_size)
    to = text.put(texts, to, data, start + head.request_id, start + head.request_id + head.request_id_size)
    to = text.put(texts, to, data, start + client.agent, start + client.agent + client.agent_size)
    to = text.put(texts, to, data, start + client.referer, start + client.referer + client.referer_size)
    said.fate = SAID_ALL if to >= 0 else LOST
    if to < 0:
        return
    loop.texts = to
    said.bytes, said.text, said.ip, said.secured = client.answered, at, client.who, client.secured
    said.host, said.target, said.request_id = head.host_size, head.target_size, head.request_id_size
    said.agent, said.referer, said.method = client.agent_size, client.referer_size, head.method
