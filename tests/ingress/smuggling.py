"""Requests that two readers may see differently, and what the ingress makes of each: one table.

Law: one request in is one request out, or none and the connection closes. Every row is followed on its connection by
``LAST``, unless it leaves the ingress waiting, so that it also tells where the ingress sees the end of it. What comes
behind a request whose connection closes may take that request along, if aiohttp reads both at once: 400, and no
endpoint hears of either.

The cases are those of the request tests of llhttp, of h1spec, and of the payloads in http-garden's list of what they
found in servers, each said anew with a Host, so that nothing else is wrong with it. Where llhttp takes what we refuse,
or leniently may, the row says so.
"""

from typing import NamedTuple

LAST = b"GET /last HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
LAST_SEEN = "GET /last"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"


class Row(NamedTuple):
    """What is sent, and what an endpoint sees: ``METHOD target`` and the body if any.

    status   0: an endpoint answers, else that of our refusal, which is the last answer
    goes_on  the connection serves another request
    waits    it is not over, and is given up in time
    """

    description: str
    sent: bytes
    seen: tuple[str, ...] = ()
    status: int = 0
    goes_on: bool = False
    waits: bool = False


def said(start: str, *fields: str, body: str = "", version: str = "HTTP/1.1", host: str | None = "a.example") -> bytes:
    """A request; every character is a byte."""
    lines = (f"{start} {version}", *(() if host is None else (f"Host: {host}",)), *fields, "", body)
    return "\r\n".join(lines).encode("latin-1")


def taken(description: str, sent: bytes, *seen: str) -> Row:
    """A row that is so many requests, after which the connection goes on."""
    return Row(description, sent, seen, goes_on=True)


def last(description: str, sent: bytes, *seen: str) -> Row:
    """A row that is so many requests, after which the connection closes."""
    return Row(description, sent, seen)


def refused(description: str, sent: bytes, status: int = 400, *before: str) -> Row:
    """A row that no endpoint hears of, but for whole requests ``before`` it; the connection closes."""
    return Row(description, sent, before, status)


def held(description: str, sent: bytes) -> Row:
    """A row whose end does not come: 408, and no endpoint has had a whole request."""
    return Row(description, sent, status=408, waits=True)


def length(value: str, body: str = "", *fields: str) -> bytes:
    return said("PUT /x", f"Content-Length:{value}", *fields, body=body)


def coded(value: str, body: str = "0\r\n\r\n", *fields: str) -> bytes:
    return said("PUT /x", f"Transfer-Encoding:{value}", *fields, body=body)


def chunks(body: str, *fields: str) -> bytes:
    return coded(" chunked", body, *fields)


LINES = [
    taken("a plain GET", said("GET /x"), "GET /x"),
    taken("in lower and upper case, with a tab and an empty field", said("GET /x", "hoSt:\ta", host=None), "GET /x"),
    taken("a field without a value", said("GET /x", "Empty:", "Other: "), "GET /x"),
    taken("a field with bytes above ASCII", said("GET /x", "User: \x85admin\xa0"), "GET /x"),
    taken("an expectation", said("GET /x", "Expect: 100-continue"), "GET /x"),
    taken("tabs and spaces around a value", said("GET /x", "A: \t b \t"), "GET /x"),
    taken("quotes in the target", said('GET /"x"?a="b"'), 'GET /"x"?a="b"'),
    taken("a bar in the query", said("GET /x?a=|"), "GET /x?a=|"),
    taken("a question mark in the query", said("GET /x?a=b?c"), "GET /x?a=b?c"),
    taken("a fragment, which goes", said("GET /x?a=b#c"), "GET /x?a=b"),
    taken("the absolute form", said("GET http://a.example/x"), "GET /x"),
    taken("the absolute form without a path", said("GET http://a.example"), "GET /"),
    taken("and with a query at once", said("GET http://a.example?b=c"), "GET /?b=c"),
    taken("and with a port", said("GET http://a.example:80?b=c", host="a.example:80"), "GET /?b=c"),
    taken("and with a user", said("GET http://u:p@a.example/x"), "GET /x"),
    refused("an asterisk where it may not stand", said("M-SEARCH *", 'MAN: "ssdp:discover"')),
    taken("SOURCE, which llhttp has for ICE", said("SOURCE /x"), "SOURCE /x"),
    taken("two spaces before the target, as llhttp and NGINX do", said("GET  /x"), "GET /x"),
    taken("and after it", b"GET /x  HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x"),
    taken("REPORT", said("REPORT /x"), "REPORT /x"),
    taken("PURGE", said("PURGE /x"), "PURGE /x"),
    taken("SEARCH", said("SEARCH /"), "SEARCH /"),
    taken("LINK with two fields of a name", said("LINK /x", "Link: <a>", "Link: <b>"), "LINK /x"),
    taken("UNLINK", said("UNLINK /x", "Link: <a>"), "UNLINK /x"),
    taken("PATCH with a body", said("PATCH /x", "Content-Length: 3", body="abc"), "PATCH /x abc"),
    taken("an empty line before a request", b"\r\n" + said("GET /x"), "GET /x"),
    refused("another protocol", said("GET /x", version="ICE/1.0")),
    refused("another one that ends alike", said("GET /x", version="IHTTP/1.0")),
    refused("RTSP", said("PUT /x", version="RTSP/1.0")),
    last("RTSP with a method of HTTP, as llhttp does", said("OPTIONS /x", version="RTSP/1.0"), "OPTIONS /x"),
    refused("RTSP with its own method", said("ANNOUNCE /x", version="RTSP/1.0")),
    last("ICE with its own method", said("SOURCE /x", version="ICE/1.0"), "SOURCE /x"),
    refused("HTTP with a method of RTSP", said("ANNOUNCE /x", version="HTTP/1.0")),
    refused("a method that there is not", said("MKCOLA /x")),
    refused("a method with separators", said('G=":<>(e),[T];?" /x')),
    refused("a method that begins with NUL", b"\0 / HTTP/............0596.7407.\r\n\r\n"),
    refused("something before the method", b"Extra line" + said("GET /x")),
    refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    refused("its method with HTTP/1.1", said("PRI *", body="SM\r\n\r\n")),
    refused("HTTP/5.6", said("GET /x", version="HTTP/5.6")),
    refused("HTTP/9.9", said("GET /x", version="HTTP/9.9")),
    refused("HTTP/1.32", said("GET /x", version="HTTP/1.32")),
    refused("HTTP/0.9 said", said("GET /x", version="HTTP/0.9")),
    refused("a version beyond 32 bits", said("GET /x", version="HTTP/4294967295.255")),
    refused("carriage returns in the version", said("GET /x", version="HTTP/\r\r1.1")),
    refused("no version", b"GET /x \r\nHost: a\r\n\r\n"),
    refused("HTTP/0.9 unsaid", b"GET /x\r\n\r\n"),
    refused("a line feed for the space", b"GET /x\nHTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("a target that is no path", said("GET !")),
    refused("a space in the target", said("GET /foo bar/")),
    refused("bytes above ASCII in the target", said("GET /\xce\xb4\xc2\xb6/x")),
    refused("a space after the version", said("GET /x", version="HTTP/1.1 ")),
    refused("a tab in the line", b"GET\t/x\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("only line feeds", said("GET /x").replace(b"\r\n", b"\n")),
    refused("only carriage returns", said("GET /x").replace(b"\r\n", b"\r")),
    refused("CONNECT", said("CONNECT a.example:443", version="HTTP/1.0"), 405),
    refused("CONNECT to an underscore", said("CONNECT a_0.example:443"), 405),
    refused("CONNECT with a body", said("CONNECT a.example:443", "Content-Length: 3", body="abc"), 405),
    refused("the absolute form against Host", said("GET http://a.example/x", host="b.example")),
    refused("another scheme", said("GET ftp://a.example/x")),
    refused("no Host", said("GET /x", host=None)),
    refused("two Hosts", said("GET /x", "Host: b.example")),
    refused("two Hosts that are equal", said("GET /x", "Host: a.example")),
    refused("NUL in Host", said("GET /x", host="a.example\0.b.example")),
    refused("bytes above ASCII in Host", said("GET /x", host="\xffa\xff")),
    refused("a path in Host", said("GET /x", host="a.example/x")),
    refused("a space in Host", said("GET /x", host="a example")),
    refused("an at sign in Host", said("GET /x", host="u@a.example")),
]
FIELDS = [
    refused("a carriage return within a value", said("GET /x", "Foo: 1\rBar: 2")),
    refused("at the beginning of one", said("PUT /x", "x:\rTransfer-Encoding: chunked", body="1\r\nA\r\n0\r\n\r\n")),
    refused("several of them", said("GET /x", "A: this\rvalue\ris\rwrong")),
    refused("a smiley", said("GET /x", "Visible: :/\rSmuggled: :)")),
    refused("with NUL", said("GET /x", "A: v\0\ralue")),
    refused(
        "a line feed within a value", said("PUT /x", "x:x\nTransfer-Encoding: chunked", body="1\r\nA\r\n0\r\n\r\n")
    ),
    refused("at the beginning of one, with a length", said("GET /x", "A: x\nContent-Length: 50", body=SMUGGLED)),
    refused(
        "at the beginning of a value", said("PUT /x", "x:\nTransfer-Encoding: chunked", body="1\r\nA\r\n0\r\n\r\n")
    ),
    refused("two line feeds for the end", said("GET /x", "Useless:\n\n" + SMUGGLED)),
    refused("a line feed within a name", said("GET /x", "Te\nst: x")),
    refused("a carriage return for the end", said("GET /x", "\rZ" + SMUGGLED)),
    refused("before a field", said("GET /x", "", "\rA: b")[:-4] + b"\r\n\r\n", 400, "GET /x"),
    refused("before the end", said("GET /x", "A: b\r")),
    refused("NUL within a value", said("GET /x", "A: x\0THESE GO", "Connection: close")),
    refused("NUL at the end of one", said("GET /x", "A: x\0")),
    refused("NUL within a name", said("GET /x", "a:b", "c\0")),
    refused("a bell within a value", said("GET /x", "A: x\x07")),
    refused("a form feed as a value, which llhttp may take", said("GET /x", "A: \f")),
    refused("one in the second request", said("GET /x", "A: y") + said("GET /y", "A: \f"), 400, "GET /x"),
    refused("DEL within a value", said("GET /x", "A: x\x7f")),
    refused("separators in a name", said("GET /x", 'A"(),/;<=>?@[]{}: x')),
    refused("brackets in a name", said("GET /x", "X-Wrong[]: x")),
    refused("an at sign in a name", said("GET /x", "Fo@: x")),
    refused("a control byte in a name", said("GET /x", "Foo\x01test: x")),
    refused(
        "all control bytes in a name", said("GET /x", "".join(map(chr, [*range(10), 11, 12, *range(14, 33)])) + ":")
    ),
    refused("a byte above ASCII in a name", said("GET /x", "\xefoo: x")),
    refused("one at its end", said("GET /x", "A\x85: x")),
    refused("one at the end of Content-Length", said("GET /x", "Content-Length\x85: 3", body="abc")),
    refused("no name", said("GET /x", ": x")),
    refused("nothing but a colon", said("GET /x", ":", "A: b")),
    refused("no name before Host", said("GET /x", ": x", "Host: a", host=None)),
    refused("no colon", said("GET /x", "Content-Length 10", body="0123456789")),
    refused("no colon, but a carriage return", said("GET /x", "Connection\r\x1b5\xd5eep-Alive", "A: b")),
    refused("so in an unknown name", said("GET /x", "X-Some-Header\r\x1b5\xd5eep-Alive", "A: b")),
    refused("a space before the colon", said("GET /x", "A : b")),
    refused("before that of Content-Length", said("PUT /x", "Content-Length : 48", body=SMUGGLED)),
    refused(
        "with an upgrade", said("PUT /x", "Connection: upgrade", "Content-Length : 4", "Upgrade: ws", body="abcdefgh")
    ),
    refused("before that of Connection", said("PUT /x", "Connection : upgrade", "Content-Length: 4", body="abcd")),
    refused("before that of Transfer-Encoding", said("PUT /x", "Transfer-Encoding : chunked", body="0\r\n\r\n")),
    refused("a tab before it", said("PUT /x", "Content-Length\t: 3", body="abc")),
    refused("a name that is folded", said("GET /x", "name", " : value")),
    refused(
        "one folded within it", said("PUT /x", "Transfer-", "Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n")
    ),
    refused("a value that is folded", said("GET /x", "A: b", " c")),
    refused("by a tab", said("GET /x", "A: b", "\tc")),
    refused("a fold that looks like a field", said("PUT /x", "Foo: bar", " Content-Length: 48", body=SMUGGLED)),
    refused("a space before the first field", b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n"),
    refused("a tab before it, with a body", b"GET /x HTTP/1.1\r\n\tContent-Length: 1\r\nHost: a\r\n\r\nX"),
    refused(
        "a fold in Connection", said("GET /x", "Connection: Something,", " Upgrade, ,Keep-Alive", "Upgrade: WebSocket")
    ),
    refused("one and no more", said("GET /x", "Connection: keep-alive, ", " upgrade", "Upgrade: WebSocket")),
    refused(
        "a fold after chunked", said("PUT /x", "Transfer-Encoding: chunked", "  abc", body="5\r\nWorld\r\n0\r\n\r\n")
    ),
]
LENGTHS = [
    taken("a body", length(" 3", "abc"), "PUT /x abc"),
    taken("zero", length(" 0"), "PUT /x"),
    taken("zeroes before the length, which are decimal", length(" 010", "0123456789"), "PUT /x 0123456789"),
    taken("and a field after it", length(" 003", "abc", "A: b"), "PUT /x abc"),
    taken("spaces around it", length("  3 ", "abc"), "PUT /x abc"),
    taken("tabs around it", length("\t3\t  ", "abc"), "PUT /x abc"),
    taken(
        "a length in HTTP/1.0",
        said("PUT /x", "conTENT-Length: 3", "Connection: keep-alive", body="abc", version="HTTP/1.0"),
        "PUT /x abc",
    ),
    refused("two that differ", length(" 1", "ab", "Content-Length: 2")),
    refused("the first zero", length(" 0", SMUGGLED, f"Content-Length: {len(SMUGGLED)}")),
    refused("the second zero", length(" 1", "Z", "Content-Length: 0")),
    refused("two that are equal", length(" 3", "abc", "Content-Length: 3")),
    refused("a list of equal ones", length(" 3, 3", "abc")),
    refused("an empty one and another", length(" ", "abc", "Content-Length: 3")),
    refused("an empty one", length("")),
    refused("an empty one with a space", length(" ", SMUGGLED)),
    refused("a sign", length(" +3", "abc")),
    refused("a sign and an underscore", length(" +1_0", "0123456789")),
    refused("less than nothing", length(" -48")),
    refused("far less", length(" -123456789123456789123456789")),
    refused("letters", length(" abc", "abc")),
    refused("a letter after it", length(" 1Z", "Z")),
    refused("hexadecimal", length(" 0x10", "Z")),
    refused("a space within", length(" 4 2")),
    refused("within a longer one", length(" 13 37")),
    refused("a point", length(" 3.0", "abc")),
    refused("other digits", length(" \xb3", "abc")),
    refused("beyond 64 bits", length(" 1000000000000000000000")),
    refused("just beyond them", length(" 18446744073709551617", "Z")),
    refused("a carriage return for the hyphen", said("PUT /x", "Content\rLength: 003", body="abc")),
    refused("one for the empty line", said("PUT /x", "Content-Length: 3")[:-2] + b"\rabc"),
    held("a body that does not come", length(" 123")),
    held("that another request is no part of", length(" 456", "POST /y HTTP/1.1\r\n")),
    held("a head that breaks off", b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Leng"),
]
CODINGS = [
    taken("nothing in chunks", chunks("0\r\n\r\n"), "PUT /x"),
    taken("a chunk", chunks("1\r\nZ\r\n0\r\n\r\n"), "PUT /x Z"),
    taken("a size in lower case", chunks("a\r\n0123456789\r\n0\r\n\r\n"), "PUT /x 0123456789"),
    taken("in upper case", chunks("A\r\n0123456789\r\n0\r\n\r\n"), "PUT /x 0123456789"),
    taken(
        "of two digits",
        chunks("1e\r\nall your base are belong to us\r\n0\r\n\r\n"),
        "PUT /x all your base are belong to us",
    ),
    taken("two chunks and zeroes at the end", chunks("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n"), "PUT /x hello world"),
    taken("a name in other case", coded(" Chunked", "1\r\nZ\r\n0\r\n\r\n"), "PUT /x Z"),
    taken("with spaces", coded("  chunked  ", "1\r\nZ\r\n0\r\n\r\n"), "PUT /x Z"),
    refused("with a tab, which llhttp takes", coded(" chunked\t", "1\r\nZ\r\n0\r\n\r\n")),
    taken("trailers, which go", chunks("5\r\nhello\r\n0\r\nVary: *\r\nA: b\r\n\r\n"), "PUT /x hello"),
    refused("a trailer that is a length", chunks("1\r\nZ\r\n0\r\nContent-Length: 48\r\n\r\n")),
    refused("and one that is a coding", chunks("1\r\nZ\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    taken("a trailer that looks like a request", chunks("0\r\nX:POST / HTTP/1.1\r\n\r\n"), "PUT /x"),
    refused(
        "a size of nothing behind a chunk that looks like one",
        chunks("17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n0\r\n\r\n"),
    ),
    taken(
        "a chunk that looks like one",
        chunks("17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"),
        "PUT /x 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ),
    taken(
        "chunk extensions, which go",
        chunks("5;a;b=c;d=e\r\nhello\r\n6;f;g\r\n world\r\n0\r\n\r\n"),
        "PUT /x hello world",
    ),
    taken("and in quotes", chunks('5;a="I \\"b\\"; \\\\c\\\\";d="e";f\r\nhello\r\n0\r\n\r\n'), "PUT /x hello"),
    refused("no semicolon before one", chunks("2 abc\r\naa\r\n0 d\r\n\r\n")),
    refused("letters at once", chunks("1these-are-not-looked-at\r\nZ\r\n0\r\n\r\n")),
    refused("nothing after the semicolon", chunks("2;\r\naa\r\n0\r\n\r\n")),
    refused("quotes that do not end", chunks('5;a="b";c="d; e\r\nhello\r\n6;f\r\n world\r\n0\r\n\r\n')),
    refused("a carriage return in an extension", chunks("5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" + SMUGGLED)),
    refused("at its end", chunks("41;a=b\r\r" + 65 * "X" + "\r\n0\r\n\r\n" + SMUGGLED)),
    refused("with a size behind it", chunks("2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n" + SMUGGLED)),
    refused("so that llhttp may take it", chunks("6\r\r;ABCD\r\n33\r\nE\r\n0\r\n\r\n" + SMUGGLED)),
    refused("a line feed in an extension", chunks("3;a\nb\r\nabc\r\n0\r\n\r\n")),
    refused("one after the size", chunks("3\nabc\r\n0\r\n\r\n")),
    refused("amid spaces", chunks("3 \n  \r\nfoo\r\n\r\n")),
    refused("one after the data", chunks("a\r\n0123456789\n0\r\n\r\n")),
    refused("nothing after the data", chunks("5\r\nABCDE0\r\n\r\n")),
    refused("more than the size", chunks("1\r\nZZ\r\n0\r\n\r\n")),
    refused("a space after the size", chunks("a \r\n0123456789\r\n0\r\n\r\n")),
    refused("spaces before it", chunks("           0\r\n\r\n")),
    refused("an underscore in it", chunks("0_2e\r\n\r\n" + SMUGGLED)),
    refused("a sign before it", chunks("+1\r\nZ\r\n0\r\n\r\n")),
    refused("less than nothing", chunks("-0x0\r\n\r\n")),
    refused("hexadecimal said twice", chunks("0x1\r\nZ\r\n0\r\n\r\n")),
    refused("no size", chunks("\r\n\r\n")),
    refused("no digits", chunks("INVALID!!!\r\n" + SMUGGLED)),
    refused("letters beyond f", chunks("Z\r\nZZ\r\nZZZ\r\n\r\n")),
    refused("a size beyond 64 bits", chunks("ffffffffffffffff1\r\nZ\r\n0\r\n\r\n")),
    refused("a carriage return for its end", chunks("1\r0\n")),
    refused("one in the last chunk", chunks("1\r\nZ\r\n0\r\r\n\r\n")),
    refused("one in a trailer", chunks("1\r\nZ\r\n0\r\nA: b\rc: d\r\n\r\n")),
    refused("a line feed in a trailer", chunks("1\r\nZ\r\n0\r\nA: b\nc: d\r\n\r\n")),
    refused("NUL in a trailer", chunks("1\r\nZ\r\n0\r\nA: b\0\r\n\r\n")),
    refused("a space before the colon of one", chunks("1\r\nZ\r\n0\r\nA : b\r\n\r\n")),
    refused("only line feeds", chunks("1\nA\n1;abc\nB\n0\n\nA: b\n\n")),
    refused("NUL after the end", chunks("1\r\nZ\r\n0\r\n\r\n\0"), 400, "PUT /x Z"),
    refused("another coding", coded(" pigeons")),
    refused("another after it", coded(" chunked, deflate", "World")),
    refused("another before it", coded(" deflate, chunked", "5\r\nWorld\r\n0\r\n\r\n")),
    refused("another in a field after it", coded(" chunked", "World", "Transfer-Encoding: deflate")),
    refused("another in one before it", coded(" deflate", "5\r\nWorld\r\n0\r\n\r\n", "Transfer-Encoding: chunked")),
    refused("itself twice", coded(" chunked, chunked", "1\r\nZ\r\n0\r\n\r\n")),
    refused("in two fields", coded(" chunked", "1\r\nZ\r\n0\r\n\r\n", "Transfer-Encoding: chunked")),
    refused("in a word", coded(" chunkedchunked", "5\r\nWorld\r\n0\r\n\r\n")),
    refused("a comma before it", coded(" ,chunked")),
    refused("a comma after it", coded(" chunked,")),
    refused("a parameter", coded(" chunked;a=b")),
    refused("in quotes", coded(' "chunked"')),
    refused("bytes above ASCII around it", coded(" \xa0chunked\xa0")),
    refused("others of them", coded(" \xffchunked\xff", "1\r\nZ\r\n0\r\n\r\n")),
    refused("a vertical tab before it", coded(" \x0bchunked")),
    refused("no coding at all", coded(" identity")),
    refused("an empty one", coded("", "0\r\n\r\n")),
    refused("a length and chunks", coded(" chunked", "0\r\n\r\n", "Content-Length: 5")),
    refused("in other order", length(" 5", "0\r\n\r\n", "Transfer-Encoding: chunked")),
    refused("in other case", length(" 5", "c\r\nHellO world1\r\n0\r\n\r\n", "TransFer-Encoding: CHUNKED")),
    refused("a length and no coding", length(" 1", "Z", "Transfer-Encoding: identity")),
    refused(
        "in other order, with a query",
        said("POST /x?a=b#c", "Transfer-Encoding: identity", "Content-Length: 5", body="World"),
    ),
    refused("a length and empty codings", length(" 10", "2\r\nAA\r\n0\r\n\r\n", *3 * ["Transfer-Encoding:"])),
    refused("a length and a comma", coded(" ,chunked", "0\r\n\r\n", "Content-Length: 5")),
    refused("chunks in HTTP/1.0", said("PUT /x", "Transfer-Encoding: chunked", body="0\r\n\r\n", version="HTTP/1.0")),
    held("no last chunk", chunks("3\r\nfoo\r\n")),
    held("no chunk", chunks("")),
]
CONNECTIONS = [
    taken("keep-alive said", said("PUT /x", "Connection: keep-alive"), "PUT /x"),
    taken("two requests", said("PUT /x", "Connection: keep-alive") + said("PUT /y"), "PUT /x", "PUT /y"),
    taken(
        "three with bodies",
        said("POST /a", "Content-Length: 3", body="AAA")
        + said("PUT /b", "Content-Length: 4", body="BBBB")
        + said("PATCH /c", "Content-Length: 5", body="CCCCC"),
        "POST /a AAA",
        "PUT /b BBBB",
        "PATCH /c CCCCC",
    ),
    taken("an empty line between two", length(" 4", "q=42\r\n") + said("GET /y"), "PUT /x q=42", "GET /y"),
    taken(
        "a body of nothing and one that is a request",
        said("POST /a", "Content-Length: 0", "Connection:keep-alive")
        + said("POST /b", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        "POST /a",
        "POST /b " + SMUGGLED,
    ),
    last("close", said("PUT /x", "Connection: close"), "PUT /x"),
    last("close with a tab", said("PUT /x", "Connection: close\t"), "PUT /x"),
    last(
        "close with a body and a request behind it",
        length(" 4", "q=42\r\n" + SMUGGLED, "Connection: close"),
        "PUT /x q=42",
    ),
    last("so with a tab", length(" 4", "q=42\r\n" + SMUGGLED, "Connection: close\t"), "PUT /x q=42"),
    last("close and what is no request", said("GET /x", "Connection: close") + b"Invalid\r\n\r\n", "GET /x"),
    last("close among others", said("PUT /x", "Connection: close, token, upgrade, token, keep-alive"), "PUT /x"),
    last("HTTP/1.0", said("PUT /x", version="HTTP/1.0") + said("PUT /y"), "PUT /x"),
    last("HTTP/1.0 with a length", said("PUT /x", "Content-Length: 0", version="HTTP/1.0") + chunks(""), "PUT /x"),
    refused("a carriage return for the hyphen of keep-alive", said("PUT /x", "Connection: keep\ralive")),
    refused("what is no request behind one", said("GET /x") + b"Invalid\r\n\r\n", 400, "GET /x"),
    last("an upgrade of a kind that is not passed on", said("PUT /x", "Connection: upgrade", "Upgrade: ws"), "PUT /x"),
    last(
        "with a body",
        said("PUT /x", "Connection: upgrade", "Content-Length: 4", "Upgrade: ws", body="abcd"),
        "PUT /x abcd",
    ),
    last(
        "to HTTP/2, with one",
        said("POST /x", "Connection: Upgrade", "Upgrade: HTTP/2.0", "Content-Length: 3", body="abc"),
        "POST /x abc",
    ),
    last(
        "to HTTP/2 without TLS",
        said("GET /x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
        "GET /x",
    ),
    taken(
        "Connection that names framing",
        said("PUT /x", "Connection: content-length", "Content-Length: 3", body="abc"),
        "PUT /x abc",
    ),
    taken("that names Host", said("GET /x", "Connection: host"), "GET /x"),
    last("a body where there is none", said("GET /x", "Content-Length: 3", body="abc"), "GET /x abc"),
    last(
        "a name that CGI takes for a coding",
        said("PUT /x", "Transfer_Encoding: chunked", "Content-Length: 3", body="abc"),
        "PUT /x abc",
    ),
    last("and for a length", said("PUT /x", "Content_Length: 1", "Content-Length: 3", body="abc"), "PUT /x abc"),
    held("the first byte", b"G"),
    held("the method", b"GET "),
    held("a target", b"GET /x"),
    held("a target and a space", b"GET /x "),
    held("a part of the version", b"GET /x HTTP"),
    held("a line without its end", b"GET /x HTTP/1.1"),
    held("a line and half an end", b"GET /x HTTP/1.1\r"),
    held("a line", b"GET /x HTTP/1.1\r\n"),
    held("a part of a name", b"GET /x HTTP/1.1\r\nHos"),
    held("a name", b"GET /x HTTP/1.1\r\nHost:"),
    held("a name and a space", b"GET /x HTTP/1.1\r\nHost: "),
    held("a value", b"GET /x HTTP/1.1\r\nHost: a"),
    held("a value and half an end", b"GET /x HTTP/1.1\r\nHost: a\r"),
    held("a field", b"GET /x HTTP/1.1\r\nHost: a\r\n"),
    held("a field and half the end", b"GET /x HTTP/1.1\r\nHost: a\r\n\r"),
]
ROWS = [
    row._replace(description=f"{kind}: {row.description}")
    for kind, rows in {
        "line": LINES,
        "field": FIELDS,
        "length": LENGTHS,
        "coding": CODINGS,
        "connection": CONNECTIONS,
    }.items()
    for row in rows
]
