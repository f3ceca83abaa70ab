"""The tables of nodes over the generations of late: what brings a node to the newest ones from wherever it is.

Law: a journal is a value. The patches follow one another, and the whole tables are those of a generation among them.
So an agent that has tables of any of these gets the patches since, and any other gets the whole and the patches since.
"""

from itertools import accumulate
from typing import Any, NamedTuple

from kernels.lb.patches import Patch, composed

# Patches from before the whole tables, for agents that are a little behind: so many at most, and that part of the bytes
# of the whole. Those of one machine share the whole, and each is sent patches of its own.
KEPT = 64
KEPT_PART = 8


class Journal(NamedTuple):
    """Whole tables in the form that agents are handed (None: the empty ones), their generation, and patches."""

    whole: Any = None
    generation: int = 0
    patches: tuple[Patch, ...] = ()

    def noted(self, patch: Patch) -> "Journal":
        """With the next patch; one that begins with the empty tables begins a new journal."""
        return self._replace(patches=(*self.patches, patch)) if patch.before else Journal(patches=(patch,))

    def begun(self, whole: Any, generation: int, nbytes: int) -> "Journal":
        """With the whole tables of its last generation, and what they take."""
        late = [patch for patch in self.patches[-KEPT:] if patch.before]
        sums = accumulate(patch.nbytes for patch in reversed(late))
        kept = sum(taken <= nbytes // KEPT_PART for taken in sums)
        return Journal(whole, generation, tuple(late[len(late) - kept :]))

    def since(self, generation: int | None) -> tuple[Any, Patch | None]:
        """(whole tables, patch) for who has those of a generation, or None, and is to have the newest.

        Without whole tables the patch is for those of the generation, or for the empty ones.
        """
        last = len(self.patches)
        for place in range(last, -1, -1):
            begins = (
                self.patches[place - 1].generation if place else self.patches[0].before if last else self.generation
            )
            if generation and begins == generation:
                return None, composed(self.patches[place:]) if place < last else None
        rest = [patch for patch in self.patches if patch.before >= self.generation]
        return self.whole, composed(rest) if rest else None
