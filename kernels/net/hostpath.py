"""Where a request goes: looked up in Roads by the bytes of its head, decided by the rule of its road, endpoint picked.

    find ─► road ─► decide ─► GO: goal ─► pick ─► endpoint
             │ 0      │ ANSWER: reply ─► write_answer
             └────────┴── negative: a reason to punt

Law: what is said here is what ``plane.router``, ``plane.conduct`` and ``plane.ingress.table`` say, byte by byte, or it
is a punt. Nothing here knows sockets. Each index that follows from what was sent stands beside its check; the work of
one look-up is bounded by the length of host and path.

The rows of a host stand in order of matching, so the first of all that take a path has it: one pass over the path
hashes it byte by byte and looks up, at every place where a rule's text may end, whether one does.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import EXACT, HOST, NAMED, PATH, PREFIX, STARTS, WILDCARD, freeze
from kernels.layout_http import DROPPED
from kernels.layout_limits import COUNTED, LET_IN, OVER_MINUTE, OVER_SECOND
from kernels.layout_routes import (
    ANSWER,
    BODY,
    CANARY_BY_REQUEST,
    CONDITION,
    DENIED,
    FOLDED_PREFIX,
    FOLDED_STARTS,
    GO,
    HOST_EXPRESSION,
    HOSTNAME,
    HTTP_HOST,
    NO_RULE,
    NOT_ALLOWED,
    ODD_HOST,
    ODD_PATH,
    PATH_EXPRESSION,
    REQUEST_URI,
    REWRITE,
    ROAD,
    SCHEME,
    SITE,
    SLOT,
    TEXT,
    TRIMMED_URI,
)
from kernels.lb.hashing import GOLDEN, mix64
from kernels.net import canaries, fields, limits, rewrites, sharing, text

_OFFSET = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
_PRIME = np.uint64(0x100000001B3)
_1, _3, _32, _63 = np.uint64(1), np.uint64(3), np.uint64(32), np.uint64(63)
_COLON, _DOT, _SLASH, _PERCENT, _BACKSLASH, _HASH = 0x3A, 0x2E, 0x2F, 0x25, 0x5C, 0x23
_QUESTION_MARK = 0x3F
_PORT_DIGITS = 5
# What is looked up, and what is answered: a Python integer would be a type of its own to the compiler, each.
_EXACT, _PREFIX, _STARTS, _FOLDED_PREFIX, _FOLDED_STARTS, _NAMED, _WILDCARD, _NONE = map(
    np.int64, (EXACT, PREFIX, STARTS, FOLDED_PREFIX, FOLDED_STARTS, NAMED, WILDCARD, 0)
)
_NO_RULE, _NOT_ALLOWED, _DENIED = map(np.uint32, (NO_RULE, NOT_ALLOWED, DENIED))
_T, _E = 0x74, 0x65


@kernel
def find(roads, data, host, host_size, path, path_size):
    """The road of a request, int64; 0 where no rule takes it; a reason to punt, negative.

    ``data[host : host + host_size]`` is its Host header, ``data[path : path + path_size]`` its path without the query.
    """
    site = _find_site(roads, data, host, host_size)
    return site if site < 0 else _find_road(roads, roads.hosts[site], data, path, path_size)


@kernel
def _find_site(roads, data, host, size):
    """The row of ``roads.hosts``, 0 where there are no rules for the host; a reason to punt, negative."""
    if host < 0 or size <= 0 or host + size > data.size:
        return np.int64(-ODD_HOST)
    whole, rest = _OFFSET, _OFFSET  # hashes of the name, and of what follows its first label
    dot, end = np.int64(-1), np.int64(size)
    for i in range(size):
        byte = fields.lower(data[host + i])
        if byte == _COLON:
            end = np.int64(i)
            break
        if not _is_of_names(byte):
            return np.int64(-ODD_HOST)
        if byte == _DOT and dot < 0:
            dot = np.int64(i)
        if dot >= 0:
            rest = (rest ^ np.uint64(byte)) * _PRIME
        whole = (whole ^ np.uint64(byte)) * _PRIME
    if end == 0 or data[host + end - 1] == _DOT or size - end - 1 > _PORT_DIGITS:
        return np.int64(-ODD_HOST)
    for i in range(end + 1, size):
        if not 0x30 <= data[host + i] <= 0x39:
            return np.int64(-ODD_HOST)
    site = _look_up_host(roads, _NAMED, whole, data, host, end)
    if site == 0 and dot > 0:
        site = _look_up_host(roads, _WILDCARD, rest, data, host + dot, end - dot)
    if site == 0 and roads.expressed[0] != 0:
        return np.int64(-HOST_EXPRESSION)
    if site == 0:
        site = _look_up_host(roads, _NAMED, _OFFSET, data, host, _NONE)
    return site


@kernel
def _look_up_host(roads, kind, word, data, start, size):
    slots = roads.host_slots
    key = _host_key(kind, word)
    mask, tag = np.uint64(slots.size - 1), np.uint32(key >> _32)
    at = key & mask
    for _ in range(slots.size):
        row = np.int64(slots[at]["row"])
        if row == 0 or row >= roads.hosts.size:
            return np.int64(0)
        if slots[at]["tag"] == tag and _is_named(roads, row, kind, data, start, size):
            return row
        at = (at + _1) & mask
    return np.int64(0)


@kernel
def _find_road(roads, site, data, path, size):
    """The first road of a host that takes a path, as ``find`` has it."""
    if path < 0 or size <= 0 or path + size > data.size or data[path] != _SLASH:
        return np.int64(-ODD_PATH)
    none = np.int64(roads.roads.size)
    found, word, slash = none, _OFFSET, np.int64(0)
    for i in range(size + 1):
        byte = data[path + i] if i < size else np.uint8(_SLASH)
        if byte == _SLASH and i > 0:
            if _is_odd_segment(data, path + slash + 1, i - slash - 1, i == size):
                return np.int64(-ODD_PATH)
            slash = np.int64(i)
        bit = _1 << (np.uint64(i) & _63)
        if i <= site["longest"]:
            if byte == _SLASH and site["prefixes"] & bit != 0:
                found = min(found, _look_up(roads, site["paths"], _PREFIX, word, data, path, i))
            if site["starts"] & bit != 0:
                found = min(found, _look_up(roads, site["paths"], _STARTS, word, data, path, i))
        if i == size:
            if site["exacts"] & bit != 0:
                found = min(found, _look_up(roads, site["paths"], _EXACT, word, data, path, i))
        elif not 0x21 <= byte <= 0x7E or byte in (_PERCENT, _BACKSLASH, _HASH, _QUESTION_MARK):
            return np.int64(-ODD_PATH)
        word = (word ^ np.uint64(byte)) * _PRIME
    if site["folded_prefixes"] | site["folded_starts"] != 0:
        found = min(found, _find_folded(roads, site, data, path, size))
    if site["expression"] != 0 and site["expression"] < found:
        return np.int64(-PATH_EXPRESSION)
    if found == none:
        return np.int64(site["default"])
    return -np.int64(roads.roads[found]["punt"]) if roads.roads[found]["punt"] != 0 else found


@kernel
def _look_up(roads, paths, kind, word, data, start, size):
    """The first road of these paths with a kind and a text; as many as there are roads where there is none."""
    slots = roads.slots
    key = _road_key(paths, kind, word)
    mask, tag = np.uint64(slots.size - 1), np.uint32(key >> _32)
    at = key & mask
    for _ in range(slots.size):
        row = np.int64(slots[at]["row"])
        if row == 0 or row >= roads.roads.size:
            break
        if slots[at]["tag"] == tag and _is_road(roads.roads[row], roads.text, paths, kind, data, start, size):
            return row
        at = (at + _1) & mask
    return np.int64(roads.roads.size)


@part
def _find_folded(roads, site, data, path, size):
    """The first road whose text a path begins with in whatever case; as many as there are roads where there is none."""
    found, word = np.int64(roads.roads.size), _OFFSET
    for i in range(min(size, np.int64(site["longest"])) + 1):
        byte = fields.lower(data[path + i]) if i < size else np.uint8(_SLASH)
        bit = _1 << (np.uint64(i) & _63)
        if byte == _SLASH and site["folded_prefixes"] & bit != 0:
            found = min(found, _look_up_folded(roads, site["paths"], _FOLDED_PREFIX, word, data, path, i))
        if site["folded_starts"] & bit != 0:
            found = min(found, _look_up_folded(roads, site["paths"], _FOLDED_STARTS, word, data, path, i))
        word = (word ^ np.uint64(byte)) * _PRIME
    return found


@kernel
def _look_up_folded(roads, paths, kind, word, data, start, size):
    """As ``_look_up``, in whatever case."""
    slots = roads.slots
    key = _road_key(paths, kind, word)
    mask, tag = np.uint64(slots.size - 1), np.uint32(key >> _32)
    at = key & mask
    for _ in range(slots.size):
        row = np.int64(slots[at]["row"])
        if row == 0 or row >= roads.roads.size:
            break
        if slots[at]["tag"] == tag and _is_folded_road(roads.roads[row], roads.text, paths, kind, data, start, size):
            return row
        at = (at + _1) & mask
    return np.int64(roads.roads.size)


@kernel
def _is_odd_segment(data, start, size, last):
    """Whether a path with this segment would be another one in its normal form."""
    if size == 0:
        return not last
    if size > 2 or data[start] != _DOT:
        return False
    return size == 1 or data[start + 1] == _DOT


@kernel
def _is_of_names(byte):
    """Whether a byte, in lower case, may stand in a name or an address of IPv4."""
    return 0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or byte in (0x2D, _DOT, 0x5F)


@kernel
def _is_named(roads, row, kind, data, start, size):
    """Whether a host is of this kind and has this name, in whatever case."""
    site = roads.hosts[row]
    text, offset = roads.text, np.int64(site["name"])
    if site["kind"] != kind or site["name_size"] != size or offset + size > text.size:
        return False
    for i in range(size):  # noqa: SIM110  # all() of a generator does not compile
        if text[offset + i] != fields.lower(data[start + i]):
            return False
    return True


@kernel
def _is_road(road, text, paths, kind, data, start, size):
    """Whether a road is one of these paths, of this kind, and has this text."""
    offset = np.int64(road["text"])
    if road["paths"] != paths or road["kind"] != kind or road["text_size"] != size or offset + size > text.size:
        return False
    for i in range(size):  # noqa: SIM110  # as above
        if text[offset + i] != data[start + i]:
            return False
    return True


@kernel
def _is_folded_road(road, text, paths, kind, data, start, size):
    """The same in whatever case."""
    offset = np.int64(road["text"])
    if road["paths"] != paths or road["kind"] != kind or road["text_size"] != size or offset + size > text.size:
        return False
    for i in range(size):  # noqa: SIM110  # as above
        if fields.lower(text[offset + i]) != fields.lower(data[start + i]):
            return False
    return True


@kernel
def _host_key(kind, word):
    return mix64(word + np.uint64(kind) * GOLDEN)


@kernel
def _road_key(paths, kind, word):
    return mix64(word + (np.uint64(paths) << _3 | np.uint64(kind)) * GOLDEN)


@kernel
def _hash(text, offset, size):
    word = _OFFSET
    for i in range(offset, offset + size):
        word = (word ^ np.uint64(text[i])) * _PRIME
    return word


@kernel
def _hash_folded(text, offset, size):
    word = _OFFSET
    for i in range(offset, offset + size):
        word = (word ^ np.uint64(fields.lower(text[i]))) * _PRIME
    return word


# The tables, made


@kernel
def lay_out(text, hosts, paths, plain, kinds, places, sites, roads, host_slots, slots, expressed):
    """HOST[H+1] and PATH[P+1] as SITE[H+1] and ROAD[P+H+2], and where they are found; notes if a host is MATCHED.

    ``plain``: rows of paths that are expressions and mean what these ``kinds`` do, of texts at ``places``, which are
    (offset, size).
    ``sites`` and ``roads`` are all zeros, and so are the slots, at most half of which will be taken. Of roads that
    take the same requests the first is found; a path that is of no host is not.
    """
    for row in range(paths.size):
        _lay_path(paths[row], roads[row])
    for i in range(plain.size):
        road = roads[plain[i]]
        road["kind"], road["text"], road["text_size"] = kinds[i], places[i, 0], places[i, 1]
    own = hosts[0]["default"] != 0 or hosts[0]["policy"] != 0
    for row in range(hosts.size):
        host, site, road = hosts[row], sites[row], roads[paths.size + row]
        road["goal"], road["origin"], road["rule"] = host["default"], host["origin"], host["policy"]
        site["name"], site["name_size"], site["kind"] = host["name"], host["name_length"], host["kind"]
        if host["default"] != 0 or host["policy"] != 0:
            site["default"] = paths.size + row
        elif own:
            site["default"] = paths.size
        first, count = np.int64(host["first_path"]), np.int64(host["paths"])
        if count != 0 and first + count <= paths.size:
            site["paths"] = first
            for number in range(first, first + count):
                _note_road(text, roads, number, first, site, slots)
        if row != 0:
            _note_host(text, site, row, host_slots, expressed)


@kernel
def _lay_path(path, road):
    road["text"], road["text_size"], road["kind"] = path["text"], path["text_length"], path["kind"]
    road["goal"], road["origin"], road["rule"] = path["target"], path["origin"], path["policy"]
    road["fork"] = path["canary"]
    if path["when"] != 0:
        road["punt"] = CONDITION


@kernel
def _note_host(text, site, row, slots, expressed):
    """Puts a host in its slot."""
    if site["kind"] not in (NAMED, WILDCARD):
        expressed[0] = 1
        return
    mask = np.uint64(slots.size - 1)
    key = _host_key(site["kind"], _hash(text, np.int64(site["name"]), np.int64(site["name_size"])))
    at = key & mask
    while slots[at]["row"] != 0:  # ends: the slots are at most half full; no two hosts have one name
        at = (at + _1) & mask
    slots[at]["tag"], slots[at]["row"] = np.uint32(key >> _32), row


@kernel
def _note_road(text, roads, row, paths, site, slots):
    """Puts a road of a host in its slot, unless an equal one is there: an earlier one, or itself by an alias."""
    road = roads[row]
    road["paths"] = paths
    size, kind = np.int64(road["text_size"]), road["kind"]
    folded = kind in (FOLDED_PREFIX, FOLDED_STARTS)
    if kind not in (EXACT, PREFIX, STARTS) and not folded:
        if site["expression"] == 0:
            site["expression"] = row
        return
    bit = _1 << (np.uint64(size) & _63)
    if kind == EXACT:
        site["exacts"] |= bit
    elif kind == PREFIX:
        site["prefixes"] |= bit
    elif kind == STARTS:
        site["starts"] |= bit
    elif kind == FOLDED_PREFIX:
        site["folded_prefixes"] |= bit
    else:
        site["folded_starts"] |= bit
    if kind != EXACT and size > site["longest"]:
        site["longest"] = size
    mask = np.uint64(slots.size - 1)
    first = np.int64(road["text"])
    key = _road_key(paths, kind, _hash_folded(text, first, size) if folded else _hash(text, first, size))
    at, tag = key & mask, np.uint32(key >> _32)
    while slots[at]["row"] != 0:
        other = roads[slots[at]["row"]]
        if slots[at]["tag"] == tag and folded:
            if _is_folded_road(other, text, paths, kind, text, first, size):
                return
        elif slots[at]["tag"] == tag and _is_road(other, text, paths, kind, text, first, size):
            return
        at = (at + _1) & mask
    slots[at]["tag"], slots[at]["row"] = tag, row


def warm() -> None:
    """Compiles what Python calls; the rest is compiled where the gateway calls it."""
    text, hosts, paths = (freeze(np.zeros(1, kind)) for kind in (np.uint8, HOST, PATH))
    plain = np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    tables = np.zeros(1, SITE), np.zeros(2, ROAD), *np.zeros((2, 2), SLOT)
    lay_out(text, hosts, paths, *plain, *tables, np.zeros(1, np.uint8))


# What becomes of a request


@kernel
def decide(roads, tallies, heard, asked, row):
    """GO, ANSWER, or a reason to punt, negative, for a request that ``find`` gave ``row``; ``asked`` says the rest.

    ``asked`` is a row of ASK, of which all that is asked is filled; what was decided is written to it. A request that
    its limit has let in is one of those in ``tallies``, also where it is answered or punted.
    """
    asked["goal"], asked["origin"], asked["rule"], asked["reply"] = 0, 0, 0, 0
    asked["limit"], asked["counted"], asked["shares"] = 0, 0, 0
    if row <= 0 or row >= roads.roads.size:
        return _answer(roads, asked, _NO_RULE)
    road = roads.roads[row]
    asked["goal"], asked["origin"], asked["rule"] = road["goal"], road["origin"], road["rule"]
    if road["rule"] != 0:
        said = _comply(roads, tallies, heard, asked, roads.rules[road["rule"]])
        if said != GO:
            return said
    if road["fork"] != 0:
        fork = roads.forks[road["fork"]]
        keeps = roads.rules[road["rule"]]["cookie"]["length"] != 0 and fork["forgetful"] == 0
        if keeps and fork["total"] != 0:
            return np.int64(-CANARY_BY_REQUEST)
        took = canaries.takes(roads, heard, fork, asked["draw"])
        if took < 0:
            return took
        if took != 0:
            asked["goal"], asked["origin"] = fork["goal"], fork["origin"]
    if asked["goal"] == 0:
        return _answer(roads, asked, _NO_RULE)
    goal = roads.goals[asked["goal"]]
    if goal["punt"] != 0:
        return -np.int64(goal["punt"])
    return _answer(roads, asked, goal["reply"]) if goal["endpoints"] == 0 else np.int64(GO)


@kernel
def _answer(roads, asked, reply):
    asked["reply"] = reply
    asked["status"] = roads.replies[reply]["status"]
    return np.int64(ANSWER)


@kernel
def _comply(roads, tallies, heard, asked, rule):
    """What a rule says of a request, in the order of ``plane.conduct``: GO where it has no objection."""
    if rule["punt"] != 0:
        return -np.int64(rule["punt"])
    if rule["varies"] != 0:
        said = sharing.note_origin(roads, heard, asked, rule)
        if said != 0:
            return said
    if rule["body_limit"] != 0 and (asked["length"] < 0 or np.uint64(asked["length"]) > rule["body_limit"]):
        return np.int64(-BODY)
    if rule["preflight"] != 0 and asked["options"] != 0 and (rule["varies"] == 0 or asked["shares"] != 0):
        return _answer(roads, asked, rule["preflight"])
    if rule["answer"] != 0:
        return _answer(roads, asked, rule["answer"])
    if rule["https"] != 0 and asked["secure"] == 0:
        return _answer(roads, asked, rule["https"])
    if rule["rewrite"]["count"] != 0:
        path, size = np.int64(asked["uri"]), np.int64(asked["path_size"])
        if not rewrites.is_clear(roads, rule, heard.data, path, size):
            return np.int64(-REWRITE)
    if rule["limit"]["key"] != 0 and not _holds(roads, rule["unlimited"], asked["client"]):
        over = _limited(roads, tallies, asked, rule)
        if over != 0:
            return _answer(roads, asked, over)
    if _holds(roads, rule["denied"], asked["client"]):
        return _answer(roads, asked, _DENIED)
    if rule["allowed"]["count"] != 0 and not _holds(roads, rule["allowed"], asked["client"]):
        return _answer(roads, asked, _NOT_ALLOWED)
    return np.int64(GO)


@kernel
def _limited(roads, tallies, asked, rule):
    """The reply to who has used up a limit, 0 to whom it lets in."""
    said = limits.enter(tallies, rule["limit"], np.uint64(asked["client"]), np.int64(asked["now_ns"]))
    if said in (LET_IN, COUNTED):
        asked["limit"], asked["counted"] = rule["limit"]["key"], said == COUNTED
        return np.uint32(0)
    if said == OVER_SECOND:
        return rule["over_second"]
    return rule["over_minute"] if said == OVER_MINUTE else rule["over_at_once"]


@kernel
def _holds(roads, run, client):
    """Whether an address is in one of these networks."""
    for row in range(np.int64(run["first"]), np.int64(run["first"]) + np.int64(run["count"])):
        if client & roads.networks[row]["mask"] == roads.networks[row]["ip"]:
            return True
    return False


@kernel
def drop_replaced(roads, rule, data, head, lines):
    """Drops those fields of a scanned answer that a rule has its own for, or that it does not let through.

    ``head`` and ``lines`` are those of ``http1.scan_response``; what is in their place are the bytes of the rule's
    ``fields``. TE stays, as in ``plane.ingress.forwarding.without``.
    """
    first, start = np.int64(rule["replaced"]["first"]), np.int64(head["start"])
    for row in range(first, min(first + np.int64(rule["replaced"]["count"]), roads.names.size)):
        for i in range(head["lines"]):
            name = start + lines[i]["start"]
            if _is_field(roads, roads.names[row], data, name, start + lines[i]["name_end"] - name):
                lines[i]["what"] = DROPPED


@kernel
def _is_field(roads, word, data, start, size):
    """Whether a field has this name, which is in lower case and not that of TE."""
    offset = np.int64(word["offset"])
    if word["length"] != size or offset + size > roads.words.size or start + size > data.size:
        return False
    if size == 2 and roads.words[offset] == _T and roads.words[offset + 1] == _E:
        return False
    for i in range(size):  # noqa: SIM110  # as above
        if roads.words[offset + i] != fields.lower(data[start + i]):
            return False
    return True


# Endpoints


@kernel
def pick(roads, memory, goal, tried, tries, now_ns):
    """The backend id of the endpoint for a request, int64: by turns, as ``plane.ingress.table`` has it; 0 for none.

    None of ``tried[:tries]``, ids that have failed it, and none that is out unless all others are.
    """
    found = _in_turn(roads, memory, goal, tried[:tries], now_ns)
    return found if found != 0 else _in_turn(roads, memory, goal, tried[:tries], np.iinfo(np.int64).max)


@kernel
def _in_turn(roads, memory, goal, failed, now_ns):
    """Whose turn it is, of those that are in at that time."""
    first, count = np.int64(roads.goals[goal]["first"]), np.int64(roads.goals[goal]["endpoints"])
    if first + count > roads.endpoints.size:
        return np.int64(0)
    for _ in range(count):
        turn = memory.turns[goal, 0] if memory.turns[goal, 0] < count else 0
        memory.turns[goal, 0] = turn + 1
        backend = np.int64(roads.endpoints[first + turn])
        if memory.out_ns[backend] <= now_ns and not _is_among(failed, backend):
            return backend
    return np.int64(0)


@kernel
def _is_among(rows, row):
    for each in rows:  # noqa: SIM110  # any() of a generator does not compile
        if each == row:
            return True
    return False


@kernel
def put_out(memory, backend, until_ns):
    """An endpoint has failed: it is passed over until then, or until it answers."""
    if 0 < backend < memory.out_ns.size:
        memory.out_ns[backend] = until_ns


@kernel
def put_in(memory, backend):
    """An endpoint has answered."""
    if 0 < backend < memory.out_ns.size:
        memory.out_ns[backend] = 0


# Answers of the plane's own


@kernel
def write_answer(roads, data, asked, date, keep_alive, out):
    """The whole answer that ``decide`` meant, into ``out``: how many bytes, or -1 where there is no room.

    ``date`` is a line of Date without its end; ``data`` holds the request as ``asked`` says. Equal to what
    ``plane.ingress.forwarding.own_message`` and ``Http1.answer`` make of it.
    """
    reply, rule = roads.replies[asked["reply"]], roads.rules[asked["rule"]]
    bodiless = reply["status"] == _NO_CONTENT
    at = _put_word(roads, reply["head"], out, 0)
    at = text.put_all(out, at, date)
    at = text.end_line(out, at)
    if rule["typed"] == 0 and not bodiless:
        at = text.put_all(out, at, _CONTENT_TYPE)
    place, size = np.int64(0), np.int64(0)
    if reply["secures"] != 0 or reply["location"]["count"] != 0:
        at = text.put_all(out, at, _LOCATION)
        place = at
        at = _put_location(roads, reply, data, asked, out, at)
        size = at - place
        at = text.end_line(out, at)
    if rule["typed"] == 0 or not bodiless:  # all that one without a body says is its type
        at = _put_word(roads, reply["fields"], out, at)
    at = sharing.put_fields(roads, data, asked, out, at)
    body = np.int64(reply["body"]["length"])
    if not bodiless:
        at = text.put_all(out, at, _CONTENT_LENGTH)
        at = text.put_decimal(out, at, body + size + 1 if size != 0 else body)
        at = text.end_line(out, at)
    if keep_alive == 0:
        at = text.put_all(out, at, _CLOSE)
    at = text.end_line(out, at)
    if asked["bodiless"] == 0:
        at = _put_word(roads, reply["body"], out, at)
        if size != 0:
            at = text.put(out, at, out, place, place + size)
            at = text.put_all(out, at, _NEW_LINE)
    return at


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_NEW_LINE = _bytes(b"\n")
_CONTENT_TYPE = _bytes(b"Content-Type: text/plain; charset=utf-8\r\n")
_LOCATION, _CONTENT_LENGTH = _bytes(b"Location: "), _bytes(b"Content-Length: ")
_CLOSE = _bytes(b"Connection: close\r\n")
_HTTP, _HTTPS, _SECURE = _bytes(b"http"), _bytes(b"https"), _bytes(b"https://")
_HTTPS_PORT, _NO_CONTENT = 443, 204
_PORT = _bytes(b":")


@kernel
def _put_location(roads, reply, data, asked, out, at):
    host, host_size = np.int64(asked["host"]), np.int64(asked["host_size"])
    uri, uri_size = np.int64(asked["uri"]), np.int64(asked["uri_size"])
    trimmed = uri_size - 1 if uri_size > 0 and data[uri + uri_size - 1] == _SLASH else uri_size
    name_size = _name_size(data, host, host_size)
    if reply["secures"] != 0:
        at = text.put_all(out, at, _SECURE)
        at = text.put(out, at, data, host, host + name_size)
        if name_size != host_size and asked["https_port"] not in (0, _HTTPS_PORT):
            at = text.put_all(out, at, _PORT)
            at = text.put_decimal(out, at, np.int64(asked["https_port"]))
        return text.put(out, at, data, uri, uri + (uri_size if reply["keep_slash"] != 0 else trimmed))
    first = np.int64(reply["location"]["first"])
    for row in range(first, first + np.int64(reply["location"]["count"])):
        piece = roads.pieces[row]
        kind = piece["kind"]
        if kind == TEXT:
            at = _put_word(roads, piece["text"], out, at)
        elif kind == SCHEME:
            at = text.put_all(out, at, _HTTPS if asked["secure"] != 0 else _HTTP)
        elif kind == HTTP_HOST:
            at = text.put(out, at, data, host, host + host_size)
        elif kind == HOSTNAME:
            start = at
            at = text.put(out, at, data, host, host + name_size)
            for i in range(start, at):
                out[i] = fields.lower(out[i])
        elif kind == REQUEST_URI:
            at = text.put(out, at, data, uri, uri + uri_size)
        elif kind == TRIMMED_URI:
            at = text.put(out, at, data, uri, uri + trimmed)
    return at


@kernel
def _name_size(data, host, size):
    """Bytes of a Host before its port."""
    for i in range(size):
        if data[host + i] == _COLON:
            return np.int64(i)
    return np.int64(size)


@kernel
def _put_word(roads, word, out, at):
    first = np.int64(word["offset"])
    return text.put(out, at, roads.words, first, first + np.int64(word["length"]))
