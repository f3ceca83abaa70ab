"""Which hosts a certificate is for."""

from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from plane.certificates import is_for, names_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.com", True),
        ("x.b.com", True),
        ("*.b.com", True),
        ("b.com", False),
        ("x.y.b.com", False),
        ("*.com", False),
        ("c.com", False),
    ],
)
def test_a_star_stands_for_one_label(host: str, expected: bool) -> None:
    chain = trustme.CA().issue_cert("A.com", "*.b.com").cert_chain_pems[0].bytes()
    assert is_for(chain, host) is expected


def test_the_common_name_counts_too_as_in_ingress_nginx() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    chain = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    assert names_of(chain) == ("old.com",)
    assert is_for(chain, "old.com")


def test_what_cannot_be_read_is_for_nobody() -> None:
    assert not is_for(b"chain", "a.com")
