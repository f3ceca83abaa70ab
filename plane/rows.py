"""Rows: a sorted mapping that is a value, so large that a change must not cost a copy of it.

Law: Rows never change. Their pairs lie in the leaves of a tree by order of the keys, and a changed copy shares with the
one it was made of the whole tree but for the ways down to what it changed. So making it costs what is changed, and
``differences`` of two versions of the same rows looks at what differs and at no more, whichever of the two is the
older, and whatever lies between them. Where only some small changes do, it does not look at the tree at all, for Rows
remember what they were made by.
"""

import operator
from bisect import bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import chain, dropwhile
from typing import Any, Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Any)
V = TypeVar("V")

News = tuple[K, V | None, V | None]  # key, value before, value now

LEAF = 16  # pairs; up to twice as many before it is split
BRANCH = 32  # parts; likewise
FEW = 4  # edits that are made one after the other
REMEMBERED = 8  # changes that Rows were made by, the last ones, as long as none is of more than LEAF pairs
REBUILT = 4  # where one of so many pairs is edited, all of the tree is made anew
_ABSENT: Any = object()
_key = operator.itemgetter(0)


class _Branch(NamedTuple):
    """Parts of one height, none of them empty, in order; and for each a key that is not after its own, but after those
    of the parts before."""

    firsts: list[Any]
    parts: list[Any]

    def place(self, key: Any) -> int:
        """Index of the part that has the key, if any has."""
        return max(bisect_right(self.firsts, key) - 1, 0)


_Leaf = dict[Any, Any]
_Part = _Leaf | _Branch  # never changed once it is made
_Step = tuple[object, Sequence[News[Any, Any]]]  # the version that was changed, by its mark, and what it was changed in


class Rows(Mapping[K, V], Generic[K, V]):
    """Pairs in order of their keys. ``changed`` makes the next version."""

    __slots__ = ("_height", "_length", "_mark", "_past", "_root")

    def __init__(self, pairs: Mapping[K, V] | Iterable[tuple[K, V]] = ()):
        pairs = dict(sorted(dict(pairs).items(), key=_key))
        self._root, self._height = _tree(_leaves(pairs), 0)
        self._length = len(pairs)
        self._mark: object = object()  # what others know this version by, who do not keep it
        self._past: tuple[_Step, ...] = ()  # the changes that led here, the last ones

    def __getitem__(self, key: K) -> V:
        found: V = self._leaf(key)[key]
        return found

    def get(self, key: K, default: Any = None) -> Any:
        return self._leaf(key).get(key, default)

    def _leaf(self, key: K) -> _Leaf:
        """The leaf that has the key, if any has: a key before the first is in the last of the parts as in any other."""
        part = self._root
        while isinstance(part, _Branch):
            part = part.parts[bisect_right(part.firsts, key) - 1]
        return part

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(_leaves_of(self._root))

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

    def since(self, key: K) -> Iterator[tuple[K, V]]:
        """The pairs from this key on."""
        part, later = self._root, []
        while isinstance(part, _Branch):
            place = part.place(key)
            later.append(part.parts[place + 1 :])
            part = part.parts[place]
        rest = (leaf for parts in reversed(later) for each in parts for leaf in _leaves_of(each))
        return chain(dropwhile(lambda pair: pair[0] < key, part.items()), chain.from_iterable(map(dict.items, rest)))

    def changed(self, put: Mapping[K, V], drop: Iterable[K] = ()) -> "Rows[K, V]":
        """These rows with others put in their place or added, and some left out; the same object if nothing differs."""
        wanted = {**put, **dict.fromkeys(drop, _ABSENT)}
        news = [(key, self.get(key, _ABSENT), value) for key, value in wanted.items()]
        news = [each for each in news if each[1] is not each[2]]
        if not news:
            return self
        rows: Rows[K, V] = Rows.__new__(Rows)
        rows._mark = object()
        rows._root, rows._height = self._edited({key: value for key, _, value in news})
        rows._length = self._length + sum((now is not _ABSENT) - (was is not _ABSENT) for _, was, now in news)
        rows._past = self._followed_by(news)
        return rows

    def _edited(self, edits: _Leaf) -> tuple[_Part, int]:
        """The root that edits make of that of these rows, and its height."""
        if len(edits) > LEAF and REBUILT * len(edits) >= self._length:
            return _tree(_leaves(_edited(dict(self.items()), edits)), 0)
        root: _Part | None = self._root
        for key, value in edits.items() if len(edits) <= FEW else ():
            root = _set(root, key, value) if root is not None else None
        if root is None or len(edits) > FEW:
            return _tree(_changed(self._root, edits), self._height)
        return root, self._height

    def _followed_by(self, news: Sequence[News[K, V]]) -> tuple[_Step, ...]:
        """The past of the Rows that come of these by a change."""
        if len(news) > LEAF:
            return ()
        told = [(key, _told(was), _told(now)) for key, was, now in sorted(news, key=_key)]
        return (*self._past[1 - REMEMBERED :], (self._mark, told))


def _told(value: Any) -> Any:
    return None if value is _ABSENT else value


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
        return chain.from_iterable(map(dict.items, _leaves_of(self._mapping._root)))  # type: ignore[attr-defined]


class _Values(ValuesView[V]):
    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, _leaves_of(self._mapping._root)))  # type: ignore[attr-defined]


def differences(old: Mapping[K, V], new: Mapping[K, V]) -> Iterable[News[K, V]]:
    """(key, value before, value now) wherever these are not one object; None for a value that is not there."""
    if old is new:
        return ()
    if not isinstance(old, Rows) or not isinstance(new, Rows):
        return _differences(old, new)
    if (found := _remembered(old, new)) is not None:
        return found
    if (found := _remembered(new, old)) is not None:
        return [(key, now, was) for key, was, now in found]
    return _differences(*_unshared(old, new))


def _remembered(old: Rows[K, V], new: Rows[K, V]) -> Sequence[News[K, V]] | None:
    """The differences, where the newer of two versions knows them."""
    marks = [mark for mark, _ in new._past]
    if old._mark not in marks:
        return None
    steps = [news for _, news in new._past[marks.index(old._mark) :]]
    if len(steps) == 1:
        return steps[0]
    before: dict[K, V | None] = {}
    now: dict[K, V | None] = {}
    for key, was, value in chain.from_iterable(steps):
        before.setdefault(key, was)
        now[key] = value
    return [(key, before[key], value) for key, value in now.items() if before[key] is not value]


def _differences(before: Mapping[K, V], now: Mapping[K, V]) -> Iterator[News[K, V]]:
    values = zip(now, map(before.get, now), now.values(), strict=True)
    yield from ((key, was, value) for key, was, value in values if was is not value)
    if before.keys() - now.keys():
        yield from ((key, was, None) for key, was in before.items() if key not in now)


def _unshared(old: Rows[K, V], new: Rows[K, V]) -> tuple[dict[K, V], dict[K, V]]:
    """The pairs of the leaves that only one of the two has."""
    before, now = [old._root], [new._root]
    both = min(old._height, new._height)
    for height in range(max(old._height, new._height), 0, -1):
        if height <= both:
            before, now = _apart(before, now)
        before = _below(before) if height <= old._height else before
        now = _below(now) if height <= new._height else now
    before, now = _apart(before, now)
    return _joined(before), _joined(now)


def _below(parts: Iterable[Any]) -> list[_Part]:
    return list(chain.from_iterable(branch.parts for branch in parts))


def _apart(old: list[_Part], new: list[_Part]) -> tuple[list[_Part], list[_Part]]:
    """Parts of one height without those that both have."""
    head = _common(old, new)
    old, new = old[head:], new[head:]
    tail = _common(old[::-1], new[::-1])
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    shared = {id(part) for part in old} & {id(part) for part in new}
    return [part for part in old if id(part) not in shared], [part for part in new if id(part) not in shared]


def _common(old: list[_Part], new: list[_Part]) -> int:
    """How many parts at the front are the same objects."""
    alike = [*map(operator.is_, old, new), False]
    return alike.index(False)


def _joined(leaves: list[Any]) -> _Leaf:
    return leaves[0] if len(leaves) == 1 else dict(chain.from_iterable(map(dict.items, leaves)))


def _leaves_of(part: _Part) -> Iterator[_Leaf]:
    if isinstance(part, _Branch):
        for each in part.parts:
            yield from _leaves_of(each)
    else:
        yield part


def _set(root: _Part, key: Any, value: Any) -> _Part | None:
    """A tree with one pair put or left out; None where parts would have to be split or joined for it."""
    way: list[tuple[_Branch, int]] = []
    part = root
    while isinstance(part, _Branch):
        place = bisect_right(part.firsts, key) - 1
        if place < 0:
            return None
        way.append((part, place))
        part = part.parts[place]
    changed: _Part = _edited(part, {key: value})
    least = LEAF // 2 if way else 0
    if not least <= len(changed) <= 2 * LEAF:
        return None
    for branch, place in reversed(way):
        parts = branch.parts.copy()
        parts[place] = changed
        changed = _Branch(branch.firsts, parts)
    return changed


def _changed(part: _Part, edits: _Leaf) -> list[_Part]:
    """What edits make of a part: parts of the same height, of which neighbours that have become small are one."""
    if not isinstance(part, _Branch):
        return _leaves(_edited(part, edits))
    by_place: dict[int, _Leaf] = {}
    for key, value in edits.items():
        by_place.setdefault(part.place(key), {})[key] = value
    parts: list[_Part] = []
    firsts: list[Any] = []
    kept = 0
    for place in sorted(by_place):
        parts += part.parts[kept:place]
        firsts += part.firsts[kept:place]
        for each in _changed(part.parts[place], by_place[place]):
            if parts and _fit(parts[-1], each):
                parts[-1] = _merged(parts[-1], each)
            else:
                parts.append(each)
                firsts.append(_first(each))
        kept = place + 1
    if parts and kept < len(part.parts) and _fit(parts[-1], part.parts[kept]):
        parts[-1] = _merged(parts[-1], part.parts[kept])
        kept += 1
    return _branches(parts + part.parts[kept:], firsts + part.firsts[kept:])


def _edited(leaf: _Leaf, edits: _Leaf) -> _Leaf:
    pairs = {**leaf, **edits}
    for key in [key for key, value in edits.items() if value is _ABSENT]:
        del pairs[key]
    return dict(sorted(pairs.items(), key=_key)) if edits.keys() - leaf.keys() else pairs


def _fit(one: _Part, other: _Part) -> bool:
    """Whether two parts are small enough to be one."""
    if isinstance(one, _Branch) and isinstance(other, _Branch):
        return len(one.parts) + len(other.parts) <= BRANCH
    return len(one) + len(other) <= LEAF


def _merged(one: Any, other: Any) -> _Part:
    if isinstance(one, _Branch):
        return _Branch(one.firsts + other.firsts, one.parts + other.parts)
    return {**one, **other}


def _leaves(pairs: _Leaf) -> list[_Part]:
    """The pairs in leaves; none for no pairs."""
    if len(pairs) <= 2 * LEAF:
        return [pairs] if pairs else []
    rows = list(pairs.items())
    return [dict(rows[first : first + LEAF]) for first in range(0, len(rows), LEAF)]


def _branches(parts: list[_Part], firsts: list[Any]) -> list[_Part]:
    """Parts of one height in branches; none for no parts."""
    step = BRANCH if len(parts) > 2 * BRANCH else max(len(parts), 1)
    return [_Branch(firsts[at : at + step], parts[at : at + step]) for at in range(0, len(parts), step)]


def _first(part: _Part) -> Any:
    return part.firsts[0] if isinstance(part, _Branch) else next(iter(part))


def _tree(parts: list[_Part], height: int) -> tuple[_Part, int]:
    """The root over parts of one height, and its own."""
    while len(parts) > 1:
        parts, height = _branches(parts, list(map(_first, parts))), height + 1
    if not parts:
        return {}, 0
    root = parts[0]
    while isinstance(root, _Branch) and len(root.parts) == 1:
        root, height = root.parts[0], height - 1
    return root, height
