"""Who keeps to which endpoint: subsets of them, canaries, and cookies for old browsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.affinity import endpoint_of, endpoints_of
from tests.ingress.test_balance import all_of
from tests.ingress.test_policed import annotated, served, with_canary
from tests.ingress.wire import Address, Endpoint, client, running, saying

IPHONE_12 = "Mozilla/5.0 (iPhone; CPU iPhone OS 12_1 like Mac OS X) AppleWebKit/605.1.15 Version/12.0 Safari/604.1"
MOJAVE = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1.15 Version/12.1 Safari/605.1.15"


@given(
    addresses=st.lists(st.text("0123456789", min_size=1, max_size=3), min_size=1, max_size=8, unique=True),
    key=st.text(max_size=9),
    count=st.integers(1, 9),
)
def test_a_subset_holds_the_endpoint_of_its_key_and_moves_one_by_one(
    addresses: list[str], key: str, count: int
) -> None:
    found = endpoints_of(key, addresses, count)
    assert found[0] == endpoint_of(key, addresses, persistent=False)
    assert len(set(found)) == min(count, len(addresses))
    rest = addresses[1:]
    now = [rest[number] for number in endpoints_of(key, rest, count)]
    assert {addresses[number] for number in found} - {addresses[0]} <= set(now)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"upstream_hash_by_subset": "true", "upstream_hash_by_subset_size": "2"}, 2),
        ({"upstream_hash_by_subset": "true"}, 3),
        ({"upstream_hash_by_subset": "false", "upstream_hash_by_subset_size": "2"}, 1),
    ],
    ids=["of two", "of three by default", "off"],
)
async def test_upstream_hash_by_subset_sends_equal_requests_to_some_endpoints(
    vip: str, pods: list[Address], said: dict[str, str], size: int
) -> None:
    snapshot = annotated(*pods, upstream_hash_by="$request_uri", **said)
    async with all_of(pods), running(vip, snapshot) as here, client(here.http) as one:
        for path in ("/a", "/b", "/c"):
            assert len({(await one.get(path)).body for _ in range(40)}) == size


async def test_affinity_canary_behavior_legacy_chooses_anew_each_time(vip: str, pods: list[Address]) -> None:
    def snapshot(weight: str) -> dict[str, str]:
        return {"canary_weight": weight, "affinity_canary_behavior": "legacy"}

    async with Endpoint(pods[0], saying(b"web")), Endpoint(pods[1], saying(b"new")):
        async with running(vip, with_canary(*pods[:2], main={"affinity": "cookie"}, **snapshot("0"))) as here:
            who, cookie = await served(here.http, "")
            assert who == "web"
        async with running(vip, with_canary(*pods[:2], main={"affinity": "cookie"}, **snapshot("100"))) as here:
            assert (await served(here.http, cookie))[0] == "new"
        sticky = with_canary(*pods[:2], main={"affinity": "cookie"}, canary_weight="100")
        async with running(vip, sticky) as here:
            assert (await served(here.http, cookie))[0] == "web"


@pytest.mark.parametrize(
    ("agent", "marked"),
    [
        ("Mozilla/5.0 Chrome/66.0.3359.181 Safari/537.36", False),
        (IPHONE_12, False),
        (MOJAVE, False),
        (MOJAVE + " Chrome/80.0", True),
        ("Mozilla/5.0 Chrome/120.0.0.0 Safari/537.36", True),
        ("", True),
    ],
    ids=["Chrome 66", "iOS 12", "Safari of Mojave", "Chrome there", "Chrome 120", "nobody"],
)
async def test_samesite_none_is_left_out_for_browsers_that_misread_it(
    vip: str, pods: list[Address], agent: str, marked: bool
) -> None:
    said = {"affinity": "cookie", "session_cookie_samesite": "None", "session_cookie_conditional_samesite_none": "true"}
    async with Endpoint(pods[0]), running(vip, annotated(pods[0], **said)) as here, client(here.http) as one:
        cookie = (await one.get(fields=f"User-Agent: {agent}\r\n" if agent else "")).get("set-cookie") or ""
        assert cookie.endswith("; SameSite=None") == marked
        assert "HttpOnly" in cookie
