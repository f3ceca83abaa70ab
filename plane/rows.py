"""Rows: a sorted mapping that is a value, so large that a change must not cost a copy of it.

Law: Rows never change. Their pairs lie in chunks by order of the keys, and a changed copy shares with the one it was
made of all chunks but those that it changed. So ``differences`` of two versions of the same rows looks at what differs
and at no more, whichever of the two is the older, and whatever lies between them.
"""

import operator
import weakref
from bisect import bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import chain, dropwhile
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)
V = TypeVar("V")

News = tuple[K, V | None, V | None]  # key, value before, value now

CHUNK = 128  # pairs; up to twice as many before it is split
_ABSENT: Any = object()
_key = operator.itemgetter(0)


def _first(chunk: dict[K, V]) -> K:
    return next(iter(chunk))


class Rows(Mapping[K, V], Generic[K, V]):
    """Pairs in order of their keys. ``changed`` makes the next version."""

    __slots__ = ("__weakref__", "_chunks", "_firsts", "_length", "_news")

    def __init__(self, pairs: Mapping[K, V] | Iterable[tuple[K, V]] = ()):
        self._news: tuple[weakref.ref[Rows[K, V]], list[News[K, V]]] | None = None  # see ``differences``
        self._chunks = _split(dict(sorted(dict(pairs).items(), key=_key)))
        self._firsts = list(map(_first, self._chunks))
        self._length = sum(map(len, self._chunks))

    def __getitem__(self, key: K) -> V:
        if not self._chunks:
            raise KeyError(key)
        return self._chunks[self._place(key)][key]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._chunks)

    def __len__(self) -> int:
        return self._length

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rows({dict(self)!r})"

    def _place(self, key: K) -> int:
        """Index of the chunk that has the key, if any has."""
        return max(bisect_right(self._firsts, key) - 1, 0)

    def since(self, key: K) -> Iterator[tuple[K, V]]:
        """The pairs from this key on."""
        pairs = chain.from_iterable(chunk.items() for chunk in self._chunks[self._place(key) :])
        return dropwhile(lambda pair: pair[0] < key, pairs)

    def changed(self, put: Mapping[K, V], drop: Iterable[K] = ()) -> "Rows[K, V]":
        """These rows with others put in their place or added, and some left out; the same object if nothing differs."""
        edits: dict[int, dict[K, V]] = {}
        for key, value in {**put, **dict.fromkeys(drop, _ABSENT)}.items():
            place = self._place(key)
            if (self._chunks[place].get(key, _ABSENT) if self._chunks else _ABSENT) is not value:
                edits.setdefault(place, {})[key] = value
        if not edits:
            return self
        rows: Rows[K, V] = Rows()
        kept = 0
        for place in sorted(edits):
            before = self._chunks[place] if self._chunks else {}
            rows._chunks += self._chunks[kept:place]
            rows._firsts += self._firsts[kept:place]
            edited = _edited(before, edits[place])
            rows._length += len(edited) - len(before)
            if rows._chunks and len(rows._chunks[-1]) + len(edited) <= CHUNK:
                rows._firsts.pop()
                edited = {**rows._chunks.pop(), **edited}
            parts = _split(edited)
            rows._chunks += parts
            rows._firsts += map(_first, parts)
            kept = place + 1
        rows._chunks += self._chunks[kept:]
        rows._firsts += self._firsts[kept:]
        rows._length += self._length
        return rows


class Followed(Generic[K, V]):
    """Rows as they were when they were last looked at, so that whoever follows them hears what has changed since."""

    def __init__(self) -> None:
        self._seen: Mapping[K, V] = {}

    def news(self, rows: Mapping[K, V]) -> Sequence[News[K, V]]:
        """The ``differences`` to the rows of the last call; to none, at first."""
        found = tuple(differences(self._seen, rows))
        self._seen = rows
        return found


class _Items(ItemsView[K, V]):
    """Mapping's own would look every key up."""

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(map(dict.items, self._mapping._chunks))  # type: ignore[attr-defined]


class _Values(ValuesView[V]):
    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, self._mapping._chunks))  # type: ignore[attr-defined]


def differences(old: Mapping[K, V], new: Mapping[K, V]) -> Iterable[News[K, V]]:
    """(key, value before, value now) wherever these are not one object; None for a value that is not there.

    Several who follow the same rows ask for the same one after the other, so differences that are few are kept.
    """
    if old is new:
        return ()
    if not isinstance(old, Rows) or not isinstance(new, Rows):
        return _differences(old, new)
    news = new._news  # once, since another thread may put its own there
    if news is not None and news[0]() is old:
        return news[1]
    found = list(_differences(*_unshared(old._chunks, new._chunks)))
    if len(found) <= CHUNK:
        new._news = weakref.ref(old), found
    return found


def _differences(before: Mapping[K, V], now: Mapping[K, V]) -> Iterator[News[K, V]]:
    values = zip(now, map(before.get, now), now.values(), strict=True)
    yield from ((key, was, value) for key, was, value in values if was is not value)
    if before.keys() - now.keys():
        yield from ((key, was, None) for key, was in before.items() if key not in now)


def _unshared(old: list[dict[K, V]], new: list[dict[K, V]]) -> tuple[dict[K, V], dict[K, V]]:
    """The pairs of the chunks that only one of the two has."""
    head = _common(old, new)
    old, new = old[head:], new[head:]
    tail = _common(old[::-1], new[::-1])
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    shared = {id(chunk) for chunk in old} & {id(chunk) for chunk in new}
    before, now = ([chunk for chunk in chunks if id(chunk) not in shared] for chunks in (old, new))
    return _joined(before), _joined(now)


def _joined(chunks: list[dict[K, V]]) -> dict[K, V]:
    return chunks[0] if len(chunks) == 1 else dict(chain.from_iterable(map(dict.items, chunks)))


def _common(old: list[dict[K, V]], new: list[dict[K, V]]) -> int:
    """How many chunks at the front are the same objects."""
    alike = [*map(operator.is_, old, new), False]
    return alike.index(False)


def _edited(chunk: dict[K, V], edits: dict[K, V]) -> dict[K, V]:
    pairs = {**chunk, **edits}
    for key in [key for key, value in edits.items() if value is _ABSENT]:
        del pairs[key]
    return dict(sorted(pairs.items(), key=_key)) if edits.keys() - chunk.keys() else pairs


def _split(pairs: dict[K, V]) -> list[dict[K, V]]:
    """The pairs in chunks; none for no pairs."""
    if len(pairs) <= 2 * CHUNK:
        return [pairs] if pairs else []
    rows = list(pairs.items())
    return [dict(rows[first : first + CHUNK]) for first in range(0, len(rows), CHUNK)]
