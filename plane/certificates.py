"""Certificates with their keys, as Secrets have them: whether a server can show one, and to whom. Pure.

Law: who serves HTTPS, who explains it and who warns ask here, so that a certificate that is not shown is named as such.
What can be used with a key is what OpenSSL takes; its names are read as ingress-nginx reads them (``verifyHostname``).
"""

import contextlib
import functools
import os
import ssl

from cryptography import x509
from cryptography.x509.oid import NameOID


def load_pair(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """What a context shows. Raises ssl.SSLError or OSError where certificate and key cannot be used together."""
    # OpenSSL loads a chain from a file only: give it one that lives in memory.
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, memory)
        with open(memory, "wb", closefd=False) as file:
            file.write(key.rstrip() + b"\n" + chain)
        # A key with a passphrase can't be used; without one here, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{memory}", password=lambda: b"")


def trouble_with_pair(chain: bytes, key: bytes) -> str:
    """Why a server cannot show the certificate, empty where it can."""
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "has a tls.crt and a tls.key that do not belong together"
        return f"has a tls.crt or a tls.key that OpenSSL cannot use ({error.reason or error.strerror})"
    except (OSError, ValueError) as error:
        return f"has a tls.crt or a tls.key that cannot be used ({error})"
    return ""


@functools.lru_cache(4096)
def names_of(chain: bytes) -> tuple[str, ...]:
    """The DNS names of a chain's first certificate, lower case, its Common Name first; none where it cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(chain)
        subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        others = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        others = []
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    return tuple(dict.fromkeys(str(name).lower() for name in (*(row.value for row in subject), *others)))


def is_for(chain: bytes, host: str) -> bool:
    """Whether a certificate names a host, in lower case; a ``*`` of either stands for one label."""
    labels = host.split(".")
    return any(_fits(name.removesuffix(".").split("."), labels) for name in names_of(chain))


def _fits(pattern: list[str], labels: list[str]) -> bool:
    return len(pattern) == len(labels) and pattern[1:] == labels[1:] and pattern[0] in ("*", labels[0])
