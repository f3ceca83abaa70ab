"""Hashes of flows, frontends and endpoints: 64 bits, well mixed, the same on every machine and in every process.

Law: a hash is a pure function of addresses, ports and protocol, never of an index or of the order of a list. All end
in one mixer, the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA
2014; constants are variant 13 of D. Stafford's search over MurmurHash3's fmix64), but for a frontend's, which has two
rounds of the kind with shifts of its own: the first of them is what a flow's goes on from, so who looks up both has it
once. It is not enough by itself: node ports at nodes that are a subnet apart would share a few slots of an index. Each
step is a bijection, so equal hashes of different inputs can only come from folding 104 bits into 64, or of IPv6 296. No
hash has a secret: who can choose ports freely can choose flows that collide. What two families have in common is all
but how an address becomes a word.

A flow's high and low bits are independent, and users take different ones: Maglev the high, conntrack the low.
"""

import numpy as np

from kernels.jit import by_family, kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / φ, odd: SplitMix64's step
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ENDPOINT = np.uint64(0xD1B54A32D192ED03)  # sets endpoints apart from frontends of the same address

_30 = np.uint64(30)
_27 = np.uint64(27)
_31 = np.uint64(31)
_32 = np.uint64(32)
_8 = np.uint64(8)


@kernel
def mix64(word):
    """SplitMix64's finaliser: uint64 → uint64, a bijection in which each input bit moves half of the output."""
    word = (word ^ (word >> _30)) * _MIX_1
    word = (word ^ (word >> _27)) * _MIX_2
    return word ^ (word >> _31)


@kernel
def _word_of_number(ip):
    return np.uint64(ip)


@kernel
def _word_of_row(ip):
    return mix64(mix64(ip["high"] + GOLDEN) ^ ip["low"])


# (ip): 64 bits of an address, uint64: of IPv4 the number itself, of IPv6 mixed of all 128.
word_of = by_family(_word_of_number, _word_of_row)


@kernel
def _joined_number(ip, rest):
    return (np.uint64(ip) << _32) | np.uint64(rest)


@kernel
def _joined_row(ip, rest):
    return mix64(_word_of_row(ip) + GOLDEN) ^ np.uint64(rest)


# (ip, rest): a uint64 of an address and of 32 bits that come with it. Of two that differ in ``rest`` alone it differs,
# and so it does where addresses of IPv4 do.
joined = by_family(_joined_number, _joined_row)


@kernel
def flow_hash(src_ip, dst_ip, src_port, dst_port, proto):
    """The uint64 hash of a 5-tuple in host order; never 0, which means "no entry" in conntrack."""
    word = mix64(joined(src_ip, src_port) ^ _destination(dst_ip, dst_port, proto))
    return word | np.uint64(word == np.uint64(0))


@kernel
def flow_hashes(flows, out):
    """Hash a batch of ``Flows`` into ``out``, uint64 of the same length."""
    for i in range(flows.proto.size):
        out[i] = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])


@kernel
def frontend_hash(ip, port, proto):
    """The uint64 hash of a VIP, port and protocol; of IPv4 all 56 bits count, so no two frontends share a hash."""
    return _folded(_destination(ip, port, proto) * _MIX_2)


@kernel
def _destination(ip, port, proto):
    """A uint64 of where a flow goes, a bijection of as many bits: half of its frontend's hash."""
    return _folded(_folded(joined(ip, (np.uint64(port) << _8) | np.uint64(proto))) * _MIX_1)


@kernel
def _folded(word):
    return word ^ (word >> _32)


@kernel
def endpoint_seed(ip, port, proto):
    """The uint64 that an endpoint's place in every Maglev ring follows from; no two of IPv4 share one."""
    return mix64(joined(ip, (np.uint64(port) << _8) | np.uint64(proto)) ^ _ENDPOINT)


@kernel
def endpoint_seeds(backends, out):
    """The seed of every row of BACKEND[n], or BACKEND6[n], into ``out``, uint64[n]."""
    for i in range(backends.size):
        out[i] = endpoint_seed(backends[i]["ip"], backends[i]["port"], backends[i]["proto"])


@kernel
def reduce(word, size):
    """The high 32 bits of a hash scaled to ``0 .. size - 1`` by multiplication (Lemire, 2016); size below 2^32."""
    return np.int64(((word >> _32) * np.uint64(size)) >> _32)
