"""Where results go: a folder, or a URL to which the folder of a run is copied once it has ended.

Law: a run writes to the disk it runs beside, whatever its destination, so that no network is in what it measures, and
one that is killed can be read here. Whether a URL can be written to is found out before anything runs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

HERE = Path("results")


@dataclass(frozen=True)
class Destination:
    """``folder`` is where runs write; ``url``, where it is not empty, what they are copied to."""

    folder: Path
    url: str = ""
    filesystem: fs.FileSystem | None = None
    path: str = ""

    def keep(self, results: Path) -> str:
        """Copies a run's folder, which lies in ``folder``, and returns where it is then; empty without a URL.

        Raises OSError.
        """
        if self.filesystem is None:
            return ""
        below = results.relative_to(self.folder).as_posix()
        self.filesystem.create_dir(f"{self.path}/{below}")
        fs.copy_files(str(results), f"{self.path}/{below}", destination_filesystem=self.filesystem)
        return f"{self.url.rstrip('/')}/{below}"


def destination(text: str) -> Destination:
    """What ``--out`` means. Raises ValueError, with the remedy, where nothing can be written there."""
    if "://" not in text:
        there = next(path for path in (Path(text), *Path(text).absolute().parents) if path.exists())
        if not there.is_dir():
            raise ValueError(f"--out {text}: {there} is no folder; name one, it is made where it is missing")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"--out {text}: nothing can be written to {there}; name another folder")
        return Destination(Path(text))
    try:
        filesystem, path = _found(text)
        filesystem.create_dir(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{text}: nothing can be written there: {error}") from error
    return Destination(HERE, text, filesystem, path.rstrip("/"))


def _found(url: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URL and the path in it: Arrow's own, or else fsspec's. Raises OSError and ValueError."""
    try:
        return fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as unknown:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ValueError(f"{unknown}; with `pip install fsspec` there are more kinds") from unknown
        found, path = url_to_fs(url)
        _tried(found, path)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def _tried(filesystem: Any, path: str) -> None:
    """Raises OSError where a filesystem of fsspec takes no files, as that of HTTP, which "makes" folders."""
    trial = f"{path.rstrip('/')}/.trial"
    try:
        with filesystem.open(trial, "wb"):
            pass
        filesystem.rm(trial)
    except NotImplementedError:
        raise OSError("files there can only be read") from None
