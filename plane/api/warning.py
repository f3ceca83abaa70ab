"""Warnings as Kubernetes sends them, and kubectl prints them: fields ``Warning: 299 - "text"`` (RFC 7234, 5.5). Pure.

https://kubernetes.io/blog/2020/09/03/warnings/
"""

from collections.abc import Iterable, Iterator

# As the API server has them: beyond so many characters in all each is cut to so many, and what is over is left out.
MOST_CHARACTERS, CUT_CHARACTERS = 4096, 256


def fields(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of a header field for each line, once."""
    texts = list(dict.fromkeys(map(_printable, lines)))
    if sum(map(len, texts)) > MOST_CHARACTERS:
        texts = [text[:CUT_CHARACTERS] for text in texts]
    left = MOST_CHARACTERS
    for text in texts:
        left -= len(text)
        if left < 0:
            return
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        yield "Warning", f'299 - "{escaped}"'


def _printable(text: str) -> str:
    """Without what no field can hold: control characters and halves of surrogate pairs."""
    return "".join(character if character.isprintable() else " " for character in text)
