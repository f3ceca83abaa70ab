"""A request put to compiled routes, and the same one to what the slow path asks: ``Router`` and ``Conduct``."""

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import numpy as np

from kernels.jit import kernel
from kernels.layout import freeze
from kernels.layout_gateway import ENDPOINT, Way
from kernels.layout_http import HEAD, LINE
from kernels.layout_routes import ANSWER, ASK, FIRST_PUNT, GO, PUNTS, Heard, Memory, Roads
from kernels.net import balancing, decisions, digests, hashed, hostpath, http1, limits, rewrites, sharing, sticky
from plane.conduct import Answer, Conduct, Request, choose
from plane.fastroutes import create_memory
from plane.ingress import forwarding
from plane.policies import Packer, Policies
from plane.router import Router
from plane.routes import Port, Routes

DATE = b"Date: Fri, 27 Nov 2026 12:00:00 GMT"
NOW_NS = 1_000_000_000


@kernel
def put_fields(roads, data, asked, out, at):
    """What compiled code alone can call, as are those that follow."""
    return sharing.put_fields(roads, data, asked, out, at)


@kernel
def put_target(roads, rule, data, head, out):
    return rewrites.put_target(roads, rule, data, head, out)


@kernel
def pick_sticky(way, endpoints, heard, asked, out, words):
    return sticky.pick(way, endpoints, heard, asked, out, words)


@kernel
def pick_hashed(way, heard, asked, out, words):
    return hashed.pick(way, heard, asked, out, words)


@kernel
def pick(way, endpoints, asked):
    return balancing.pick(way, endpoints, asked)


@kernel
def pick_in_turn(roads, memory, goal, now_ns):
    return balancing.in_turn(roads, memory, goal, now_ns)


@kernel
def put_cookie(roads, asked, out, at):
    return sticky.put_cookie(roads, asked, out, at)


@dataclass(frozen=True)
class Asked:
    """A request: what both sides are told of it."""

    host: str
    uri: str = "/"
    secure: bool = False
    method: str = "GET"
    client: int = 0x7F000001
    length: int = 0
    https_port: int = 8443
    draw: int = 0
    fields: tuple[tuple[str, str], ...] = ()

    def value(self, name: str) -> str:
        return ("; " if name == "cookie" else ", ").join(value for key, value in self.fields if key.lower() == name)

    @property
    def path(self) -> str:
        return self.uri.partition("?")[0]


@dataclass(frozen=True)
class Said:
    """What the fast path said: why it punts, or else an answer's bytes, or rows of where the request goes.

    ``target`` is what the endpoint is asked for where it is something else, ``fields`` what its answer gets besides.
    """

    punt: str = ""
    answer: bytes = b""
    goal: int = 0
    origin: int = 0
    rule: int = 0
    target: str = ""
    fields: bytes = b""


def text_of(code: int) -> str:
    """A reason to punt, as it is returned, in words."""
    return PUNTS[-code - FIRST_PUNT]


def received(data: bytes) -> np.ndarray:
    """Bytes as the gateway has them, in memory that is written to: for read-only ones all would be compiled again."""
    return np.frombuffer(bytearray(data), np.uint8)


def found(roads: Roads, host: str, path: str) -> int:
    """What ``find`` says, with other bytes all around."""
    name, text = host.encode("latin-1"), path.encode("latin-1")
    data = received(b"x" + name + b"y" + text + b"z")
    return int(hostpath.find(roads, data, 1, len(name), len(name) + 2, len(text)))


def heard(asked: Asked) -> Heard:
    """The request as one was scanned: its Host at 1, its target one byte behind that, and then its fields."""
    name, text = asked.host.encode("latin-1"), asked.uri.encode("latin-1")
    data, lines = b"x" + name + b"y" + text + b"z", np.zeros(max(1, len(asked.fields)), LINE)
    for line, (key, value) in zip(lines, asked.fields, strict=False):
        named, valued = key.encode("latin-1"), value.encode("utf-8", "surrogateescape")
        at = len(data) - 1  # head["start"] is 1
        line["start"], line["name_end"] = at, at + len(named)
        line["value"], line["end"] = at + len(named) + 1, at + len(named) + 1 + len(valued)
        data += named + b":" + valued + b"\n"
    head = np.zeros(1, HEAD)
    head["start"], head["lines"], head["target"] = 1, len(asked.fields), len(name) + 1
    head["target_size"], head["path_size"] = len(text), len(asked.path)
    return Heard(received(data), head[0], lines)


def said(roads: Roads, asked: Asked, *, keep_alive: bool = True, tallies: np.ndarray | None = None) -> Said:
    """What becomes of a request on the fast path."""
    name, text = asked.host.encode("latin-1"), asked.uri.encode("latin-1")
    request = heard(asked)
    data = request.data
    row = int(hostpath.find(roads, data, 1, len(name), len(name) + 2, len(asked.path)))
    if row < 0:
        return Said(text_of(row))
    rows = np.zeros(1, ASK)
    ask: Any = rows[0]
    ask["draw"], ask["length"], ask["client"], ask["https_port"] = (
        asked.draw,
        asked.length,
        asked.client,
        asked.https_port,
    )
    ask["host"], ask["host_size"], ask["uri"], ask["uri_size"] = 1, len(name), len(name) + 2, len(text)
    ask["path_size"], ask["now_ns"] = len(asked.path), NOW_NS
    ask["secure"], ask["bodiless"], ask["options"] = asked.secure, asked.method == "HEAD", asked.method == "OPTIONS"
    code = int(decisions.decide(roads, limits.create(limits.WAYS) if tallies is None else tallies, request, ask, row))
    if code < 0:
        return Said(text_of(code))
    decided = Said("", b"", int(ask["goal"]), int(ask["origin"]), int(ask["rule"]))
    out = np.full(4096, 0xEE, np.uint8)
    if code == GO:
        size = int(put_fields(roads, data, ask, out, 0))
        decided = replace(decided, fields=out[:size].tobytes())
        rule: Any = roads.rules[decided.rule]
        if rule["rewrite"]["count"]:
            size = int(put_target(roads, rule, data, request.head, out))
            decided = replace(decided, target=out[:size].tobytes().decode())
        return replace(decided, target="" if decided.target == asked.uri else decided.target)
    assert code == ANSWER
    date = received(DATE)
    size = int(decisions.write_answer(roads, data, ask, date, int(keep_alive), out))
    assert (out[size:] == 0xEE).all()
    assert decisions.write_answer(roads, data, ask, date, int(keep_alive), out[: size - 1]) == -1
    return replace(decided, answer=out[:size].tobytes())


def slow(routes: Routes, asked: Asked, *, keep_alive: bool = True) -> Said:
    """What the slow path says where no condition is met, as ``Exchange`` and ``Policed`` do; by weight no canary."""
    match = Router(routes).match(asked.host, asked.path)
    conduct = Conduct(routes.policy(match.policy))
    request = Request(
        method=asked.method,
        scheme="https" if asked.secure else "http",
        host=asked.host,
        uri=asked.uri,
        client=asked.client,
        length=max(asked.length, 0),
        value=asked.value,
        https_port=asked.https_port,
        address="127.0.0.1",
    )
    target, origin = match.target, match.origin
    answer = conduct.answer(request)
    if answer is None and match.canary:
        other = routes.policies.canaries[match.canary]
        names = tuple(str(routes.services[routes.targets[row]["service"]]) for row in (target, int(other["target"])))
        is_served = routes.is_served(int(other["target"]))
        chosen = choose(routes.canary(match.canary), request, conduct.policies, names, is_served=is_served)  # type: ignore[arg-type]
        if chosen.canary and not chosen.weighed:
            target, origin = int(other["target"]), int(other["origin"])
    decided = Said("", b"", target, origin, match.policy)
    if answer is None and not target:
        answer = Answer(404, "no Ingress has a rule for this host and path")
    elif answer is None and not routes.is_served(target):
        row = routes.targets[target]
        answer = Answer(int(row["status"]), f"Service {routes.services[row['service']]} has no ready endpoint")
    if answer is None:
        uri, ours = conduct.upstream(request).uri, forwarding.field_lines(conduct.fields(request))
        lines = b"".join(line + b"\r\n" for line in ours)
        return replace(decided, target="" if uri == asked.uri else uri, fields=lines)
    fields = (("Location", answer.location), *answer.fields) if answer.location else answer.fields
    lines = forwarding.field_lines(fields)
    if ours := conduct.fields(request):
        lines = [*forwarding.without(lines, conduct.replaced), *forwarding.field_lines(ours)]
    phrase, lines, body = forwarding.own_message(answer.status, answer.reason.strip(), lines)
    lines = [DATE if line.startswith(b"Date: ") else line for line in lines]
    close = () if keep_alive else (forwarding.CLOSE,)
    length = () if answer.status == HTTPStatus.NO_CONTENT else (b"Content-Length: %d" % len(body),)
    head = (forwarding.status_line(answer.status, phrase), *lines, *length, *close)
    return replace(decided, answer=b"\r\n".join((*head, b"", b"" if asked.method == "HEAD" else body)))


def with_policies(routes: Routes, policies: Policies) -> Routes:
    """The Routes with these policies on every path."""
    text = bytearray(routes.text.tobytes())

    def add(string: str) -> tuple[int, int]:
        text.extend(string.encode())
        return len(text) - len(string.encode()), len(string.encode())

    packer, paths = Packer(add), routes.paths.copy()
    paths["policy"][1:] = packer.policy(policies)
    tables = packer.tables()
    return replace(routes, paths=freeze(paths), policies=tables, text=freeze(np.frombuffer(bytes(text), np.uint8)))


def multiplied(routes: Routes, names: list[str]) -> Routes:
    """Routes of one host, one path and one target, as if each of these hosts had that path, and a target of its own."""
    count, numbers = len(names), np.arange(1, len(names) + 1)
    path_size = int(routes.paths[1]["text_length"])
    path_text = routes.text[int(routes.paths[1]["text"]) :][:path_size]
    hosts, paths, targets = (np.repeat(rows[1:2], count) for rows in (routes.hosts, routes.paths, routes.targets))
    sizes = np.array([len(name) for name in names])
    hosts["name"], hosts["name_length"], hosts["first_path"] = sizes.cumsum() - sizes, sizes, numbers
    paths["text"], paths["target"], targets["service"] = sizes.sum(), numbers, numbers
    return replace(
        routes,
        hosts=freeze(np.concatenate((routes.hosts[:1], hosts))),
        paths=freeze(np.concatenate((routes.paths[:1], paths))),
        targets=freeze(np.concatenate((routes.targets[:1], targets))),
        services=(routes.services[0], *(Port(f"default/{name}", 80) for name in names)),
        text=freeze(np.concatenate((np.frombuffer("".join(names).encode(), np.uint8), path_text))),
    )


def stuck(roads: Roads, memory: Memory, cookies: tuple[str, ...], goal: int = 1, draw: int = 7) -> tuple[int, str, str]:
    """(backend, key that the client is given, line that gives it) of a request with these Cookie fields; or a punt."""
    request = heard(Asked("example.com", fields=tuple(("Cookie", cookie) for cookie in cookies)))
    rows: Any = np.zeros(1, ASK)
    ask: Any = rows[0]
    ask["rule"], ask["goal"], ask["draw"], ask["now_ns"] = 1, goal, draw, NOW_NS
    out = np.zeros(512, np.uint8)
    words = np.zeros(digests.WORDS, np.uint64)
    backend = int(pick_sticky(way_of(roads, memory), standings(roads), request, ask, out, words))
    if not ask["sticks"]:
        return backend, "", ""
    size = int(put_cookie(roads, ask, out, 0))
    return backend, f"{int(ask['key']):016x}", out[:size].tobytes().decode()


def way_of(roads: Roads, memory: Memory) -> Way:
    """As a gateway has it whose rows of endpoints have the ids of backends."""
    return Way(roads, memory, np.arange(len(roads.backends), dtype=np.uint32))


def standings(roads: Roads) -> np.ndarray:
    """ENDPOINT[…] of endpoints that nothing is known of."""
    return np.zeros(len(roads.backends), ENDPOINT)


def chosen(
    way: Way, endpoints: np.ndarray, draw: int = 7, client: int = 0x7F000001, port: int = 0, now_ns: int = NOW_NS
) -> int:
    """The backend that the first goal's algorithm has for a request."""
    ask: Any = np.zeros(1, ASK)[0]
    ask["goal"], ask["draw"], ask["now_ns"], ask["client"], ask["port"] = 1, draw, now_ns, client, port
    return int(pick(way, endpoints, ask))


def of_key(roads: Roads, memory: Memory, raw: bytes, asked: Asked, draw: int = 7) -> int:
    """The backend that equal requests have of the first goal, by the first rule; or a punt. ``raw`` is the request."""
    data, head, lines = received(raw), http1.create_heads(1)[0], http1.create_lines()
    assert http1.scan_request(data, 0, len(raw), head, lines) == len(raw)
    ask: Any = np.zeros(1, ASK)[0]
    ask["rule"], ask["goal"], ask["draw"], ask["now_ns"], ask["client"] = 1, 1, draw, NOW_NS, asked.client
    ask["secure"], ask["host"], ask["host_size"] = asked.secure, head["host"], head["host_size"]
    ask["uri"], ask["uri_size"], ask["path_size"] = head["target"], head["target_size"], head["path_size"]
    room = np.zeros(1 << 15, np.uint8), np.zeros(digests.WORDS, np.uint64)
    return int(pick_hashed(way_of(roads, memory), Heard(data, head, lines), ask, *room))


def picked(roads: Roads, memory: Memory, goal: int, now_ns: int = NOW_NS) -> int:
    """The backend whose turn it is."""
    return int(pick_in_turn(roads, memory, goal, now_ns))


def turns(roads: Roads, count: int) -> list[int]:
    """The first picks of the first goal, from nothing."""
    memory = create_memory(roads)
    return [picked(roads, memory, 1) for _ in range(count)]
