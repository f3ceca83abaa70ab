"""Lines of the access log that compiled code makes are, byte for byte, those that Python makes of the same requests."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout_gateway import DONE_REQUEST
from kernels.layout_http import METHODS
from kernels.layout_log import LOST, SAID, SAID_ALL, UNSAID
from plane.addresses import int_to_ip
from plane.ingress.accesslog import Entry
from plane.ingress.fastlog import Done, lines

ROUTE = 'default/a"b spec.rules[0]'
WORDS = (
    f'", "route": {json.dumps(ROUTE)}, "service": "default/web:80", "endpoint": "'.encode(),
    b'", "retries": 0, "generation": 7, "user_agent": "',
)

texts = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
addresses = st.integers(1, 2**32 - 1)
requests = st.fixed_dictionaries(
    {
        "texts": st.tuples(*5 * [texts]),
        "ip": addresses,
        "endpoint": st.just(0) | addresses,
        "port": st.integers(0, 65535),
        "method": st.integers(1, len(METHODS) - 1),
        "secured": st.booleans(),
        "status": st.integers(100, 599),
        "bytes": st.integers(0, 2**62),
        "duration_us": st.integers(0, 10**9),
        "request_id": st.integers(0, 2**64 - 1),
    }
)


def done(asked: list[dict[str, Any]]) -> Done:
    rows, said, data = np.zeros(len(asked), DONE_REQUEST), np.zeros(len(asked), SAID), b""
    for i, one in enumerate(asked):
        sizes = [len(text) for text in one["texts"]]
        for name, size in zip(("host", "target", "request_id", "agent", "referer"), sizes, strict=True):
            said[i][name] = size
        said[i]["text"], said[i]["fate"] = len(data), SAID_ALL
        for name in ("ip", "method", "secured", "bytes"):
            said[i][name] = one[name]
        rows[i]["ip"], rows[i]["port"], rows[i]["status"] = one["endpoint"], one["port"], one["status"]
        rows[i]["request_id"], rows[i]["done_ns"] = one["request_id"], 1000 * one["duration_us"]
        data += b"".join(one["texts"])
    return Done(rows, said, np.frombuffer(data, np.uint8).copy())


def expected(one: dict[str, Any]) -> dict[str, Any]:
    host, target, given_id, agent, referer = (text.decode("utf-8", "surrogateescape") for text in one["texts"])
    number = f"{one['request_id']:016x}" if one["request_id"] else ""
    return Entry(
        client=int_to_ip(one["ip"]),
        scheme="https" if one["secured"] else "http",
        method=METHODS[one["method"]],
        host=host,
        target=target,
        protocol="HTTP/1.1",
        status=one["status"],
        bytes_sent=one["bytes"],
        duration_ms=round(one["duration_us"] / 1e3, 3),
        request_id=given_id or number,
        route=ROUTE,
        service="default/web:80",
        endpoint=f"{int_to_ip(one['endpoint'])}:{one['port']}" if one["endpoint"] else "",
        generation=7,
        user_agent=agent,
        referer=referer,
    )._asdict()


@given(st.lists(requests, min_size=1, max_size=5))
def test_a_line_is_what_python_makes_of_the_same_request(asked: list[dict[str, Any]]) -> None:
    made, lost = lines(done(asked), lambda *_: WORDS)
    assert lost == 0
    found = made.decode("ascii").splitlines()
    for line, one in zip(found, asked, strict=True):
        time = json.loads(line)["time"]
        assert line == json.dumps({"time": time, **expected(one)}, ensure_ascii=True)


def test_a_line_is_for_whom_it_is_to_be_and_there_is_room_for() -> None:
    some = {"ip": 1, "endpoint": 0, "port": 0, "method": 1, "secured": False, "status": 200, "bytes": 0}
    asked = [
        {**some, "texts": (b"%d" % number, b"", b"", b"", b""), "duration_us": 0, "request_id": 0}
        for number in range(4)
    ]
    told = done(asked)
    told.said["fate"] = (SAID_ALL, UNSAID, LOST, SAID_ALL)
    told.rows["origin"] = (1, 1, 1, 2)
    made, lost = lines(told, lambda install, origin, goal: (b"<%d>" % origin, b"--"))
    assert lost == 1
    assert [(line[line.index("host") + 8], line.partition("<")[2][0]) for line in made.decode().splitlines()] == [
        ("0", "1"),
        ("3", "2"),
    ]


@pytest.mark.parametrize("fates", [(), (UNSAID, LOST)])
def test_where_nobody_has_a_line_there_is_none(fates: tuple[int, ...]) -> None:
    said = np.zeros(len(fates), SAID)
    said["fate"] = fates
    some = Done(np.zeros(len(fates), DONE_REQUEST), said, np.zeros(0, np.uint8))
    assert lines(some, lambda *_: WORDS) == (b"", len(fates) // 2)
