"""What became of an install."""

from typing import NamedTuple


class Installed(NamedTuple):
    """``generation`` is that in force now; ``problems`` are lines about what could not be done of it, the rest is."""

    generation: int
    problems: tuple[str, ...] = ()
