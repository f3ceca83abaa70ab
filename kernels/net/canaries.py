"""Which requests go to a canary: ``plane.conduct.choose``, of what a FORK says.

Law: a header counts before a cookie before the weight, and who decides nothing leaves it to the next.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_routes import BEGINS, CANARY_BY_REQUEST, ENDS, IS, WORDS
from kernels.lb.hashing import reduce
from kernels.net import fields


@kernel
def takes(roads, heard, fork, draw):
    """1 where the canary has the request, else 0; a reason to punt, negative. ``draw``: 64 random bits."""
    if fork["total"] == 0:
        return np.int64(0)
    said = fields.NEITHER
    if fork["punt"] != 0 or fork["header"]["length"] != 0 or fork["cookie"]["length"] != 0:
        said = _asked_for(roads, heard, fork)
    if said != fields.NEITHER:
        return said if said >= 0 else np.int64(-CANARY_BY_REQUEST)
    return np.int64(reduce(draw, fork["total"]) < fork["weight"])


@part
def _asked_for(roads, heard, fork):
    """ALWAYS, NEVER or NEITHER, by header and by cookie; or ODD."""
    if fork["punt"] != 0:
        return fields.ODD
    text, said = roads.text, fields.NEITHER
    if fork["header"]["length"] != 0:
        i = fields.find(heard, text, np.int64(fork["header"]["offset"]), np.int64(fork["header"]["length"]))
        if i == fields.ODD:
            return fields.ODD
        if i >= 0:
            start = np.int64(heard.head["start"])
            said = _by_header(fork, heard.data, start + heard.lines[i]["value"], start + heard.lines[i]["end"], text)
    if said == fields.NEITHER and fork["cookie"]["length"] != 0:
        offset, size = np.int64(fork["cookie"]["offset"]), np.int64(fork["cookie"]["length"])
        first, last = fields.cookie(heard, text, offset, size)
        if first == fields.ODD:
            return fields.ODD
        said = fields.word(heard.data, first, last) if first >= 0 else fields.NEITHER
    return said


@kernel
def _by_header(fork, data, first, last, text):
    """What a header with the value ``data[first:last]`` decides."""
    if first >= last:
        return fields.NEITHER
    if fork["match"] == WORDS:
        return fields.word(data, first, last)
    offset, size = np.int64(fork["value"]["offset"]), np.int64(fork["value"]["length"])
    if last - first < size:
        return fields.NEITHER
    if fork["match"] == IS:
        there = fields.is_same(data, first, last, text, offset, size)
    elif fork["match"] == BEGINS:
        there = fields.is_same(data, first, first + size, text, offset, size)
    elif fork["match"] == ENDS:
        there = fields.is_same(data, last - size, last, text, offset, size)
    else:
        there = False
        for at in range(first, last - size + 1):
            there |= fields.is_same(data, at, at + size, text, offset, size)
    return fields.ALWAYS if there else fields.NEITHER
