"""Two families of error: yours and ours.

A ``ManifestError`` is about input, and says where it is and what to write instead; a command that meets one exits
with 2 and has changed nothing. A ``PlaneError`` is about the plane itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with input: where it is, and what is wrong and how to mend it.

    file      path as the user gave it, ``-`` for standard input, empty for a request to the API
    document  1-based number of the YAML document in the file, 0 where there is none
    object    ``Kind namespace/name``, or what is known of it
    field     path as kubectl prints it, ``spec.ports[0].port``; empty for the object as a whole
    reason    what is wrong, and the remedy
    """

    file: str
    document: int
    object: str
    field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file or 'request'}" + (f" (document {self.document})" if self.document else "")
        return ": ".join(part for part in (where, self.object, self.field, self.reason) if part)


class ManifestError(Exception):
    """Everything that is wrong with a set of manifests or a request, all of it at once."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConflictError(Exception):
    """A write against a resourceVersion that is no longer current, or of a name that exists: HTTP 409."""


class ForbiddenError(Exception):
    """What nobody may do: HTTP 403."""


class NotFoundError(Exception):
    """No object of that name: HTTP 404."""


class PlaneError(Exception):
    """The plane cannot do what it must: an address taken, a node that does not answer, Ray that does not start."""


class NotReadyError(PlaneError):
    """What should run does not yet, and may still come: a pod whose readiness probe fails."""
