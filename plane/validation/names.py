"""Names, labels and ports as the API server takes them (``k8s.io/apimachinery/pkg/util/validation``).

Each function gives the reason why a value is none, with the remedy; empty text where it is one.
"""

import ipaddress
import re

from plane.validation.findings import shown

LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
SERVICE_LABEL = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?\Z")
SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
WORD = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
QUANTITY = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?\Z")
PERCENT = re.compile(r"[0-9]+%\Z")


def label(name: str) -> str:
    """DNS-1123 label: namespaces, ports of Services, containers."""
    return _checked(name, LABEL, 63, 'lower-case letters, digits and "-", a letter or digit at both ends')


def service_label(name: str) -> str:
    """DNS-1035 label: the name of a Service."""
    rule = 'lower-case letters, digits and "-", beginning with a letter, ending with a letter or digit'
    return _checked(name, SERVICE_LABEL, 63, rule)


def subdomain(name: str) -> str:
    """DNS-1123 subdomain: the name of most objects, and hosts."""
    return _checked(name, SUBDOMAIN, 253, 'lower-case letters, digits, "-" and ".", a letter or digit around each dot')


def wildcard(name: str) -> str:
    """``*.`` and a DNS-1123 subdomain."""
    if not name.startswith("*.") or "*" in name[1:]:
        return f'{shown(name)} is no wildcard; write "*." and a domain, as in "*.example.com"'
    return subdomain(name[2:])


def qualified(name: str) -> str:
    """Key of a label or annotation: an optional DNS prefix with "/", and a word."""
    prefix, slash, word = name.rpartition("/")
    if slash:
        reason = subdomain(prefix)
        if reason:
            return f"the part before the slash: {reason}"
    rule = 'letters, digits, "-", "_" and ".", a letter or digit at both ends, with an optional prefix example.com/'
    return _checked(word, WORD, 63, rule)


def label_value(value: str) -> str:
    if value == "":
        return ""
    return _checked(value, WORD, 63, 'letters, digits, "-", "_" and ".", a letter or digit at both ends, or empty')


def port_name(name: str) -> str:
    """IANA service name (RFC 6335, section 5.1): ports of containers and names used as targetPort."""
    if len(name) > 15:
        return f"{shown(name)} is longer than 15 characters; shorten it"
    if not LABEL.match(name) or "--" in name:
        return f'{shown(name)} is no port name; write lower-case letters, digits and single "-" inside, as in "http"'
    if not re.search("[a-z]", name):
        return f"{shown(name)} has no letter; write a number without quotes, or a name with a letter in it"
    return ""


def ipv4(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{shown(text)} is no IP address; write one such as 10.96.0.10"
    if address.version == 6:
        return f"{shown(text)} is an IPv6 address and this plane has IPv4 only; write an IPv4 address"
    return ""


def is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def cidr(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{shown(text)} is no range of addresses; write one such as 10.0.0.0/8"
    return ""


def _checked(name: str, pattern: re.Pattern[str], longest: int, rule: str) -> str:
    if name == "":
        return f"is empty; write {rule}"
    if len(name) > longest:
        return f"{shown(name)} has {len(name)} characters and {longest} are allowed; shorten it"
    if pattern.match(name):
        return ""
    example = _mended(name, pattern)
    return f"{shown(name)} is not allowed; write {rule}" + (f', as in "{example}"' if example else "")


def _mended(name: str, pattern: re.Pattern[str]) -> str:
    """The name with what is not allowed replaced, empty where that does not mend it."""
    keep = r"[^A-Za-z0-9._-]+" if pattern is WORD else r"[^a-z0-9.-]+" if pattern is SUBDOMAIN else r"[^a-z0-9-]+"
    text = name if pattern is WORD else name.lower().replace("_", "-")
    mended = re.sub(keep, "-", text).strip("-._")
    return mended if pattern.match(mended) else ""
