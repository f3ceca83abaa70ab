"""By which name Numba finds what it has compiled of ``kernels``: the file's place in the room, wherever the room is.

Law: equal sources are compiled once. Numba's own names have the path of the folder in them, so that each checkout would
compile everything anew, and so would each Ray job, which runs from a copy. ``cache.directory`` says already what the
sources are. (Numba's documentation, "NUMBA_CACHE_LOCATOR_CLASSES".)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core.caching import UserProvidedCacheLocator

from kernels import cache


class Locator(UserProvidedCacheLocator):
    """Leaves functions of other packages to the locators after it."""

    def __init__(self, function: Callable[..., Any], file: str):
        super().__init__(function, file)
        self._cache_path = str(cache.folder_of(Path(file)))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "Locator | None":
        found: Locator | None = None
        if Path(file).is_relative_to(cache.SOURCES):
            found = super().from_function(function, file)
        return found
