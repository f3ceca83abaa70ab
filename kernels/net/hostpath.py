"""Which road a request has: looked up in Roads by the bytes of its host and path; and these tables, made.

Law: what is said here is what ``plane.router`` says, byte by byte, or it is a punt. Each index that follows from what
was sent stands beside its check; the work of one look-up is bounded by the length of host and path.

The rows of a host stand in order of matching, so the first of all that take a path has it: one pass over the path
hashes it byte by byte and looks up, at every place where a rule's text may end, whether one does.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import EXACT, HOST, NAMED, PATH, PREFIX, STARTS, WILDCARD, freeze
from kernels.layout_routes import (
    CONDITION,
    FOLDED_PREFIX,
    FOLDED_STARTS,
    HOST_EXPRESSION,
    ODD_HOST,
    ODD_PATH,
    PATH_EXPRESSION,
    ROAD,
    SITE,
    SLOT,
)
from kernels.lb.hashing import GOLDEN, mix64
from kernels.net import fields

_OFFSET = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
_PRIME = np.uint64(0x100000001B3)
_1, _3, _32, _63 = np.uint64(1), np.uint64(3), np.uint64(32), np.uint64(63)
_COLON, _DOT, _SLASH, _PERCENT, _BACKSLASH, _HASH = 0x3A, 0x2E, 0x2F, 0x25, 0x5C, 0x23
_QUESTION_MARK = 0x3F
_PORT_DIGITS = 5
# A Python integer would be a type of its own to the compiler, each.
_EXACT, _PREFIX, _STARTS, _FOLDED_PREFIX, _FOLDED_STARTS, _NAMED, _WILDCARD, _NONE = map(
    np.int64, (EXACT, PREFIX, STARTS, FOLDED_PREFIX, FOLDED_STARTS, NAMED, WILDCARD, 0)
)


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
    """The first road of these paths with a kind and a text; as many as there are roads where there is none.

    ``word`` is the hash of the text, in lower case where the kind is in whatever case.
    """
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
            found = min(found, _look_up(roads, site["paths"], _FOLDED_PREFIX, word, data, path, i))
        if site["folded_starts"] & bit != 0:
            found = min(found, _look_up(roads, site["paths"], _FOLDED_STARTS, word, data, path, i))
        word = (word ^ np.uint64(byte)) * _PRIME
    return found


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
def _is_folded(kind):
    """Whether paths of a kind are compared in whatever case."""
    return kind in (_FOLDED_PREFIX, _FOLDED_STARTS)


@kernel
def _is_road(road, text, paths, kind, data, start, size):
    """Whether a road is one of these paths, of this kind, and has this text."""
    offset, folded = np.int64(road["text"]), _is_folded(kind)
    if road["paths"] != paths or road["kind"] != kind or road["text_size"] != size or offset + size > text.size:
        return False
    for i in range(size):
        one, other = text[offset + i], data[start + i]
        if one != other and not (folded and fields.lower(one) == fields.lower(other)):
            return False
    return True


@kernel
def _host_key(kind, word):
    return mix64(word + np.uint64(kind) * GOLDEN)


@kernel
def _road_key(paths, kind, word):
    return mix64(word + (np.uint64(paths) << _3 | np.uint64(kind)) * GOLDEN)


@kernel
def _hash(text, offset, size, folded):
    word = _OFFSET
    for i in range(offset, offset + size):
        word = (word ^ np.uint64(fields.lower(text[i]) if folded else text[i])) * _PRIME
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
    key = _host_key(site["kind"], _hash(text, np.int64(site["name"]), np.int64(site["name_size"]), False))
    at = key & mask
    while slots[at]["row"] != 0:  # ends: the slots are at most half full; no two hosts have one name
        at = (at + _1) & mask
    slots[at]["tag"], slots[at]["row"] = np.uint32(key >> _32), row


@kernel
def _note_road(text, roads, row, paths, site, slots):
    """Puts a road of a host in its slot, unless an equal one is there: an earlier one, or itself by an alias."""
    road = roads[row]
    road["paths"] = paths
    size, kind = np.int64(road["text_size"]), np.int64(road["kind"])
    folded = _is_folded(kind)
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
    key = _road_key(paths, kind, _hash(text, first, size, folded))
    at, tag = key & mask, np.uint32(key >> _32)
    while slots[at]["row"] != 0:
        other = roads[slots[at]["row"]]
        if slots[at]["tag"] == tag and _is_road(other, text, paths, kind, text, first, size):
            return
        at = (at + _1) & mask
    slots[at]["tag"], slots[at]["row"] = tag, row


def warm() -> None:
    """Compiles what Python calls; the rest is compiled where the gateway calls it."""
    text, hosts, paths = (freeze(np.zeros(1, kind)) for kind in (np.uint8, HOST, PATH))
    plain = np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    tables = np.zeros(1, SITE), np.zeros(2, ROAD), *np.zeros((2, 2), SLOT)
    lay_out(text, hosts, paths, *plain, *tables, np.zeros(1, np.uint8))
