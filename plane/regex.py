"""Regular expressions of Ingresses: RE2's, so that no request can make a match slow. Pure.

Law: an expression takes time linear in the text, whatever it is. RE2 has what PCRE, NGINX's library, has, but for
lookaround, backreferences, atomic groups and possessive quantifiers, which need backtracking; those do not compile.
"""

from functools import lru_cache

import re2

MEMORY = 1 << 20  # bytes that an expression may take, compiled


def _options(*, fold: bool) -> re2.Options:
    options = re2.Options()
    options.case_sensitive = not fold
    options.log_errors = False
    options.max_mem = MEMORY
    return options


_AS_WRITTEN, _FOLDED = _options(fold=False), _options(fold=True)


@lru_cache(4096)
def compiled(text: str, *, fold: bool = False) -> re2._Regexp:
    """The expression; ``fold``: in whatever case. Raises re2.error."""
    return re2.compile(text, _FOLDED if fold else _AS_WRITTEN)


def why_not(text: str) -> str:
    """Why a text is no expression, with a remedy; empty where it is one."""
    try:
        compiled(text)
    except re2.error as error:
        said = error.args[0] if error.args else "it is none"
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return f"{reason}; write an expression of RE2, which has no lookaround and no backreferences"
    return ""


def groups_of(text: str) -> int:
    """How many groups an expression has."""
    return int(compiled(text).groups)


def literally(text: str) -> str:
    """The expression that matches this text."""
    return re2.escape(text)


def of_path(text: str) -> str:
    """The expression that a path of an Ingress is to NGINX: it matches where a request's path begins."""
    return f"^{text}"


def expanded(template: str, match: re2._Match) -> str:
    """The template with ``$1`` … ``$9`` replaced by what those groups matched; nothing for one that there is not."""
    parts = template.split("$")
    found = [parts[0]]
    for part in parts[1:]:
        if part[:1].isdecimal() and part[:1] in _GROUPS:
            number = int(part[0])
            found.append((match[number] or "") if number <= match.re.groups else "")
            found.append(part[1:])
        else:
            found.append(f"${part}")
    return "".join(found)


_GROUPS = frozenset("123456789")
