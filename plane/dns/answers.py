"""One question to cluster DNS and its answer, as bytes on the wire. Pure; the wire format is dnspython's.

Law: whatever the bytes are, the result is an answer or nothing, never an error. The answer is authoritative for
``cluster.local`` and for addresses; all other names are refused, because there is nobody to forward them to. A name
that is not there is NXDOMAIN, one that is there without the type asked for has no error and no answer, and both come
with the SOA whose last number says for how long that may be remembered (RFC 2308).
"""

import logging
import random
from collections.abc import Iterator

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

from plane.dns.names import LONGEST_CHAIN
from plane.dns.zone import Zone, origin_of

HEADER = 12
SMALLEST_UDP, LARGEST_UDP, LARGEST = 512, 4096, 65535
SMALLEST_RECORD = 16  # an address, its name said before
MOST_ADDRESSES = 4000  # of one name in one answer: more don't fit into 64 KiB, so that many are drawn at random
TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)

log = logging.getLogger(__name__)


def answer(zone: Zone, data: bytes, *, stream: bool = False) -> bytes | None:
    """What to send back for a message, None for nothing; one too long for UDP is cut off, and says so (TC)."""
    if len(data) < HEADER or data[2] & 0x80:  # no header, or an answer: answering that could go on for ever
        return None
    try:
        query = dns.message.from_wire(data)
    except Exception as problem:  # dnspython's own, and what it lets through of bytes that nobody has checked
        log.debug("no DNS message: %r", problem)
        return _short(data, dns.rcode.FORMERR)
    try:
        response, room = _respond(zone, query), LARGEST if stream else _room(query)
        if SMALLEST_RECORD * sum(map(len, response.answer)) > room:  # known without writing it, which takes its time
            response.flags |= dns.flags.TC
            response.sections[1:] = [[], [], []]
        return response.to_wire(max_size=room, prefer_truncation=True)
    except Exception:
        log.exception("a DNS question could not be answered")
        return _short(data, dns.rcode.SERVFAIL)


def _short(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A header alone, for a message that could not be read: its id, opcode and RD."""
    response = dns.message.Message(int.from_bytes(data[:2]))
    response.flags = dns.flags.QR | (data[2] & 0x79) << 8
    response.set_rcode(rcode)
    return response.to_wire()


def _room(query: dns.message.Message) -> int:
    """How long an answer by UDP may be."""
    return min(max(query.payload if query.edns >= 0 else 0, SMALLEST_UDP), LARGEST_UDP)


def _respond(zone: Zone, query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query, our_payload=LARGEST_UDP)
    response.set_rcode(_refusal(query))
    if response.rcode() != dns.rcode.NOERROR:
        return response
    question = query.question[0]
    if origin_of(_text(question.name)) is None:
        return _explained(query, response, dns.rcode.REFUSED, dns.edns.EDECode.NOT_AUTHORITATIVE, "not in this cluster")
    response.flags |= dns.flags.AA
    chain = [question.name]
    while True:
        name = _text(chain[-1])
        kinds = zone.find(name)
        if kinds is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        alias = "CNAME" in (kinds or {}) and question.rdtype not in (dns.rdatatype.CNAME, dns.rdatatype.ANY)
        for rdataset in _sets(zone, name, "CNAME" if alias else _kind(question.rdtype)):
            response.answer.append(_rrset(chain[-1], rdataset))
            _add_targets(zone, rdataset, response)
        if not alias:
            break
        chain.append(response.answer[-1][0].target)
        if origin_of(_text(chain[-1])) is None:  # its address is known to others, if to anyone
            return response
        if chain[-1] in chain[:-1] or len(chain) > LONGEST_CHAIN:
            response.answer.clear()
            why = f"{_text(chain[0])} leads back to itself, or through more than {LONGEST_CHAIN} ExternalNames"
            return _explained(query, response, dns.rcode.SERVFAIL, dns.edns.EDECode.OTHER, why)
    if len(response.answer) < len(chain):
        _add(zone, origin_of(name) or "", "SOA", response.authority)
    return response


def _refusal(query: dns.message.Message) -> dns.rcode.Rcode:
    """Why a message that can be read is not answered; NOERROR where it is."""
    if query.opcode() != dns.opcode.QUERY:
        return dns.rcode.NOTIMP
    if query.edns > 0:
        return dns.rcode.BADVERS
    if len(query.question) != 1:
        return dns.rcode.FORMERR
    question = query.question[0]
    if question.rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY) or question.rdtype in TRANSFERS:
        return dns.rcode.REFUSED
    return dns.rcode.NOERROR


def _explained(
    query: dns.message.Message, response: dns.message.Message, rcode: dns.rcode.Rcode, code: dns.edns.EDECode, why: str
) -> dns.message.Message:
    """The response with an extended error (RFC 8914) for those who can read one."""
    response.set_rcode(rcode)
    if query.edns >= 0:
        options: list[dns.edns.Option] = [dns.edns.EDEOption(code, why)]
        response.use_edns(0, 0, LARGEST_UDP, query.payload, options=options)
        response.set_rcode(rcode)
    return response


def _kind(rdtype: dns.rdatatype.RdataType) -> str:
    return dns.rdatatype.to_text(rdtype)


def _sets(zone: Zone, name: str, kind: str) -> Iterator[dns.rdataset.Rdataset]:
    for each in (zone.find(name) or {}) if kind == "ANY" else (kind,):
        rdataset = zone.records(name, each)
        if rdataset is not None:
            yield rdataset


def _add(zone: Zone, name: str, kind: str, section: list[dns.rrset.RRset]) -> None:
    for rdataset in _sets(zone, name, kind):
        section.append(_rrset(dns.name.from_text(name), rdataset))


def _add_targets(zone: Zone, rdataset: dns.rdataset.Rdataset, response: dns.message.Message) -> None:
    """The addresses of the hosts that SRV records name, which is what is asked for next."""
    if rdataset.rdtype == dns.rdatatype.SRV:
        for record in rdataset:
            _add(zone, _text(record.target), "A", response.additional)


def _rrset(name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> dns.rrset.RRset:
    """The records under a name as it was asked for. dnspython shuffles them as it writes them."""
    found = dns.rrset.RRset(name, rdataset.rdclass, rdataset.rdtype)
    found.ttl = rdataset.ttl
    found.items = rdataset.items  # the zone's own: it is read only, and hashing records takes its time
    if len(found.items) > MOST_ADDRESSES:
        found.items = dict.fromkeys(random.sample(list(found.items), MOST_ADDRESSES))
    return found


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
