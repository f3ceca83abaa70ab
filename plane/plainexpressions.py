"""Regular expressions that compiled code follows: a text, and what may stand behind it. Pure.

Law: a Plain says all that the expression says of a path of visible ASCII in its normal form, or there is none. The
commonest of ingress-nginx, ``/text(/|$)(.*)``, is of the kind, and what Kong's strip-path comes to.
"""

import re
from typing import NamedTuple

from kernels.layout_routes import BEGINS, ENDS, FROM_SLASH, HOLDS, IS, PAST_SLASH, REST, SLASH_REST, TAILS

_SPECIAL = frozenset(r"\.+*?()|[]{}^$")
_ESCAPED = re.compile(r"\\([^\w\s])")
_AS_WRITTEN = re.compile(r"\(\?-i:((?:\\.|[^\\()])*)\)")  # the text of a path, as plane.dialects.kong has it
# What may stand behind the text, the longest first; where the rest of the path is taken, ``$`` says nothing more.
_BEHIND = sorted(
    [
        *((text, number) for number, text in enumerate(TAILS)),
        *((f"{TAILS[number]}$", number) for number in (REST, SLASH_REST, PAST_SLASH, FROM_SLASH)),
    ],
    key=lambda row: -len(row[0]),
)


class Plain(NamedTuple):
    """An expression of the kind.

    text      what a path begins with; in lower case where it is ``folded``, which says: in whatever case
    first     where in the expression that text is, -1: not as it is
    tail      one of TAILS
    anchored  it matches nowhere but where a path begins
    """

    text: str
    first: int
    tail: int
    folded: bool
    anchored: bool


def plain(expression: str) -> Plain | None:
    """What an expression is, which is looked for in whatever case; None where it is not plain."""
    anchored = expression.startswith("^")
    rest = expression[anchored:]
    if written := _AS_WRITTEN.match(rest):
        text = _literal(written[1])
        tail = next((number for behind, number in _BEHIND if behind == rest[written.end() :]), -1)
        return None if text is None or tail < 0 else Plain(text, -1, tail, False, anchored)
    behind, tail = next(row for row in _BEHIND if rest.endswith(row[0]))
    text = rest[: len(rest) - len(behind)]
    if _SPECIAL & set(text) or not _is_visible(text):
        return None
    return Plain(text.lower(), int(anchored), tail, True, anchored)


def compared(pattern: str) -> tuple[int, int, int] | None:
    """(IS, BEGINS, ENDS or HOLDS, offset, length) of the text that a pattern looks for; None where it is not plain."""
    begins, ends = pattern.startswith("^"), pattern.endswith("$")
    text = pattern[begins : len(pattern) - ends]
    if not text or _SPECIAL & set(text) or not (text.isascii() and text.isprintable()):
        return None
    match = {(True, True): IS, (True, False): BEGINS, (False, True): ENDS, (False, False): HOLDS}[begins, ends]
    return match, int(begins), len(text)


def _literal(text: str) -> str | None:
    """What an expression matches in which nothing is special, or is escaped; None for others."""
    said = _ESCAPED.sub(r"\1", text)
    return None if _SPECIAL & set(_ESCAPED.sub("", text)) or not _is_visible(said) else said


def _is_visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
