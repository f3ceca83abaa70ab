"""What routes say of a request that the gateway has read: where it goes, what its endpoint and its client are told.

Law: ``hostpath`` finds and ``decisions`` decides; here they are asked about a request of ``Gateway``. The rule that it
began with is asked again, for its host and for the fields of its answer, as long as the same rules are in force
(``ruling``).
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout import EWMA, RETRY_CONDITIONS, RR
from kernels.layout_http import BODILESS, HEAD_METHOD, OPTIONS, SIZED, Ours
from kernels.layout_routes import NO_RULE, Heard
from kernels.net import balancing, decisions, hashed, hostpath, limits, rewrites, sharing, sticky, syscalls, text

MS_NS = 1_000_000
STATUSES = np.array(
    [(int(name.removeprefix("http_")), number) for number, name in enumerate(RETRY_CONDITIONS) if "http_" in name]
)
_13, _7, _17 = np.uint64(13), np.uint64(7), np.uint64(17)
_COLON = np.frombuffer(b":", np.uint8)


@inner
def draw(loop):
    """64 random bits, never all 0 (xorshift64: https://doi.org/10.18637/jss.v008.i14)."""
    loop.seed ^= loop.seed << _13
    loop.seed ^= loop.seed >> _7
    loop.seed ^= loop.seed << _17
    return loop.seed


@part
def decide(way, gateway, place, now_ns):
    """Have ``gateway.asked`` and its client's row say what becomes of a request of the batch."""
    row, asked = np.int64(gateway.asking[place]), gateway.asked[place]
    client, head, loop, data = gateway.clients[row], gateway.heads[row], gateway.loop[0], gateway.requests[row]
    roads, start = way.roads, np.int64(head.start)
    host_size, path_size = np.int64(head.host_size), np.int64(head.path_size)
    road = hostpath.find(roads, data, start + head.host, host_size, start + head.target, path_size)
    if road < 0:
        asked.said = road
        return
    asked.draw, asked.client, asked.now_ns = draw(loop), client.who, now_ns
    asked.length = _announced(head)
    asked.host, asked.host_size = start + head.host, head.host_size
    asked.uri, asked.uri_size, asked.path_size = start + head.target, head.target_size, head.path_size
    asked.https_port, asked.secure, asked.bodiless = loop.https_port, client.by_https, head.method == HEAD_METHOD
    asked.options = head.method == OPTIONS
    heard = Heard(data, head, gateway.lines[place])
    asked.said = decisions.decide(roads, gateway.tallies, heard, asked, road)
    client.goal, client.origin, client.rule = asked.goal, asked.origin, asked.rule
    client.ruling, client.install = loop.ruling, loop.install
    client.limit, client.counted, client.shares = asked.limit, asked.counted, asked.shares
    client.named, client.named_size = asked.named - start, asked.named_size
    rule = roads.rules[client.rule]
    client.logged = loop.logs != 0 and rule.unlogged == 0
    client.retry_on = rule.retry_on
    client.read_ns = rule.read_ms * MS_NS if rule.read_ms else loop.read_ns
    client.send_ns = rule.send_ms * MS_NS if rule.send_ms else loop.read_ns


@kernel
def _announced(head):
    """Bytes of a request's body, -1 where nobody has said how many."""
    if head.framing == SIZED:
        return np.int64(head.length)
    return np.int64(0 if head.framing == BODILESS else -1)


@part
def pick(way, gateway, place, now_ns):
    """The backend id of the endpoint for a request of the batch, 0 for none; a reason to hand over, < 0."""
    row, asked, roads = np.int64(gateway.asking[place]), gateway.asked[place], way.roads
    client = gateway.clients[row]
    rule, goal = roads.rules[client.rule], roads.goals[client.goal]
    client.sticks, client.asked_ns = 0, 0
    if goal.algorithm == RR and rule.cookie.length == 0 and rule.hashed.count == 0:
        return balancing.in_turn(roads, way.memory, np.int64(client.goal), now_ns)
    if goal.algorithm == EWMA:
        client.asked_ns = syscalls.monotonic_ns(gateway.exchange)
    asked.draw, asked.now_ns, asked.port = draw(gateway.loop[0]), now_ns, client.port
    heard = Heard(gateway.requests[row], gateway.heads[row], gateway.lines[place])
    if rule.hashed.count != 0:
        return np.int64(hashed.pick(way, heard, asked, gateway.out, gateway.words))
    backend = sticky.pick(way, gateway.endpoints, heard, asked, gateway.out, gateway.words)
    client.sticks, client.key = asked.sticks, asked.key
    return np.int64(backend)


@inner
def leave_limit(gateway, row):
    """A request is done, and no more among those that its limit counts."""
    client = gateway.clients[row]
    if client.counted != 0:
        limits.leave(gateway.tallies, client.limit, np.uint64(client.who))
    client.limit, client.counted = 0, 0


@inner
def undo_limit(gateway, row):
    """A request goes to the slow path, which asks its limit anew."""
    client = gateway.clients[row]
    if client.limit != 0:
        limits.give_back(gateway.tallies, client.limit, np.uint64(client.who), client.counted)
    client.limit, client.counted = 0, 0


@part
def write_answer(way, gateway, place):
    """Write the answer that was decided on to ``out``: its size, -1 where it has no room there."""
    row, asked, roads, date = np.int64(gateway.asking[place]), gateway.asked[place], way.roads, gateway.ours.date
    client = gateway.clients[row]
    client.status = asked.status
    if asked.reply != roads.goals[asked.goal].reply:
        client.goal = 0  # it was not the goal that had nobody
    data = gateway.requests[row]
    return np.int64(
        decisions.write_answer(roads, data, asked, date[: date.size - 2], np.int64(client.keep_alive), gateway.out)
    )


@inner
def was_let_in(gateway, place):
    """Whether policies had nothing against a request that is answered for want of an endpoint, or of a goal."""
    client, asked = gateway.clients[gateway.asking[place]], gateway.asked[place]
    return client.goal != 0 or (client.rule != 0 and asked.reply == NO_RULE)


@inner
def holds(gateway, row):
    """Whether the rule of a request may be asked still: it has none, or the same rules are in force."""
    client = gateway.clients[row]
    return client.rule == 0 or client.ruling == gateway.loop[0].ruling


@part
def write_host(way, gateway, row):
    """Write what the endpoint is told as Host to ``gateway.host``: its size, 0 where it is what the client said."""
    client = gateway.clients[row]
    rule = way.roads.rules[client.rule]
    if rule.own_host:
        endpoint = gateway.endpoints[gateway.upstreams[client.upstream].endpoint]
        to = text.put_ip(gateway.host, np.int64(0), np.int64(endpoint.ip))
        return text.put_decimal(gateway.host, text.put_all(gateway.host, to, _COLON), np.int64(endpoint.port))
    first = np.int64(rule.host.offset)
    return text.put(gateway.host, np.int64(0), way.roads.text, first, first + np.int64(rule.host.length))


@part
def write_target(way, gateway, row):
    """Write what the endpoint is asked for in the place of the target: its size, 0 where that stays, -1: no room."""
    rule = way.roads.rules[gateway.clients[row].rule]
    if rule.rewrite.count == 0:
        return np.int64(0)
    return np.int64(rewrites.put_target(way.roads, rule, gateway.requests[row], gateway.heads[row], gateway.target))


@inner
def wants_another(client, status):
    """Whether the policy may have another endpoint asked after an answer with this status."""
    for i in range(STATUSES.shape[0]):
        if STATUSES[i, 0] == status:
            return client.retry_on >> np.uint32(STATUSES[i, 1]) & 1 != 0
    return False


@part
def adorn(way, gateway, row, head):
    """Put the fields of a request's rule in place of an answer's own. Returns what is written into its head besides."""
    client, ours, roads = gateway.clients[row], gateway.ours, way.roads
    if client.rule == 0:
        return Ours(ours.date, ours.server, gateway.more[:0])
    rule = roads.rules[client.rule]
    decisions.drop_replaced(roads, rule, gateway.answers[client.upstream], head, gateway.lines[0])
    asked = gateway.asked[0]
    asked.rule, asked.secure, asked.shares = client.rule, client.by_https, client.shares
    asked.named, asked.named_size = client.start + client.named, client.named_size
    size = np.int64(sharing.put_fields(roads, gateway.requests[row], asked, gateway.more, np.int64(0)))
    if client.sticks:
        asked.key, asked.goal = client.key, client.goal
        size = np.int64(sticky.put_cookie(roads, asked, gateway.more, size))
    return Ours(ours.date, ours.server, gateway.more[: max(np.int64(0), size)])
