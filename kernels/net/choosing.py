"""Which endpoint a request gets: that of its client's cookie, that of equal requests, or one by its goal's algorithm.

Law: what a route asks for first counts alone, as in ``plane.ingress.policed``.
"""

from kernels.jit import part
from kernels.net import balancing, hashed, sticky


@part
def pick(way, endpoints, heard, asked, out, words):
    """The backend id, int64, 0 for none; a reason to punt, negative.

    Of ``asked``, a row of ASK, all that is asked counts, the goal and the rule; ``sticks`` and ``key`` are written to
    it. ``endpoints`` is ENDPOINT[…], ``out`` and ``words`` are room to work in.
    """
    rule = way.roads.rules[asked["rule"]]
    asked["sticks"] = 0
    if rule["cookie"]["length"] != 0:
        return sticky.pick(way, endpoints, heard, asked, out, words)
    if rule["hashed"]["count"] != 0:
        return hashed.pick(way, heard, asked, out, words)
    return balancing.pick(way, endpoints, asked)
